"""Every answer of an evaluation, one line of JSON each; what a run that was stopped has done is not done again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from longfocus.errors import DocumentError


@dataclass(frozen=True)
class Attempt:
    """One question put to one subject.

    Attributes:
        task: The task's name.
        subject: The subject's name.
        identity: The subject's identity.
        length: Of the document, as it was asked for.
        seed: Of the run.
        sheet: Number of the sheet.
        question: Number of the question on its sheet.
        prompt: Hash of document and question; see `prompt_hash`.
        tokens: Of the document.
        depth: Where the answer stands, from 0 to 1; None if unknown.
        answers: What counts as an answer.
        answer: What came; empty for tasks of prediction.
        score: From 0 to 1; None for tasks of prediction.
        loss: Summed negative log-likelihood in nats; None for other tasks.
        predicted: Tokens predicted; 0 for other tasks.
        more: Further scores by name.
        reading_seconds: For reading the document, which its questions share.
        seconds: For this answer.
        peak_bytes: Most memory that was in use while the document was read and asked about.
        refused: Why the subject could not take this length, or the task; empty where it answered.
        withdrawn: Whether this only says that what stands at its place holds no more, as what is asked there has
            changed.
        written: When it was written, in seconds since 1970; 0 if nobody told.
    """

    task: str
    subject: str
    identity: str
    length: str
    seed: int
    sheet: int
    question: int
    prompt: str
    tokens: int
    depth: float | None
    answers: tuple[str, ...]
    answer: str
    score: float | None
    loss: float | None
    predicted: int
    more: dict[str, float]
    reading_seconds: float
    seconds: float
    peak_bytes: int
    refused: str = ""
    withdrawn: bool = False
    written: float = 0.0

    @property
    def place(self) -> Place:
        """What there is one attempt of."""
        return self.task, self.identity, self.length, self.seed, self.sheet, self.question


NOT_POSSIBLE = "not possible"
"""How `refused` begins where a subject cannot do what a task needs."""
Place = tuple[str, str, str, int, int, int]
"""Task, identity, length, seed, sheet and question."""


def prompt_hash(document: str, question: str) -> str:
    """What tells whether the same was asked, on the same document."""
    return sha256(f"{document}\0{question}".encode()).hexdigest()[:16]


def standing(attempts: Iterable[Attempt]) -> list[Attempt]:
    """The one attempt that counts at each place, whatever the files that they are from.

    The latest counts, but none that was refused takes the place of one that was answered.

    Args:
        attempts: Of any files, in any order; places keep that in which they first come.
    """
    attempts = list(attempts)
    found: dict[Place, Attempt] = {}
    for attempt in sorted(attempts, key=lambda each: each.written):
        _put(attempt, found)
    return [found[place] for place in dict.fromkeys(each.place for each in attempts) if place in found]


class AttemptFile:
    """A file of attempts, added to at its end; where several processes share the work, each has its own.

    Attributes:
        places: What has been answered; what was refused is tried again, as it may fit another time.
        checked: Names of what was compared with what is asked now; see `staleness.withdraw_stale`.

    Args:
        path: The file; made when the first attempt is added, and left as it is until then. A last line that was cut
            off is dropped. Files of other processes have a number before the suffix.
        process: Which process this is.

    Raises:
        DocumentError: It holds something else.
    """

    def __init__(self, path: Path, process: int = 0) -> None:
        self.path = path.with_suffix(f".{process}{path.suffix}") if process else path
        self.checked: set[object] = set()
        self._begun = False
        written: list[Attempt] = []
        for held in (path, *sorted(path.parent.glob(f"{path.stem}.*{path.suffix}"))):
            if held.exists():
                written += attempts_of(held)
        self._written = {(each.place, each.prompt): each for each in written if not (each.refused or each.withdrawn)}
        self._standing = {attempt.place: attempt for attempt in standing(written)}
        self.places = {place for place, attempt in self._standing.items() if not attempt.refused}

    @property
    def attempts(self) -> list[Attempt]:
        """Those that count, one for each place; those of other processes as they were when this was opened."""
        return list(self._standing.values())

    def current(self, place: Place) -> Attempt | None:
        """The attempt that counts at this place; None if there is none."""
        return self._standing.get(place)

    def earlier(self, place: Place, prompt: str) -> Attempt | None:
        """What was once answered to this prompt at this place, whether it counts or not; None if nothing was."""
        return self._written.get((place, prompt))

    def add(self, attempt: Attempt) -> None:
        """Write one more; it is on the disk when this returns."""
        attempt = replace(attempt, written=round(time.time(), 3))
        if not self._begun:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _drop_what_was_cut_off(self.path)
            self._begun = True
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(attempt), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if not (attempt.refused or attempt.withdrawn):
            self._written[attempt.place, attempt.prompt] = attempt
        _put(attempt, self._standing)
        standing = self._standing.get(attempt.place)
        (self.places.discard if standing is None or standing.refused else self.places.add)(attempt.place)


def _put(attempt: Attempt, standing: dict[Place, Attempt]) -> None:
    """Let one more attempt count, the latest of all."""
    before = standing.get(attempt.place)
    if attempt.withdrawn:
        standing.pop(attempt.place, None)
    elif before is None or before.refused or not attempt.refused:
        standing[attempt.place] = attempt


def attempts_of(path: Path) -> list[Attempt]:
    """All that a file has, in its order; a last line that was cut off is left out, and the file as it is.

    Raises:
        DocumentError: It holds something else.
    """
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            fields = json.loads(line)
            found.append(Attempt(**{**fields, "answers": tuple(fields["answers"])}))
        except (ValueError, TypeError, KeyError):
            raise DocumentError(f"line {number} of {path} is no attempt of an evaluation") from None
    return found


def _drop_what_was_cut_off(path: Path) -> None:
    """Let a file end with its last whole line; it may have no other writer."""
    if path.exists():
        whole = path.read_bytes()
        if end := len(whole) - 1 - whole.rfind(b"\n"):
            os.truncate(path, len(whole) - end)
