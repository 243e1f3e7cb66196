"""Results laid out for reading: a task's figures as a grid of subjects and lengths, others' figures below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longfocus.errors import DocumentError, RequestError
from longfocus.evaluation.figures import Figure, figures
from longfocus.evaluation.identity import differences
from longfocus.evaluation.published import Published, published
from longfocus.evaluation.records import Attempt, attempts_of, standing
from longfocus.evaluation.task import Length


@dataclass(frozen=True)
class Grid:
    """One task's results.

    Attributes:
        task: The task's name.
        lengths: Columns, shortest first within each unit.
        rows: Subjects, with a figure for each length where there is one.
        others: Published rows: model and source, with a score for each length where there is one.
    """

    task: str
    lengths: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Figure | None, ...]], ...]
    others: tuple[tuple[str, str, tuple[float | None, ...]], ...] = ()

    def to_json(self) -> list[dict[str, Any]]:
        """For machines: our figures, with the row's name for `subject`, then others', with their source in `published`.

        Of others' nobody told more than the score.
        """
        ours = [
            figure.to_json() | {"subject": label, "published": None}
            for label, row in self.rows
            for figure in row
            if figure is not None
        ]
        untold = {"examples": None, "low": None, "high": None}
        theirs = [
            {"task": self.task, "subject": model, "length": length, "score": score, **untold, "published": source}
            for model, source, scores in self.others
            for length, score in zip(self.lengths, scores, strict=True)
            if score is not None
        ]
        return ours + theirs


def attempts_in(folders: Iterable[Path]) -> list[Attempt]:
    """The attempts that count of all that are kept in these folders; see `standing`.

    Raises:
        RequestError: A folder has none.
        DocumentError: A file there holds something else.
    """
    found: list[Attempt] = []
    for folder in folders:
        paths = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
        if not paths:
            raise RequestError(f"{folder} has no results of `longfocus eval`; name the folder that --out named")
        for path in paths:
            found += attempts_of(path)
    if not found:
        raise DocumentError(f"there is no attempt in {', '.join(map(str, folders))}")
    return standing(found)


def grids(attempts: Sequence[Attempt], others: bool = True) -> list[Grid]:
    """A grid for each task, in the order in which they first come.

    Args:
        attempts: Of any tasks and subjects.
        others: Whether to add what others have published.
    """
    tasks = dict.fromkeys(attempt.task for attempt in attempts)
    return [_grid(task, [a for a in attempts if a.task == task], others) for task in tasks]


def _grid(task: str, attempts: Sequence[Attempt], others: bool) -> Grid:
    names = dict.fromkeys((attempt.subject, attempt.identity) for attempt in attempts)
    theirs = [held for held in published() if held.task == task] if others else []
    lengths = tuple(sorted({a.length for a in attempts} | {held.length for held in theirs}, key=_order))
    rows = []
    for subject, identity in names:
        twins = [other for name, other in names if name == subject]  # the same name with other weights or settings
        label = subject
        if len(twins) > 1:
            label = f"{subject} ({differences(twins)[twins.index(identity)]})"
        found = {figure.length: figure for figure in figures([a for a in attempts if a.identity == identity])}
        rows.append((label, tuple(map(found.get, lengths))))
    return Grid(task, lengths, tuple(rows), _others(theirs, lengths))


def _others(
    theirs: Sequence[Published], lengths: Sequence[str]
) -> tuple[tuple[str, str, tuple[float | None, ...]], ...]:
    scores = {(held.model, held.source, held.length): held.score for held in theirs}
    names = dict.fromkeys((held.model, held.source) for held in theirs)
    return tuple(
        (model, source, tuple(scores.get((model, source, length)) for length in lengths)) for model, source in names
    )


def _order(length: str) -> tuple[str, int]:
    try:
        parsed = Length.parse(length)
    except RequestError:
        return length, 0
    return parsed.unit, parsed.amount
