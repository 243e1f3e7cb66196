"""The runner: a task, a subject, some lengths; every attempt is kept, and none is made twice."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from longfocus.errors import is_out_of_memory
from longfocus.evaluation.records import NOT_POSSIBLE, Attempt, AttemptFile, prompt_hash
from longfocus.evaluation.staleness import withdraw_stale
from longfocus.evaluation.subject import Subject, forget_peak, peak_bytes
from longfocus.evaluation.task import WHOLE, DoesNotFit, Length, NotPossible, Sheet, Task, numbers


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        lengths: Of documents.
        examples: Questions at each length.
        questions: Most questions on one document; None for what the task has.
        draws: Over how many documents to spread them evenly instead; None for what the task has.
        seed: What examples are drawn from.
    """

    lengths: tuple[Length, ...]
    examples: int
    questions: int | None = None
    seed: int = 0
    draws: int | None = None

    def asked(self, task: Task, length: Length) -> list[tuple[int, int]]:
        """The numbers of a task's sheets, with how many questions to ask on each; see `numbers`."""
        return numbers(task, length, self.examples, self.questions, self.seed, self.draws)


def run(
    task: Task, subject: Subject, plan: Plan, kept: AttemptFile, share: tuple[int, int] = (0, 1)
) -> Iterator[Attempt]:
    """Make the attempts that are missing, shortest documents first as given; yields each when it is on the disk.

    Answers to what the task no longer asks are made anew; see `staleness`.

    Where the subject cannot take a document, for its length or for want of memory, that is kept as an attempt that was
    refused, and no other document of that length is tried; other lengths go on. Where it cannot do what the task needs,
    every length is kept as refused. With a judge, answers that it has not seen are kept once more, with its verdict.

    Args:
        task: What to ask.
        subject: What to ask it of.
        plan: How much of it.
        kept: What was done before, and where to add to it.
        share: Which of how many processes this is: sheets are dealt out in turn.

    Raises:
        RequestError: The task cannot be made as the plan asks.
    """
    stale(task, subject, plan, kept, share)
    try:
        yield from _answered(task, subject, plan, kept, share)
    except NotPossible as error:
        for length in dict.fromkeys(plan.lengths):
            number, due = next(
                ((n, due) for at, n, due in _due(task, subject, plan, kept, share) if at == length), (0, [])
            )
            if due:
                made = _Made(task, subject, plan, length, number)
                attempt = made.attempt(Sheet("", ()), due[0], refused=f"{NOT_POSSIBLE}: {error}")
                kept.add(attempt)
                yield attempt
    for attempt in _unjudged(task, subject, plan, kept, share):
        assert task.verdicts is not None
        verdict = {task.verdicts: task.verdict(attempt.answers, attempt.answer)}
        judged = replace(attempt, more={**attempt.more, **verdict})
        kept.add(judged)
        yield judged


def _answered(task: Task, subject: Subject, plan: Plan, kept: AttemptFile, share: tuple[int, int]) -> Iterator[Attempt]:
    refused: set[Length] = set()
    for length, number, due in _due(task, subject, plan, kept, share):
        if length in refused:
            continue
        made = _Made(task, subject, plan, length, number)
        sheet = Sheet("", ())
        place = due[0]
        begun = time.perf_counter()
        try:
            most = max(due[-1] + 1, plan.questions or task.questions)
            sheet = task.sheet(length, number, subject.count, most, plan.seed)
            wanted = [place for place in due if place < len(sheet.questions)]  # it may have fewer than it might
            if not wanted:
                continue
            tokens = subject.count(sheet.document) if sheet.document else 0
            forget_peak()
            begun = time.perf_counter()
            with subject.read(sheet.document, task.form) as opened:
                reading = time.perf_counter() - begun
                for place in wanted:
                    question = sheet.questions[place]
                    put = time.perf_counter()
                    outcome = task.attempt(opened, question)
                    attempt = made.attempt(
                        sheet,
                        place,
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
                    )
                    kept.add(attempt)
                    yield attempt
        except (DoesNotFit, MemoryError, RuntimeError) as error:
            reason = refusal(error)
            if reason is None:
                raise
            attempt = made.attempt(sheet, place, refused=reason, seconds=round(time.perf_counter() - begun, 3))
            kept.add(attempt)
            yield attempt
            if length.unit != WHOLE:  # of documents as they are the next may be shorter
                refused.add(length)
            let_go(error)


@dataclass(frozen=True)
class _Made:
    """What attempts on one sheet have in common."""

    task: Task
    subject: Subject
    plan: Plan
    length: Length
    number: int

    def attempt(
        self,
        sheet: Sheet,
        place: int,
        *,
        tokens: int = 0,
        depth: float | None = None,
        answers: tuple[str, ...] = (),
        answer: str = "",
        score: float | None = None,
        loss: float | None = None,
        predicted: int = 0,
        more: dict[str, float] | None = None,
        reading_seconds: float = 0.0,
        seconds: float = 0.0,
        refused: str = "",
    ) -> Attempt:
        asked = sheet.questions[place].text if place < len(sheet.questions) else ""
        return Attempt(
            task=self.task.name,
            subject=self.subject.name,
            identity=self.subject.identity,
            length=str(self.length),
            seed=self.plan.seed,
            sheet=self.number,
            question=place,
            prompt=prompt_hash(sheet.document, asked) if sheet.questions else "",
            tokens=tokens,
            depth=depth,
            answers=answers,
            answer=answer,
            score=score,
            loss=loss,
            predicted=predicted,
            more=more or {},
            reading_seconds=reading_seconds,
            seconds=seconds,
            peak_bytes=peak_bytes(),
            refused=refused,
        )


def refusal(error: BaseException) -> str | None:
    """Why something does not fit, in one line; None if the error is of another kind."""
    if isinstance(error, DoesNotFit):
        return str(error)
    said = " ".join(str(error).split())[:200]
    if isinstance(error, torch.OutOfMemoryError) or is_out_of_memory(error):
        return f"out of memory ({said or type(error).__name__})"
    return None


def let_go(error: BaseException) -> None:
    """Free what a document took that did not fit, as far as the error's frames hold it."""
    error.__traceback__ = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def stale(task: Task, subject: Subject, plan: Plan, kept: AttemptFile, share: tuple[int, int] = (0, 1)) -> int:
    """Withdraw kept answers to what the task no longer asks, for `run` to make them anew; tells how many, once.

    Raises:
        RequestError: The task cannot be made as the plan asks.
    """
    return sum(
        withdraw_stale(task, subject, length, plan.seed, plan.questions, kept, share)
        for length in dict.fromkeys(plan.lengths)
    )


def missing(task: Task, subject: Subject, plan: Plan, kept: AttemptFile, share: tuple[int, int] = (0, 1)) -> int:
    """How many attempts and verdicts `run` would make at most."""
    answers = sum(len(due) for _, _, due in _due(task, subject, plan, kept, share))
    return answers * (1 if task.verdicts is None else 2) + len(_unjudged(task, subject, plan, kept, share))


def _unjudged(task: Task, subject: Subject, plan: Plan, kept: AttemptFile, share: tuple[int, int]) -> list[Attempt]:
    """This process's answers that the task's judge has not seen, beyond what the plan asks for as well."""
    if task.verdicts is None:
        return []
    groups = {(task.name, subject.identity, str(length), plan.seed) for length in plan.lengths}
    return [
        attempt
        for attempt in kept.attempts
        if attempt.place[:4] in groups
        and attempt.sheet % share[1] == share[0]
        and not (attempt.refused or task.verdicts in attempt.more)
    ]


def _due(
    task: Task, subject: Subject, plan: Plan, kept: AttemptFile, share: tuple[int, int]
) -> Iterator[tuple[Length, int, list[int]]]:
    """Lengths and numbers of this process's sheets, each with the questions on it that were not put."""
    for length in plan.lengths:
        before = task.name, subject.identity, str(length), plan.seed
        for number, asked in plan.asked(task, length):
            due = [place for place in range(asked) if (*before, number, place) not in kept.places]
            if due and number % share[1] == share[0]:
                yield length, number, due
