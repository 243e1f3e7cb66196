"""Documents that are being read, or wait for it, or came to nothing: where each stands, and who follows it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from longfocus.loading.load import LoadedModel
from longfocus.reading.reader import ReadProgress, read_steps
from longfocus.serving.kept import Kept
from longfocus.serving.mailbox import Mailbox
from longfocus.serving.refusals import Refusal, refusal_of
from longfocus.serving.shelf import Shelf
from longfocus.serving.worker import Begun, Ended, Given, Job, Told, Worker

TRIES = 3
"""How often reading is begun anew by itself at a place from which it never came further."""

Status = Literal["waiting", "reading", "stopped", "failed"]


@dataclass(frozen=True)
class ReadingState:
    """Where the reading of a document stands.

    Attributes:
        status: Whether it waits, goes on, was stopped by a client, or failed.
        progress: How far it has come; None before its first window.
        error: Why it failed.
    """

    status: Status
    progress: ReadProgress | None = None
    error: str | None = None


class Readings:
    """What is read here.

    Args:
        loaded: The model that reads.
        worker: Runs the readings.
        shelf: Where Books go.
        kept: The documents.
        watchers: How many may follow one reading.
        on_tokens: Told of tokens read.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        worker: Worker,
        shelf: Shelf,
        kept: Kept,
        watchers: int,
        on_tokens: Callable[[int], None],
    ) -> None:
        self._loaded = loaded
        self._worker = worker
        self._shelf = shelf
        self._kept = kept
        self._watchers = watchers
        self._on_tokens = on_tokens
        self._lock = threading.Lock()
        self._states: dict[str, ReadingState] = {}
        self._jobs: dict[str, Job] = {}
        self._following: dict[str, set[Mailbox]] = {}

    def resume(self) -> None:
        """Go on with what an earlier server did not read to its end, unless a client had stopped it."""
        for name in self._kept.unread():
            note = self._kept.note(name)
            place = self._place(name)
            if note.stopped:
                self._states[name] = ReadingState("stopped")
            elif note.tries >= TRIES and note.place == place:
                line = f"reading ended {note.tries} times at token {place:,} without a word; begin it anew to try again"
                self._states[name] = ReadingState("failed", error=line)
            else:
                self.begin(name, note.client, anyway=True)

    def begin(self, name: str, client: str, anyway: bool = False) -> None:
        """Let a kept document wait to be read; with `anyway`, whether there is place or not.

        Raises:
            Refusal: It is being read already, or there is no place to wait.
        """
        job = Job(client, lambda: self._read(name), lambda told: self._told(name, told), is_reading=True)
        with self._lock:
            if name in self._jobs:
                raise Refusal(409, f"{name} is being read already", "book_not_ready")
            before = self._states.get(name)
            self._jobs[name], self._states[name] = job, ReadingState("waiting")
        try:
            self._worker.submit(job, anyway)
        except Refusal:
            with self._lock:
                del self._jobs[name]
                self._states.pop(name)
                if before is not None:
                    self._states[name] = before
            raise

    def cancel(self, name: str) -> bool:
        """Stop reading; what was read stays. Whether it was waiting or being read."""
        with self._lock:
            job = self._jobs.get(name)
        if job is None:
            return False
        self._kept.mark(name, stopped=True)
        self._worker.cancel(job)
        return True

    def state(self, name: str) -> ReadingState | None:
        """Where a reading stands; None for what is no concern of ours, a whole Book among it."""
        with self._lock:
            return self._states.get(name)

    def names(self) -> list[str]:
        """Of all readings that are not done."""
        with self._lock:
            return list(self._states)

    def forget(self, name: str) -> None:
        """Know no more of one that has ended."""
        with self._lock:
            self._states.pop(name, None)

    def follow(self, name: str, anyway: bool = False) -> Mailbox | None:
        """What is told of a reading from now on; None where it has ended.

        Args:
            name: Of what is read.
            anyway: Whether however many may follow it; for what follows it for a moment, to see it end.

        Raises:
            Refusal: Too many follow it.
        """
        with self._lock:
            if name not in self._jobs:
                return None
            following = self._following.setdefault(name, set())
            if len(following) >= self._watchers and not anyway:
                raise Refusal(429, f"{len(following)} clients follow this already", "too_many", retry_after=30)
            following.add(mailbox := Mailbox())
            return mailbox

    def leave(self, name: str, mailbox: Mailbox) -> None:
        """Follow no longer."""
        with self._lock:
            self._following.get(name, set()).discard(mailbox)

    def end_all(self) -> None:
        """Send all who follow away, since the server stops."""
        with self._lock:
            following = [mailbox for each in self._following.values() for mailbox in each]
        for mailbox in following:
            mailbox.put(Ended("cancelled"))

    def _read(self, name: str) -> Iterator[ReadProgress]:
        before: int | None = None
        note, place = self._kept.note(name), self._place(name)
        # told before anything is done: what ends the whole process leaves no other trace
        self._kept.mark(name, place=place, tries=note.tries + 1 if note.place == place else 1)
        for progress in read_steps(self._kept.document(name), self._loaded, self._shelf.place_of(name)):
            self._on_tokens(0 if before is None else progress.tokens - before)
            if before is None and progress.resumed != note.resumed:
                self._kept.mark(name, resumed=progress.resumed)
            before = progress.tokens
            yield progress
        self._kept.was_read(name)

    def _place(self, name: str) -> int:
        """Tokens of a document that are read."""
        return self._shelf.look_at(name).done if name in self._shelf.names() else 0

    def _told(self, name: str, told: Told) -> None:
        """Note what comes of a reading, in whichever thread it is told."""
        with self._lock:
            state = self._states.get(name, ReadingState("waiting"))
            if isinstance(told, Begun):
                self._states[name] = replace(state, status="reading")
            elif isinstance(told, Given):
                self._states[name] = ReadingState("reading", told.item)
            else:
                self._jobs.pop(name, None)
                if told.how == "done":
                    self._states.pop(name, None)
                elif told.error is None or getattr(told.error, "code", None) == "stopping":
                    self._states[name] = replace(state, status="stopped")
                    self._kept.mark(name, tries=0)
                else:
                    line = refusal_of(told.error, self._shelf.place_of(name), name).message
                    self._states[name] = ReadingState("failed", state.progress, line)
            following = list(self._following.get(name, ()))
            if isinstance(told, Ended):
                self._following.pop(name, None)
        for mailbox in following:
            mailbox.put(told)
