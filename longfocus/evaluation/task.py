"""What a task is: sheets (a document and what is asked about it), and what counts as an answer."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from longfocus.errors import RequestError

WHOLE = "whole"
"""The unit of documents that are taken as they are."""
Count = Callable[[str], int]
"""How many tokens a text has for the subject."""


class DoesNotFit(RequestError):
    """A document or a question is too long for a subject, or cannot have the length that was asked for.

    Other lengths may do, and other subjects, so a run notes it and goes on.
    """


class NotPossible(RequestError):
    """What a task needs a subject cannot do at all, whatever the length; a run notes it and goes on with others."""


Form = Literal["chat", "text"]
"""How a document and what follows it are put to a model: as a question about the document, in the model's own form of a
conversation; or as one text that is gone on with."""


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
        """`4k`, `1m`, `4096`, `200lines` or `whole`; k is 1,024 tokens, for other units 1,000.

        Raises:
            RequestError: It is none of these.
        """
        if text.strip().lower() == WHOLE:
            return cls(1, WHOLE)
        found = re.fullmatch(r"(\d+)(k|m)?([a-z]*)", text.strip().lower().replace(" ", ""))
        if found is None or not int(found[1]):
            raise RequestError(f"the length {text!r} cannot be read; write it as 4k, 4096, 200lines or whole")
        unit = found[3] or "tokens"
        thousand = 1024 if unit == "tokens" else 1000
        return cls(int(found[1]) * {None: 1, "k": thousand, "m": thousand**2}[found[2]], unit)

    def __str__(self) -> str:
        if self.unit == WHOLE:
            return WHOLE
        if self.unit != "tokens":
            return f"{self.amount}{self.unit}"
        return f"{self.amount // 1024}k" if self.amount % 1024 == 0 else str(self.amount)


@dataclass(frozen=True)
class Question:
    """Something asked about a document.

    Attributes:
        text: The question, as a user would type it; for tasks on texts, what stands between the document and what is to
            be written, or the text that is to be predicted.
        answers: What counts as an answer; one or more, unless the text itself is what is wanted.
        depth: Where the answer stands in the document, from 0 at its beginning to 1 at its end; None if unknown.
    """

    text: str
    answers: tuple[str, ...]
    depth: float | None = None


@dataclass(frozen=True)
class Sheet:
    """A document and all that is asked about it; the document is read once.

    Attributes:
        document: Its text; empty for tasks without one.
        questions: One or more.
    """

    document: str
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Writing:
    """How a text is gone on with.

    Attributes:
        most: Tokens after which it ends.
        stop: Texts at the first of which it ends; none of them is part of what was written.
        temperature: 0 for the likeliest token each time; above, sampling.
        top_p: With sampling, only the likeliest tokens that together have this probability.
        seed: With sampling, what makes it repeatable.
    """

    most: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 0.95
    seed: int = 0

    def cut(self, text: str) -> str:
        """The text up to the first of the texts to stop at."""
        return text[: min((place for stop in self.stop if (place := text.find(stop)) >= 0), default=len(text))]


class Opened(Protocol):
    """A document that a subject has read."""

    def answer(self, question: str, most: int) -> str:
        """What the subject answers, in at most so many tokens."""
        ...

    def continued(self, text: str, writing: Writing) -> str:
        """How the subject goes on behind the document and this text.

        Raises:
            NotPossible: The subject answers questions alone.
        """
        ...

    def loss(self, text: str) -> tuple[float, int]:
        """The summed negative log-likelihood, in nats, of a text that follows the document, and its tokens.

        Raises:
            NotPossible: The subject tells no probabilities.
        """
        ...


@dataclass(frozen=True)
class Outcome:
    """What one question came to.

    Attributes:
        answer: What the subject wrote; empty for tasks of prediction.
        score: From 0 for a wrong answer to 1 for a right one; None for tasks of prediction.
        loss: Summed negative log-likelihood in nats; None for other tasks.
        predicted: Tokens predicted; 0 for other tasks.
        more: Further scores by name.
    """

    answer: str = ""
    score: float | None = None
    loss: float | None = None
    predicted: int = 0
    more: Mapping[str, float] = field(default_factory=dict)


DEPTHS = 10
"""Into so many parts a document is divided where it matters in which of them an answer stands."""


def depth_in_turn(number: int) -> float:
    """Where in a document to hide something, from 0 to 1: the middles of its parts, in an order that mixes them."""
    return (number * 3 % DEPTHS + 0.5) / DEPTHS


class Task(ABC):
    """One way to measure.

    Attributes:
        name: As it is called on the command line.
        units: In what its documents may be measured.
        form: How documents and questions are put to a model.
        usual_lengths: What is measured unless asked otherwise.
        questions: How many questions a sheet has unless asked otherwise.
        draws: Over how many sheets all that is asked is spread evenly; None for as many as have `questions` each.
        verdicts: What the further score is called that a judge gives; None without one.
    """

    name: str
    units: tuple[str, ...]
    usual_lengths: tuple[str, ...] = ("4k",)
    form: Form = "chat"
    questions: int = 1
    draws: int | None = None
    verdicts: str | None = None

    def look(self) -> None:
        """Look whether there is all that sheets are made of, so that what is missing is told before a model is loaded.

        Raises:
            RequestError: A package is missing.
            DocumentError: Data are missing or damaged.
        """
        return

    def verdict(self, answers: tuple[str, ...], answer: str) -> float:
        """What the judge of a task with `verdicts` says of an answer, from 0 to 1."""
        raise NotImplementedError(f"{self.name} has no judge")

    def everything(self) -> int | None:
        """How many questions there are in all; None where they are made up without end."""
        return None

    def size(self, number: int, questions: int, seed: int) -> int:
        """How many questions the sheet of this number has at most, of so many wanted; 0 where there are no more."""
        return 1 if self.questions == 1 else questions

    @abstractmethod
    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """The sheet of this number: the same for the same arguments, on every machine.

        Args:
            length: Of the document.
            number: From 0.
            count: Counts tokens.
            questions: How many are to be asked; a sheet may have fewer. With another number, those that both have
                are the same.
            seed: Of the run.

        Raises:
            RequestError: There can be no such sheet.
        """

    @abstractmethod
    def attempt(self, opened: Opened, question: Question) -> Outcome:
        """Put the question to a subject that has read the sheet's document."""


class AnswerTask(Task):
    """A task whose questions are answered.

    Attributes:
        answer_tokens: Most tokens of an answer.
    """

    answer_tokens: int

    def attempt(self, opened: Opened, question: Question) -> Outcome:
        """See `Task.attempt`."""
        answer = opened.answer(question.text, self.answer_tokens)
        return Outcome(answer, self.score(question, answer))

    @abstractmethod
    def score(self, question: Question, answer: str) -> float:
        """From 0 for a wrong answer to 1 for a right one."""


def numbers(
    task: Task, length: Length, examples: int, questions: int | None = None, seed: int = 0, draws: int | None = None
) -> list[tuple[int, int]]:
    """The numbers of as many sheets as `examples` questions need, with how many to ask on each; on the last fewer.

    Args:
        task: Whose sheets.
        length: Of documents.
        examples: Questions in all.
        questions: Most questions on one sheet; None for what the task has.
        seed: Of the run.
        draws: Over how many sheets to spread them evenly instead; None for what the task has.

    Raises:
        RequestError: The task does not measure its documents in this unit.
    """
    if length.unit not in task.units:
        raise RequestError(f"{task.name} measures documents in {' or '.join(task.units)}, not in {length.unit}")
    draws = draws or (None if questions else task.draws)
    if draws:
        shares = [(number, len(range(number, examples, draws))) for number in range(min(draws, examples))]
        return [(number, min(share, task.size(number, share, seed))) for number, share in shares]
    each = questions or task.questions
    found: list[tuple[int, int]] = []
    while examples > 0 and (size := min(task.size(len(found), each, seed), examples)):
        found.append((len(found), size))
        examples -= size
    return found


def sheets(
    task: Task, length: Length, count: Count, *, examples: int, questions: int | None = None, seed: int = 0
) -> Iterator[Sheet]:
    """The sheets of these numbers.

    Raises:
        RequestError: The task cannot make them.
    """
    for number, asked in numbers(task, length, examples, questions, seed):
        sheet = task.sheet(length, number, count, questions or task.questions, seed)
        yield replace(sheet, questions=sheet.questions[:asked])
