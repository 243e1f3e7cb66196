"""The one thread in which the model computes: it goes through jobs as the schedule says, and tells what comes of them.

A job is an iterator, made and stepped through in this thread only, or a question, of which several may share a turn.
Whoever waits for it is told that it begins, each thing that comes of it, and last, exactly once, how it ended.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from longfocus.errors import UserError
from longfocus.serving.asked import Asked
from longfocus.serving.refusals import Refusal
from longfocus.serving.schedule import Crowded, Schedule

log = logging.getLogger("longfocus.serving")


@dataclass(frozen=True)
class Begun:
    """The job has its first turn."""


@dataclass(frozen=True)
class Given:
    """The job yielded something."""

    item: Any


@dataclass(frozen=True)
class Ended:
    """The job has come to its end: all was done, it was called off, or it failed with `error`."""

    how: Literal["done", "cancelled", "failed"]
    error: Exception | None = None


Told = Begun | Given | Ended


@dataclass(eq=False)
class Job:
    """Work for the model.

    Attributes:
        client: Who asks.
        work: Makes the iterator.
        tell: Is told what comes of it; called in the worker's thread, or in the one that calls the job off.
        is_reading: Whether it takes one turn for each thing that it yields, rather than one for all.
        asked: A question to be answered, perhaps with others in one turn, instead of an iterator.
    """

    client: str
    work: Callable[[], Iterator[Any]]
    tell: Callable[[Told], None]
    is_reading: bool = False
    asked: Asked | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    steps: Iterator[Any] | None = None
    has_begun: bool = False

    @classmethod
    def of_question(cls, client: str, asked: Asked, tell: Callable[[Told], None]) -> Job:
        """A job that is a question."""
        return cls(client, lambda: iter(()), tell, asked=asked, cancelled=asked.cancelled)

    @property
    def group(self) -> Hashable | None:
        """See `Waiting`."""
        return None if self.asked is None else self.asked.group

    @property
    def places(self) -> int:
        """See `Waiting`."""
        return 1 if self.asked is None else self.asked.answers


Turn = Callable[[Sequence[Asked]], Iterator[tuple[Asked, Any]]]
"""Goes on with questions of one group: yields what comes of each; last its `Ended`, or None for another turn."""


class Worker:
    """Runs jobs, one step at a time.

    Args:
        schedule: Whose turn it is.
        turn: How questions are answered.
        at_once: Most answers that are written in one turn, if several questions share it.

    Attributes:
        seconds_each: How long a question took lately.
    """

    def __init__(self, schedule: Schedule[Job], turn: Turn | None = None, at_once: int = 1) -> None:
        self._schedule = schedule
        self._turn = turn
        self._at_once = at_once
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="longfocus-worker", daemon=True)
        self._running: list[Job] = []
        self._stopping = False
        self.seconds_each = 5.0

    @property
    def is_alive(self) -> bool:
        """Whether it takes jobs."""
        return self._thread.is_alive() and not self._stopping

    @property
    def waiting(self) -> tuple[int, int]:
        """Questions and readings that wait for a turn."""
        with self._changed:
            return len(self._schedule.questions), len(self._schedule.readings)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, job: Job, anyway: bool = False) -> None:
        """Let a job wait for its turn; with `anyway`, one that was let in before, whether there is place or not.

        Raises:
            Refusal: No place to wait (429), or the server is about to stop (503).
        """
        with self._changed:
            if self._stopping:
                raise stopping()
            try:
                self._schedule.add(job, anyway)
            except Crowded as crowded:
                waiting = len(self._schedule.readings if job.is_reading else self._schedule.questions)
                again = min(max(math.ceil(waiting * self.seconds_each / 2), 1), 600)  # half of them will be done
                raise Refusal(429, str(crowded), "queue_full", retry_after=again) from None
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Call a job off: at once if it waits for a turn, a first one or another, else after its step."""
        job.cancelled.set()
        with self._changed:
            waited = self._schedule.remove(job)
            pauses = self._schedule.reading is job and job not in self._running
            if pauses:
                self._schedule.done(job)
            self._changed.notify()
        if pauses:  # no other thread knows of it any more
            _close(job)
        if waited or pauses:
            job.tell(Ended("cancelled"))

    def drain(self) -> None:
        """Take no more jobs and call off those that wait for a turn; what runs goes on."""
        with self._changed:
            self._stopping = True
            dropped = self._schedule.empty()
            self._changed.notify()
        for job in dropped:
            job.tell(Ended("failed", stopping()))

    def stop(self, seconds: float) -> None:
        """Drain, give what runs so many seconds to end, then call it off; returns when the thread has ended."""
        self.drain()
        self._thread.join(seconds)
        self.break_off()
        self._thread.join()

    def break_off(self) -> None:
        """Call off the questions that are being answered."""
        with self._changed:
            for job in self._running:
                if not job.is_reading:
                    job.cancelled.set()

    def _run(self) -> None:
        while jobs := self._next():
            begun, ended, more = time.perf_counter(), 1, False
            if jobs[0].asked is not None:
                ended = self._answer(jobs)
            else:
                more = self._step(jobs[0])
                while more and not jobs[0].is_reading:
                    more = self._step(jobs[0])
            if not jobs[0].is_reading and ended:
                self.seconds_each += 0.2 * ((time.perf_counter() - begun) / ended - self.seconds_each)
            with self._changed:
                self._running = []
                called_off = more and jobs[0].cancelled.is_set()
                if called_off or not more:
                    self._schedule.done(jobs[0])
            if called_off:  # not at its next turn, before which others have theirs
                _close(jobs[0])
                jobs[0].tell(Ended("cancelled"))
        with self._changed:
            reading = self._schedule.reading
            if reading is not None:
                self._schedule.done(reading)
        if reading is not None:  # it goes on from here at the next start
            _close(reading)
            reading.tell(Ended("cancelled") if reading.cancelled.is_set() else Ended("failed", stopping()))

    def _next(self) -> list[Job]:
        with self._changed:
            while not self._stopping:
                job = self._schedule.take()
                if job is not None:
                    beside = [] if job.is_reading else self._schedule.questions.take_beside(job, self._at_once)
                    self._running = [job, *beside]
                    return self._running
                self._changed.wait()
            return []

    def _answer(self, jobs: Sequence[Job]) -> int:
        """Give questions a turn; how many have ended with it."""
        assert self._turn is not None
        going = {job.asked: job for job in jobs if job.asked is not None}
        for job in jobs:
            if not job.has_begun:
                job.has_begun = True
                job.tell(Begun())
        try:
            for asked, came in self._turn(list(going)):
                if came is None:
                    self._put_back(going.pop(asked))
                elif isinstance(came, Ended):
                    _end(going.pop(asked), came)
                else:
                    going[asked].tell(Given(came))
            assert not going, "a question came to no end"
        except Exception as error:
            for job in going.values():
                _end(job, Ended("failed", error))
        return sum(job.asked is None or job.asked.is_over for job in jobs)

    def _put_back(self, job: Job) -> None:
        """Let a question wait for another turn."""
        with self._changed:
            waits = not self._stopping and not job.cancelled.is_set()
            if waits:
                self._schedule.questions.put_back(job)
        if not waits:
            _end(job, Ended("cancelled") if job.cancelled.is_set() else Ended("failed", stopping()))

    def _step(self, job: Job) -> bool:
        """Let a job yield once; whether it goes on."""
        try:
            if job.cancelled.is_set():
                _close(job)
                job.tell(Ended("cancelled"))
                return False
            if job.steps is None:
                job.tell(Begun())
                job.steps = job.work()
            item = next(job.steps)
        except StopIteration:
            job.tell(Ended("done"))
        except Exception as error:
            _end(job, Ended("failed", error))
        else:
            job.tell(Given(item))
            return True
        return False


def stopping() -> Refusal:
    """The server is about to stop."""
    return Refusal(503, "the server is stopping; ask again in a while", "stopping", retry_after=10)


def _end(job: Job, ended: Ended) -> None:
    """Tell that a job has ended, and log what is a defect of ours."""
    if ended.error is not None and not isinstance(ended.error, UserError | Refusal):
        log.error("a job failed", exc_info=ended.error)
    if job.asked is not None:
        job.asked.end()
    job.tell(ended)


def _close(job: Job) -> None:
    try:
        if job.steps is not None:
            job.steps.close()  # type: ignore[attr-defined]
    except Exception:
        log.exception("a job that was called off did not end well")
