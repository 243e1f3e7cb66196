"""The runner: a task, a subject, some lengths; every attempt is kept, and none is made twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from statistics import fmean
from typing import Any

from longfocus.evaluation.intervals import of_perplexity, of_scores
from longfocus.evaluation.records import Attempt, AttemptFile
from longfocus.evaluation.subject import Subject, peak_bytes
from longfocus.evaluation.task import Length, Task, numbers


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        lengths: Of documents.
        examples: Questions at each length.
        questions: Most questions on one document; None for what the task has.
        seed: What examples are drawn from.
    """

    lengths: tuple[Length, ...]
    examples: int
    questions: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Figure:
    """A task's result at one length.

    Attributes:
        task: The task's name.
        subject: The subject's name.
        length: Of documents.
        examples: How many.
        score: The mean score, or for tasks of prediction the perplexity.
        low: Lower end of its interval of 95 %.
        high: Upper end.
        tokens: Mean tokens of a document.
        reading_seconds: Mean seconds for reading a document.
        seconds: Mean seconds for an answer.
        peak_bytes: Most memory that was in use, of the machine or, where the model is on a GPU, of that.
        more: Means of further scores by name.
    """

    task: str
    subject: str
    length: str
    examples: int
    score: float
    low: float
    high: float
    tokens: float
    reading_seconds: float
    seconds: float
    peak_bytes: int
    more: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        found = asdict(self)
        found |= {name: round(value, 6) for name, value in found.items() if isinstance(value, float)}
        return found | {"more": {name: round(value, 6) for name, value in self.more.items()}}


def run(
    task: Task, subject: Subject, plan: Plan, kept: AttemptFile, share: tuple[int, int] = (0, 1)
) -> Iterator[Attempt]:
    """Make the attempts that are missing, shortest documents first as given; yields each when it is on the disk.

    Args:
        task: What to ask.
        subject: What to ask it of.
        plan: How much of it.
        kept: What was done before, and where to add to it.
        share: Which of how many processes this is: sheets are dealt out in turn.

    Raises:
        RequestError: The task cannot be made as the plan asks.
    """
    for length, number, due in _due(task, subject, plan, kept, share):
        sheet = task.sheet(length, number, subject.count, plan.questions or task.questions, plan.seed)
        wanted = [place for place in due if place < len(sheet.questions)]  # it may have fewer than it might
        if not wanted:
            continue
        begun = time.perf_counter()
        with subject.read(sheet.document, task.form) as opened:
            reading = time.perf_counter() - begun
            tokens = subject.count(sheet.document) if sheet.document else 0
            for place in wanted:
                question = sheet.questions[place]
                put = time.perf_counter()
                outcome = task.attempt(opened, question)
                attempt = Attempt(
                    task=task.name,
                    subject=subject.name,
                    identity=subject.identity,
                    length=str(length),
                    seed=plan.seed,
                    sheet=number,
                    question=place,
                    prompt=sha256(f"{sheet.document}\0{question.text}".encode()).hexdigest()[:16],
                    tokens=tokens,
                    depth=question.depth,
                    answers=question.answers,
                    answer=outcome.answer,
                    score=outcome.score,
                    loss=outcome.loss,
                    predicted=outcome.predicted,
                    more=dict(outcome.more),
                    reading_seconds=round(reading, 3),
                    seconds=round(time.perf_counter() - put, 3),
                    peak_bytes=peak_bytes(),
                )
                kept.add(attempt)
                yield attempt


def missing(task: Task, subject: Subject, plan: Plan, kept: AttemptFile, share: tuple[int, int] = (0, 1)) -> int:
    """How many attempts `run` would make at most."""
    return sum(len(due) for _, _, due in _due(task, subject, plan, kept, share))


def _due(
    task: Task, subject: Subject, plan: Plan, kept: AttemptFile, share: tuple[int, int]
) -> Iterator[tuple[Length, int, list[int]]]:
    """Lengths and numbers of this process's sheets, each with the questions on it that were not put."""
    for length in plan.lengths:
        before = task.name, subject.identity, str(length), plan.seed
        for number, asked in numbers(task, length, plan.examples, plan.questions, plan.seed):
            due = [place for place in range(asked) if (*before, number, place) not in kept.places]
            if due and number % share[1] == share[0]:
                yield length, number, due


def figures(attempts: Sequence[Attempt]) -> list[Figure]:
    """The result of each task, subject and length, in the order in which they first come."""
    groups: dict[tuple[str, str, str], list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault((attempt.task, attempt.identity, attempt.length), []).append(attempt)
    return [_figure(group) for group in groups.values()]


def _figure(group: list[Attempt]) -> Figure:
    first = group[0]
    if first.score is None:
        losses = [attempt.loss or 0.0 for attempt in group]
        score, low, high = of_perplexity(losses, [attempt.predicted for attempt in group])
    else:
        score, low, high = of_scores([attempt.score or 0.0 for attempt in group])
    documents = {attempt.sheet: attempt for attempt in group}.values()
    return Figure(
        first.task,
        first.subject,
        first.length,
        len(group),
        score,
        low,
        high,
        sum(attempt.tokens for attempt in documents) / len(documents),
        sum(attempt.reading_seconds for attempt in documents) / len(documents),
        sum(attempt.seconds for attempt in group) / len(group),
        max(attempt.peak_bytes for attempt in group),
        {name: fmean(attempt.more[name] for attempt in group if name in attempt.more) for name in first.more},
    )
