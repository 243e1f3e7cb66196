"""Lines: a record of keys with numbers, of which one is asked for.

LongChat's fine-grained line retrieval (Li et al., "How Long Can Open-Source LLMs Truly Promise on Context Length?",
2023) and Anima 100K's extension of it: keys are an adjective and a noun, or two nouns where the adjectives run out,
from the word lists of the package wonderwords. An answer is read as in LongEval: its last number counts, or the last
that is written as values are. LongEval has other values than numbers too, which are harder to guess and longer to copy.
"""

from __future__ import annotations

import random
import re
import uuid
from functools import cache
from hashlib import sha256

from longfocus.errors import RequestError
from longfocus.evaluation.task import AnswerTask, Count, Length, Question, Sheet

OPENING = (
    "Below is a record of lines I want you to remember. Each line begins with 'line <line index>' and contains a "
    "'<REGISTER_CONTENT>' at the end of the line as {kind}. For each line index, memorize its corresponding "
    "<REGISTER_CONTENT>. At the end of the record, I will ask you to retrieve the corresponding <REGISTER_CONTENT> of "
    "a certain line index. Now the record start:\n\n"
)
ASKED = "Tell me what is the <REGISTER_CONTENT> in line {key}? I need the {value}."
_WORDS_SHA256 = "bab2c417f7d2b42f2a978e34215d8bbd85516c5990a5979e8e4ba4320914858a"


class Lines(AnswerTask):
    """Lines with whole numbers from 1 to 50,000; which of them are asked is drawn without repeats.

    Attributes:
        kind: What values are, for the opening.
        value: What a value is called in questions.
        pattern: How values are written in answers.
    """

    name = "lines"
    kind = "a numerical value"
    value = "number"
    pattern = r"\d+"
    units: tuple[str, ...] = ("lines", "tokens")
    answer_tokens = 48
    questions = 25

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`. A length in tokens is that of the longest record that is not longer.

        Raises:
            RequestError: The package wonderwords is missing, has other words, or has too few for so many lines.
        """
        chance = random.Random(f"{self.name} {seed} {length} {number}")
        if length.unit == "lines":
            pairs = self._pairs(length.amount, chance)
        else:
            pairs = self._fitting(length.amount, chance, count)
        if not pairs:
            raise RequestError(f"a record of {length} has no room for a line")
        asked = chance.sample(range(len(pairs)), len(pairs))[:questions]
        return Sheet(
            self._record(pairs),
            tuple(
                Question(ASKED.format(key=pairs[place][0], value=self.value), (pairs[place][1],), place / len(pairs))
                for place in asked
            ),
        )

    def score(self, question: Question, answer: str) -> float:
        """1 if the last value in the answer is the one of the line."""
        return float(re.findall(self.pattern, answer)[-1:] == [question.answers[0]])

    def draw(self, chance: random.Random) -> str:
        """A value."""
        return str(chance.randint(1, 50_000))

    def _record(self, pairs: list[tuple[str, str]]) -> str:
        lines = (f"line {key}: REGISTER_CONTENT is <{value}>\n" for key, value in pairs)
        return OPENING.format(kind=self.kind) + "".join(lines)

    def _pairs(self, lines: int, chance: random.Random) -> list[tuple[str, str]]:
        """Keys, each once, with values."""
        adjectives, nouns = words()
        first = list(adjectives if lines <= len(adjectives) else nouns)  # each word stands first in one line only
        second = list(nouns)
        if lines > len(first):
            raise RequestError(f"{lines} lines were asked for, there are words for {len(first)}")
        chance.shuffle(first)
        return [(f"{word}-{chance.choice(second)}", self.draw(chance)) for word in first[:lines]]

    def _fitting(self, tokens: int, chance: random.Random, count: Count) -> list[tuple[str, str]]:
        """As many lines as so many tokens hold."""
        state = chance.getstate()
        few = 16
        opening, some = count(self._record([])), count(self._record(self._pairs(few, chance)))
        lines = min(int((tokens - opening) / (some - opening) * few), len(words()[1]))
        pairs: list[tuple[str, str]] = []
        for _ in range(8):
            if lines < 1:
                return []
            chance.setstate(state)
            pairs = self._pairs(lines, chance)
            found = count(self._record(pairs))
            each = (found - opening) / lines
            spare = int((tokens - found) // each)
            if spare == 0 or (spare > 0 and lines == len(words()[1])):
                return pairs
            lines = min(lines + spare, len(words()[1]))
        while pairs and count(self._record(pairs)) > tokens:
            pairs.pop()
        return pairs


class LettersLines(Lines):
    """Lines with six letters from A to F."""

    name = "lines-letters"
    kind = "a value of six letters"
    value = "letters"
    pattern = r"\b[A-F]{6}\b"

    def draw(self, chance: random.Random) -> str:
        """See `Lines.draw`."""
        return "".join(chance.choices("ABCDEF", k=6))


class UuidLines(Lines):
    """Lines with UUIDs."""

    name = "lines-uuids"
    kind = "a UUID"
    value = "UUID"
    pattern = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    answer_tokens = 64

    def draw(self, chance: random.Random) -> str:
        """See `Lines.draw`."""
        return random_uuid(chance)


def random_uuid(chance: random.Random) -> str:
    """A UUID of version 4."""
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


@cache
def words() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Adjectives and nouns without spaces, in the order of the package.

    Raises:
        RequestError: The package is missing, or its words are others than those that results are made with.
    """
    try:
        from wonderwords import RandomWord
    except ImportError:
        raise RequestError("lines need the package wonderwords for their keys: pip install wonderwords") from None
    maker = RandomWord()
    found = tuple(
        tuple(sorted({word for word in maker.filter(include_categories=[kind]) if word.isalpha()}))
        for kind in ("adjective", "noun")
    )
    if sha256(" ".join(found[0] + found[1]).encode()).hexdigest() != _WORDS_SHA256:
        raise RequestError("wonderwords has other words here than lines are made of; install wonderwords==3.0.1")
    return found[0], found[1]
