"""What exercises are made of: words, names and numbers that are drawn, and pages of books.

Everything is drawn from one seed, so a run can be repeated. Prose comes from books that are handed in; all else is made
up here or taken from those books' vocabulary, and no key is used twice in a batch: what one row asks for, no other row
answers.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from longfocus.errors import RequestError
from longfocus.loading.prompts import encode_text
from longfocus.training.tales import Tale

_SYLLABLES = ["ba", "ru", "ti", "mon", "vel", "gra", "sko", "lin", "dar", "pe", "os", "ton", "ham", "wick", "lo", "mer"]
_TITLES = ["Mr.", "Mrs.", "Captain", "Miss", "Doctor", "Old", "Sir", "Aunt", "Professor"]


class Question(NamedTuple):
    """Something to be asked.

    Attributes:
        text: The question.
        answer: Its answer.
        places: In which of the document's passages the answer stands.
    """

    text: str
    answer: str
    places: tuple[int, ...]


class Made(NamedTuple):
    """A document that was made up.

    Attributes:
        ids: Its token ids, or more.
        questions: What is to be asked about it.
        passages: Stretches of it, in order, such as may be looked up for a question.
    """

    ids: list[int]
    questions: list[Question]
    passages: list[str]


class Source:
    """Draws what exercises are made of.

    Args:
        tokenizer: The model's.
        texts: Books to take prose and words from.
        seed: What makes it repeatable.
        tales: Retold stories with questions about them, for exercises in these.

    Raises:
        RequestError: The texts are too short to take words from.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str], seed: int, tales: Sequence[Tale] = ()) -> None:
        self.tokenizer = tokenizer
        self.texts = texts
        self.tales = tales
        self.chance = random.Random(seed)
        counts = Counter(word for text in texts for word in re.findall(r"\b[a-z]{3,14}\b", text))
        self.words = sorted(word for word, count in counts.items() if count >= 2)
        if len(self.words) < 100:
            raise RequestError(f"exercises need books with 100 words that come twice, these have {len(self.words)}")
        self._used: set[str] = set()

    def forget_keys(self) -> None:
        """Allow keys to be used again: a new batch begins."""
        self._used.clear()

    def encode(self, text: str) -> list[int]:
        """Token ids of text in which nothing is a special token."""
        return encode_text(self.tokenizer, text)

    def prose(self, characters: int) -> str:
        """A stretch of a book, from the beginning of a word."""
        text: str = self.chance.choice(self.texts)
        start = self.chance.randrange(max(len(text) - characters, 1))
        start = text.find(" ", start) + 1
        return text[start : start + characters]

    def prose_ids(self, tokens: int) -> list[int]:
        """So many tokens of a book."""
        characters = tokens * 5
        while len(ids := self.encode(self.prose(characters))) < tokens:
            characters *= 2
            if characters > 100 * tokens:
                raise RequestError(f"no book has {tokens} tokens in one piece")
        return ids[:tokens]

    def word(self) -> str:
        """A word of the books."""
        word: str = self.chance.choice(self.words)
        return word

    def key(self, second: Sequence[str] = ()) -> str:
        """Two words that were not used together in this batch; the second may be one of a few."""
        while (key := f"{self.word()}-{self.chance.choice(second or self.words)}") in self._used:
            continue
        self._used.add(key)
        return key

    def made_up(self) -> str:
        """A word that is in no book, like a name; not used in this batch."""
        while (made := "".join(self.chance.choice(_SYLLABLES) for _ in range(self.chance.randint(2, 4)))) in self._used:
            continue
        self._used.add(made)
        return made.capitalize()

    def person(self) -> str:
        """A made-up name."""
        return f"{self.chance.choice(_TITLES)} {self.made_up()}"

    def number(self) -> str:
        """A whole number of one to six digits."""
        return str(self.chance.randint(1, self.chance.choice([1000, 50_000, 50_000, 1_000_000])))


def sentences(text: str) -> list[str]:
    """Its sentences, more or less, without what may be a cut one at either end."""
    return [found.strip() for found in re.split(r"(?<=[.!?])[\"'”’]*\s+", text)[1:-1] if found.strip()]
