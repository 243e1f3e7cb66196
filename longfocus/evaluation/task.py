"""What a task is: sheets (a document and what is asked about it) and a score for each answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from longfocus.errors import RequestError

Count = Callable[[str], int]
"""How many tokens a text has for the subject."""


@dataclass(frozen=True)
class Length:
    """How long a document is to be.

    Attributes:
        amount: How many.
        unit: Of what: "tokens", or what a task counts in, such as "lines".
    """

    amount: int
    unit: str = "tokens"

    @classmethod
    def parse(cls, text: str) -> Length:
        """`4k`, `1m`, `4096` or `200lines`; k is 1,024 tokens and m is 1,024 k, for other units 1,000 and 1,000,000.

        Raises:
            RequestError: It is none of these.
        """
        found = re.fullmatch(r"(\d+)(k|m)?([a-z]*)", text.strip().lower().replace(" ", ""))
        if found is None or not int(found[1]):
            raise RequestError(f"the length {text!r} cannot be read; write it as 4k, 4096 or 200lines")
        unit = found[3] or "tokens"
        thousand = 1024 if unit == "tokens" else 1000
        return cls(int(found[1]) * {None: 1, "k": thousand, "m": thousand**2}[found[2]], unit)

    def __str__(self) -> str:
        if self.unit != "tokens":
            return f"{self.amount}{self.unit}"
        return f"{self.amount // 1024}k" if self.amount % 1024 == 0 else str(self.amount)


@dataclass(frozen=True)
class Question:
    """Something asked about a document.

    Attributes:
        text: The question, as a user would type it; for a task of prediction, the text that is to be predicted.
        answers: What counts as an answer; one or more.
        depth: Where the answer stands in the document, from 0 at its beginning to 1 at its end; None if unknown.
    """

    text: str
    answers: tuple[str, ...]
    depth: float | None = None


@dataclass(frozen=True)
class Sheet:
    """A document and all that is asked about it; the document is read once.

    Attributes:
        document: Its text.
        questions: One or more.
        seed: What it was made from, together with its length.
    """

    document: str
    questions: tuple[Question, ...]
    seed: str = field(default="", compare=False)


class Task(Protocol):
    """One way to measure.

    Attributes:
        name: As it is called on the command line.
        units: In what its documents may be measured.
        answer_tokens: Most tokens of an answer; 0 for tasks of prediction, where the question's text is predicted.
        questions: How many questions a sheet has unless asked otherwise.
    """

    name: str
    units: tuple[str, ...]
    answer_tokens: int
    questions: int

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """The sheet of this number: the same for the same arguments, on every machine."""
        ...

    def score(self, question: Question, answer: str) -> float:
        """From 0 for a wrong answer to 1 for a right one."""
        ...


def sheets(
    task: Task, length: Length, count: Count, *, examples: int, questions: int | None = None, seed: int = 0
) -> Iterator[Sheet]:
    """As many sheets as `examples` questions need; the last may have fewer.

    Raises:
        RequestError: The task does not measure its documents in this unit.
    """
    if length.unit not in task.units:
        raise RequestError(f"{task.name} measures documents in {' or '.join(task.units)}, not in {length.unit}")
    each = min(questions or task.questions, examples)
    for number in range(-(-examples // each)):
        yield task.sheet(length, number, count, min(each, examples - number * each), seed)
