"""What attempts come to: a figure for each task, subject and length, with how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from longfocus.evaluation.intervals import of_perplexity, of_scores
from longfocus.evaluation.records import NOT_POSSIBLE, Attempt, standing


@dataclass(frozen=True)
class Figure:
    """A task's result at one length.

    Attributes:
        task: The task's name.
        subject: The subject's name.
        length: Of documents.
        examples: How many.
        score: The mean score, or for tasks of prediction the perplexity; not a number where nothing was answered.
        low: Lower end of its interval of 95 %.
        high: Upper end.
        tokens: Mean tokens of a document.
        reading_seconds: Mean seconds for reading a document.
        seconds: Mean seconds for an answer.
        peak_bytes: Most memory that was in use, of the machine or, where the model is on a GPU, of that.
        more: Means of further scores by name.
        refused: Why documents of this length, or those that are missing, do not fit the subject, or begins with
            `records.NOT_POSSIBLE` where it cannot do what the task needs; empty where all is well.
        documents: On how many documents the questions are.
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
    refused: str = ""
    documents: int = 0

    @property
    def counted(self) -> str:
        """How many questions on how many documents, where that differs, and whether more were to be asked."""
        shared = f" on {self.documents}" if self.documents != self.examples else ""
        return f"{self.examples}{shared}{', others do not fit' if self.refused else ''}"

    @property
    def nothing(self) -> str:
        """What to say where nothing was answered."""
        return NOT_POSSIBLE if self.refused.startswith(NOT_POSSIBLE) else "does not fit"

    def to_json(self) -> dict[str, Any]:
        """For machines; what is not a number is null."""
        found = asdict(self) | {"more": {name: _rounded(value) for name, value in self.more.items()}}
        return {name: _rounded(value) if isinstance(value, float) else value for name, value in found.items()}


def figures(attempts: Sequence[Attempt]) -> list[Figure]:
    """The result of each task, subject and length, in the order in which they first come."""
    groups: dict[tuple[str, str, str], list[Attempt]] = {}
    for attempt in standing(attempts):
        groups.setdefault((attempt.task, attempt.identity, attempt.length), []).append(attempt)
    return list(map(_figure, groups.values()))


def _figure(group: list[Attempt]) -> Figure:
    first = group[0]
    refused = next((attempt.refused for attempt in group if attempt.refused), "")
    group = [attempt for attempt in group if not attempt.refused]
    if not group:
        nothing = math.nan, math.nan, math.nan
        return Figure(first.task, first.subject, first.length, 0, *nothing, 0.0, 0.0, 0.0, 0, {}, refused)
    first = group[0]
    if first.score is None:
        losses = [attempt.loss or 0.0 for attempt in group]
        score, low, high = of_perplexity(losses, [attempt.predicted for attempt in group])
    else:
        scores = [attempt.score or 0.0 for attempt in group]
        score, low, high = of_scores(scores, [(attempt.seed, attempt.sheet) for attempt in group])
    documents = {(attempt.seed, attempt.sheet): attempt for attempt in group}.values()
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
        {
            name: fmean(attempt.more[name] for attempt in group)
            for name in first.more
            if all(name in attempt.more for attempt in group)  # a mean over some is none of all
        },
        refused,
        len(documents),
    )


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
