"""The runner: a task, a subject, some lengths; every attempt is kept, and none is made twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from longfocus.evaluation.intervals import of_perplexity, of_scores
from longfocus.evaluation.records import Attempt, AttemptFile
from longfocus.evaluation.subjects import Opened, Subject
from longfocus.evaluation.task import Length, Question, Sheet, Task, sheets


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

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


def run(task: Task, subject: Subject, plan: Plan, kept: AttemptFile) -> Iterator[Attempt]:
    """Make the attempts that are missing, shortest documents first as given; yields each when it is on the disk.

    Raises:
        RequestError: The task cannot be made as the plan asks.
    """
    done = {attempt.place for attempt in kept.attempts}
    for length in plan.lengths:
        made = sheets(task, length, subject.count, examples=plan.examples, questions=plan.questions, seed=plan.seed)
        for number, sheet in enumerate(made):
            places = {
                place: (task.name, subject.identity, str(length), plan.seed, number, place)
                for place in range(len(sheet.questions))
            }
            missing = [place for place, key in places.items() if key not in done]
            if not missing:
                continue
            begun = time.perf_counter()
            with subject.read(sheet.document) as opened:
                reading = time.perf_counter() - begun
                tokens = subject.count(sheet.document)
                for place in missing:
                    attempt = _attempt(
                        task, subject, opened, sheet, sheet.questions[place], places[place], tokens, reading
                    )
                    kept.add(attempt)
                    yield attempt


def _attempt(
    task: Task,
    subject: Subject,
    opened: Opened,
    sheet: Sheet,
    question: Question,
    place: tuple[str, str, str, int, int, int],
    tokens: int,
    reading: float,
) -> Attempt:
    begun = time.perf_counter()
    answer, score, loss, predicted = "", None, None, 0
    if task.answer_tokens:
        answer = opened.answer(question.text, task.answer_tokens)
        score = task.score(question, answer)
    else:
        loss, predicted = opened.loss(question.text)
    name, identity, length, seed, number, asked = place
    return Attempt(
        task=name,
        subject=subject.name,
        identity=identity,
        length=length,
        seed=seed,
        sheet=number,
        question=asked,
        prompt=sha256(f"{sheet.document}\0{question.text}".encode()).hexdigest()[:16],
        tokens=tokens,
        depth=question.depth,
        answers=question.answers,
        answer=answer,
        score=score,
        loss=loss,
        predicted=predicted,
        reading_seconds=round(reading, 3),
        seconds=round(time.perf_counter() - begun, 3),
    )


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
    )
