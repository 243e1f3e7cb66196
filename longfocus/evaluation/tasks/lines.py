"""Lines: a record of keys with numbers, of which one is asked for.

LongChat's fine-grained line retrieval (Li et al., "How Long Can Open-Source LLMs Truly Promise on Context Length?",
2023) in its own words, and Anima 100K's extension of it: keys are an adjective and a noun, or two nouns where there are
more lines than the 910 adjectives of the package wonderwords, whose word lists both take. An answer is read as in
LongEval: its last number counts, or the last that is written as values are. LongEval has other values than numbers too,
which are harder to guess and longer to copy.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from itertools import islice

from longfocus.errors import RequestError
from longfocus.evaluation.fitting import filled
from longfocus.evaluation.pieces import most_pieces
from longfocus.evaluation.task import AnswerTask, Count, DoesNotFit, Length, Question, Sheet

OPENING = (
    "Below is a record of lines I want you to remember. Each line begins with 'line <line index>' and contains a "
    "'<REGISTER_CONTENT>' at the end of the line as {kind}. For each line index, memorize its corresponding "
    "<REGISTER_CONTENT>. At the end of the record, I will ask you to retrieve the corresponding <REGISTER_CONTENT> of "
    "a certain line index. Now the record start:\n\n"
)
ASKED = "Now the record is over. Tell me what is the <REGISTER_CONTENT> in line {key}? I need the {value}."
Drawing = Iterator[tuple[str, str]]
"""Keys with values."""
_WORDS_SHA256 = "1508861c3c5d0a363c4c60a906892114b65939d51da20dc96bdb83bcc9482abc"


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
        """See `Task.sheet`. In tokens, a record has as many lines as fit, and dots behind the last one to fill it.

        Raises:
            DoesNotFit: There is no room for a line.
            RequestError: The package wonderwords is missing or has other words.
        """
        drawn = f"{self.name} {seed} {length} {number}"
        if length.unit == "lines":
            pairs = list(islice(self._drawn(drawn, length.amount), length.amount))
            record = self._record(pairs)
        else:
            pairs = self._fitting(drawn, length.amount, count)
            if not pairs:
                raise DoesNotFit(f"a record of {length} has no room for a line")
            record = filled(self._record(pairs), length.amount, count)
        # which are asked comes from another generator, as fitting draws ahead
        # and all are drawn, since fewer would not be the first of more
        asked = random.Random(f"{drawn} asked").sample(range(len(pairs)), len(pairs))[:questions]
        return Sheet(
            record,
            tuple(
                Question(ASKED.format(key=pairs[place][0], value=self.value), (pairs[place][1],), place / len(pairs))
                for place in asked
            ),
        )

    def score(self, question: Question, answer: str) -> float:
        """1 if the last value in the answer is the one of the line."""
        return float(re.findall(self.pattern, answer)[-1:] == [question.answers[0]])

    def look(self) -> None:
        """See `Task.look`."""
        words()

    def draw(self, chance: random.Random) -> str:
        """A value."""
        return str(chance.randint(1, 50_000))

    def _record(self, pairs: list[tuple[str, str]]) -> str:
        lines = (f"line {key}: REGISTER_CONTENT is <{value}>\n" for key, value in pairs)
        return OPENING.format(kind=self.kind) + "".join(lines)

    def _drawn(self, seed: str, lines: int) -> Drawing:
        """Keys, each once, with values, without an end; fit for so many lines.

        Each word stands first in one line before any does so again.
        """
        chance = random.Random(seed)
        adjectives, nouns = words()
        first = list(adjectives if lines <= len(adjectives) else nouns)
        used: set[str] = set()
        while True:
            chance.shuffle(first)
            for word in first:
                while (key := f"{word}-{chance.choice(nouns)}") in used:
                    pass
                used.add(key)
                yield key, self.draw(chance)

    def _fitting(self, seed: str, tokens: int, count: Count) -> list[tuple[str, str]]:
        """As many lines as so many tokens hold."""
        few, many = len(words()[0]), tokens
        for lines in (few, many):
            drawing, pairs = self._drawn(seed, lines), list[tuple[str, str]]()

            def record(number: int, drawing: Drawing = drawing, pairs: list[tuple[str, str]] = pairs) -> str:
                pairs += islice(drawing, max(number - len(pairs), 0))
                return self._record(pairs[:number])

            fitting = most_pieces(record, lines if lines > few else few + 1, tokens, count)
            if fitting <= lines:
                break
        return pairs[:fitting]


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
    """910 adjectives and 6,782 nouns, with hyphens for spaces, in the order of the alphabet.

    Raises:
        RequestError: The package is missing, or its words are others than those that results are made with.
    """
    try:
        from wonderwords import RandomWord
    except ImportError:
        raise RequestError("lines need the package wonderwords for their keys: pip install wonderwords") from None
    maker = RandomWord()
    found = tuple(
        tuple(sorted({word.replace(" ", "-") for word in maker.filter(include_categories=[kind])}))
        for kind in ("adjective", "noun")
    )
    if sha256(" ".join(found[0] + found[1]).encode()).hexdigest() != _WORDS_SHA256:
        raise RequestError("wonderwords has other words here than lines are made of; install wonderwords==3.0.1")
    return found[0], found[1]
