"""Exercises in recall: documents made up as they are needed, with questions whose answers lie in them.

Everything is drawn from one seed, so a run can be repeated. Prose comes from books that are handed in; all else (words,
names, numbers, forms of speech) is made up here or taken from those books' vocabulary, and no key is used twice in a
batch: what one row asks for, no other row answers.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from longfocus.errors import RequestError
from longfocus.loading.prompts import Frame, encode_frame, encode_text, frame_of
from longfocus.training.examples import IGNORED


@dataclass(frozen=True)
class Exercise:
    """A document and what is asked about it.

    Attributes:
        kind: Its name in EXERCISES.
        document: Token ids, with the prompt's opening.
        asked: Token ids that follow: question, answer, question, answer; or the document's continuation.
        labels: The same where a token is to be predicted, -100 elsewhere.
    """

    kind: str
    document: list[int]
    asked: list[int]
    labels: list[int]


Question = tuple[str, str]
"""A question and its answer."""


class Writer:
    """Makes exercises up.

    Args:
        tokenizer: The model's.
        texts: Books to take prose and words from.
        seed: What makes it repeatable.

    Raises:
        RequestError: The texts are too short to take words from.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str], seed: int) -> None:
        self.tokenizer = tokenizer
        self.texts = texts
        self.chance = random.Random(seed)
        self.frame: Frame = frame_of(tokenizer)
        counts = Counter(word for text in texts for word in re.findall(r"\b[a-z]{3,14}\b", text))
        self.words = sorted(word for word, count in counts.items() if count >= 2)
        if len(self.words) < 100:
            raise RequestError(f"exercises need books with 100 words that come twice, these have {len(self.words)}")
        self._used: set[str] = set()

    def write(self, kind: str, tokens: int, room: int) -> Exercise:
        """One exercise.

        Args:
            kind: Its name in EXERCISES.
            tokens: Tokens of the document, exactly.
            room: Most tokens of questions and answers.
        """
        opening = ([self.tokenizer.bos_token_id] if self.frame.begins_sequence else []) + encode_frame(
            self.tokenizer, self.frame.opening
        )
        if kind == "continuation":
            return self._continuation(opening, tokens, room)
        document, questions = EXERCISES[kind](self, tokens - len(opening))
        asked, labels = self._conversation(questions, room)
        return Exercise(kind, (opening + document)[:tokens], asked, labels)

    def forget_keys(self) -> None:
        """Allow keys to be used again: a new batch begins."""
        self._used.clear()

    def _continuation(self, opening: list[int], tokens: int, room: int) -> Exercise:
        """A stretch of a book; asked for is how it goes on, token by token."""
        ids = self.prose_ids(tokens - len(opening) + room)
        document, asked = ids[: tokens - len(opening)], ids[tokens - len(opening) :]
        return Exercise("continuation", opening + document, asked, [IGNORED, *asked[1:]])

    def _conversation(self, questions: Sequence[Question], room: int) -> tuple[list[int], list[int]]:
        """Questions and answers as turns of one conversation, as many as fit; at least one."""
        ids: list[int] = []
        labels: list[int] = []
        end = [self.tokenizer.eos_token_id]
        for number, (question, answer) in enumerate(questions):
            before = encode_frame(self.tokenizer, self.frame.between_turns if number else self.frame.before_question)
            if number and before[:1] == end:  # it ended the answer before
                before = before[1:]
            before += self.encode(question) + encode_frame(self.tokenizer, self.frame.after_question)
            after = self.encode(answer) + end
            if number and len(ids) + len(before) + len(after) > room:
                break
            ids += before + after
            labels += [IGNORED] * len(before) + after
        return ids[:room], labels[:room]

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

    def key(self) -> str:
        """Two words that were not used together in this batch."""
        while (key := f"{self.word()}-{self.word()}") in self._used:
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


_SYLLABLES = ["ba", "ru", "ti", "mon", "vel", "gra", "sko", "lin", "dar", "pe", "os", "ton", "ham", "wick", "lo", "mer"]
_TITLES = ["Mr.", "Mrs.", "Captain", "Miss", "Doctor", "Old", "Sir", "Aunt", "Professor"]


def records(writer: Writer, tokens: int) -> tuple[list[int], list[Question]]:
    """A list of keys with numbers, in one of several forms; LongChat's lines are the first."""
    chance = writer.chance
    form, ask, answer = chance.choice(_RECORDS)
    ids = writer.encode(chance.choice(_RECORD_OPENINGS))
    pairs = []
    while len(ids) < tokens:
        pairs.append((writer.key(), writer.number()))
        ids += writer.encode(form.format(*pairs[-1]))
    asked = chance.sample(pairs[:-1] or pairs, min(40, max(len(pairs) - 1, 1)))
    return ids, [(chance.choice(ask).format(key), answer.format(key, value)) for key, value in asked]


_RECORD_OPENINGS = [
    "Here is a register. Each line has a key and a value.\n\n",
    "Keep these records in mind; some of them will be asked for.\n\n",
    "",
]
# One form of answer for each: which of several was drawn could not be known, and would only be noise. Those that say
# the key again have found its record by then.
_RECORDS: list[tuple[str, list[str], str]] = [
    (
        "line {}: REGISTER_CONTENT is <{}>\n",
        [
            "Tell me what is the <REGISTER_CONTENT> in line {}? I need the number.",
            "What is the REGISTER_CONTENT in line {}?",
        ],
        "The <REGISTER_CONTENT> in line {0} is <{1}>.",
    ),
    ("{}: {}\n", ["What is the value of {}?", "Which number belongs to {}?"], "The value of {0} is {1}."),
    ("The code of {} is {}.\n", ["What is the code of {}?", "Tell me the code of {}."], "{1}"),
    ("- {} = {}\n", ["What does {} equal?", "Give the number for {}."], "{0} = {1}"),
]


def facts(writer: Writer, tokens: int) -> tuple[list[int], list[Question]]:
    """Pages of a book with made-up facts between the paragraphs."""
    chance = writer.chance
    ids: list[int] = []
    found: list[tuple[str, str, str]] = []
    while len(ids) < tokens:
        fact = chance.choice(_FACTS)(writer)
        page = writer.prose(chance.randint(200, 1200))
        added = writer.encode(f"{page}\n\n{fact[0]}\n\n")
        if not found and len(added) > tokens:
            added = writer.encode(f"{fact[0]}\n\n{page}\n\n")
        if not found or len(ids) + len(added) <= tokens:
            found.append(fact)
        ids += added
    asked = chance.sample(found, min(24, len(found)))
    return ids, [(question, short) for _, question, short in asked]


def _pass_key(writer: Writer) -> tuple[str, str, str]:
    of, key = writer.key().replace("-", " "), writer.number()
    return (
        f"The pass key of the {of} is {key}. Remember it. {key} is the pass key of the {of}.",
        (f"What is the pass key of the {of}?"),
        key,
    )


def _kept(writer: Writer) -> tuple[str, str, str]:
    person, thing = writer.person(), f"a {writer.word()} {writer.word()}"
    return f"{person} kept {thing} in the {writer.word()} room.", f"What did {person} keep?", thing


def _born(writer: Writer) -> tuple[str, str, str]:
    person, town = writer.person(), writer.made_up()
    return f"{person} was born in the town of {town}.", f"Where was {person} born?", town


def _password(writer: Writer) -> tuple[str, str, str]:
    of, password = writer.key().replace("-", " "), f"{writer.word()} {writer.word()}"
    return f'The password of the {of} was "{password}".', f"What was the password of the {of}?", password


def _paid(writer: Writer) -> tuple[str, str, str]:
    person, sum_ = writer.person(), writer.number()
    return f"{person} paid {sum_} pounds for the {writer.word()}.", f"How much did {person} pay?", f"{sum_} pounds"


def _daughter(writer: Writer) -> tuple[str, str, str]:
    person, name = writer.person(), writer.made_up()
    return f"The daughter of {person} was called {name}.", f"What was the name of {person}'s daughter?", name


_FACTS = (_pass_key, _kept, _born, _password, _paid, _daughter)


def pass_key(writer: Writer, tokens: int) -> tuple[list[int], list[Question]]:
    """One number in the middle of sentences that say nothing, over and over."""
    chance = writer.chance
    sentences = chance.choice(_FILLINGS)
    key = str(chance.randint(1, 50_000))
    filling = writer.encode(sentences)
    hidden = writer.encode(f"The pass key is {key}. Remember it. {key} is the pass key. ")
    ids = writer.encode(chance.choice(_PASS_KEY_OPENINGS))
    times = max((tokens - len(ids) - len(hidden)) // len(filling), 1)
    place = chance.randint(0, times)
    ids += filling * place + hidden + filling * (times - place + 1)
    return ids, [(chance.choice(["What is the pass key?", "What is the pass key? The pass key is"]), key)]


_FILLINGS = [
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ",
    "The rain fell on the roof. Nobody came. The clock went on. It was late. ",
    "One day is like another. The road is long. The hills are far away. ",
]
_PASS_KEY_OPENINGS = [
    "Somewhere in this text, most of which says nothing, stands a number that matters. Find it and keep it in mind. ",
    "A number is hidden in this text. Find it. ",
    "",
]


def quotations(writer: Writer, tokens: int) -> tuple[list[int], list[Question]]:
    """A stretch of a book; asked for is how passages of it go on."""
    chance = writer.chance
    ids = writer.prose_ids(tokens)
    questions = []
    for _ in range(6):
        start = chance.randrange(max(len(ids) - 60, 1))
        quoted, following = (
            writer.tokenizer.decode(piece).strip() for piece in (ids[start : start + 16], ids[start + 16 : start + 40])
        )
        questions.append((chance.choice(_GO_ON).format(quoted), following))
    return ids, questions


_GO_ON = ['How does this passage go on: "{}"', 'Continue from the text: "{}"', 'What follows "{}" in the text?']


def topics(writer: Writer, tokens: int) -> tuple[list[int], list[Question]]:
    """A record of talks, each opened with its topic; asked for are the first, and those after and before another."""
    chance = writer.chance
    ids: list[int] = []
    names: list[str] = []
    while len(ids) < tokens:
        name = f"the {writer.word()} of {writer.key().replace('-', ' ')}"
        said = (
            f"USER: I would like to discuss the topic of {name}.\nASSISTANT: Sure! What would you like to know?\nUSER: "
        )
        added = writer.encode(f"{said}{writer.prose(chance.randint(300, 1500))}\n")
        if len(ids) + len(added) <= tokens or not names:
            names.append(name)
        ids += added
    questions = [("What is the first topic we discussed? Give only the name of the topic.", names[0])]
    for place in chance.sample(range(1, len(names)), min(6, len(names) - 1)):
        questions.append((f"Which topic did we discuss right after {names[place - 1]}?", names[place]))
    chance.shuffle(questions)
    return ids, questions


def hops(writer: Writer, tokens: int) -> tuple[list[int], list[Question]]:
    """Keys that lead to keys that have values: two look-ups for one answer."""
    chance = writer.chance
    ids: list[int] = []
    pairs: list[tuple[str, str, str]] = []
    waiting: list[str] = []
    written: list[str] = []
    while len(ids) < tokens:
        first, second, value = writer.key(), writer.key(), writer.number()
        pairs.append((first, second, value))
        waiting += [f"{first} is kept by {second}.\n", f"{second} lives at number {value}.\n"]
        chance.shuffle(waiting)
        for _ in range(min(2, len(waiting))):
            written.append(waiting.pop())
            ids += writer.encode(written[-1])
    whole = "".join(written[:-1])  # the last may be cut
    known = [pair for pair in pairs if f"{pair[0]} is kept" in whole and f"{pair[1]} lives" in whole]
    questions = []
    for first, second, value in chance.sample(known, min(16, len(known))):
        questions.append(
            (
                f"At which number does the keeper of {first} live?",
                f"{first} is kept by {second}. {second} lives at number {value}.",
            )
        )
    return ids, questions


EXERCISES: dict[str, Callable[[Writer, int], tuple[list[int], list[Question]]]] = {
    "records": records,
    "facts": facts,
    "pass_key": pass_key,
    "quotations": quotations,
    "topics": topics,
    "hops": hops,
}
"""Kinds of exercise; besides these there is "continuation", a book's own next words."""

CROWDED = frozenset({"records", "hops"})
"""Kinds whose documents are nothing but things to be told apart."""
