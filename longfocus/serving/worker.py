"""The one thread in which the model computes: it goes through jobs as the schedule says, and tells what comes of them.

A job is an iterator, made and stepped through in this thread only. Whoever waits for it is told that it begins, each
thing that it yields, and last, exactly once, how it ended.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from longfocus.errors import UserError
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
    """

    client: str
    work: Callable[[], Iterator[Any]]
    tell: Callable[[Told], None]
    is_reading: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)
    steps: Iterator[Any] | None = None


class Worker:
    """Runs jobs, one step at a time.

    Args:
        schedule: Whose turn it is.

    Attributes:
        seconds_each: How long a question took lately.
    """

    def __init__(self, schedule: Schedule[Job]) -> None:
        self._schedule = schedule
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="longfocus-worker", daemon=True)
        self._running: Job | None = None
        self._stopping = False
        self.seconds_each = 5.0

    @property
    def is_alive(self) -> bool:
        """Whether it takes jobs."""
        return self._thread.is_alive() and not self._stopping

    @property
    def waiting(self) -> tuple[int, int]:
        """Questions and readings that have had no turn yet."""
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
        """Call a job off: at once if it had no turn yet, else before its next step."""
        job.cancelled.set()
        with self._changed:
            waited = self._schedule.remove(job)
            self._changed.notify()
        if waited:
            job.tell(Ended("cancelled"))

    def drain(self) -> None:
        """Take no more jobs and call off those that have had no turn; what runs goes on."""
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
        """Call off the question that is being answered."""
        with self._changed:
            if self._running is not None and not self._running.is_reading:
                self._running.cancelled.set()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            begun = time.perf_counter()
            more = self._step(job)
            while more and not job.is_reading:
                more = self._step(job)
            if not job.is_reading:
                self.seconds_each += 0.2 * (time.perf_counter() - begun - self.seconds_each)
            with self._changed:
                self._running = None
                if not more:
                    self._schedule.done(job)
        if (reading := self._schedule.reading) is not None:  # it goes on from here at the next start
            _close(reading)
            reading.tell(Ended("cancelled") if reading.cancelled.is_set() else Ended("failed", stopping()))

    def _next(self) -> Job | None:
        with self._changed:
            while not self._stopping:
                job = self._schedule.take()
                if job is not None:
                    self._running = job
                    return job
                self._changed.wait()
            return None

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
            if not isinstance(error, UserError | Refusal):
                log.exception("a job failed")
            job.tell(Ended("failed", error))
        else:
            job.tell(Given(item))
            return True
        return False


def stopping() -> Refusal:
    """The server is about to stop."""
    return Refusal(503, "the server is stopping; ask again in a while", "stopping", retry_after=10)


def _close(job: Job) -> None:
    try:
        if job.steps is not None:
            job.steps.close()  # type: ignore[attr-defined]
    except Exception:
        log.exception("a job that was called off did not end well")
