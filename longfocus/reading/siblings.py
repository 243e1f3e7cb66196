"""Processes that one launcher has started on this machine, and one report for all of them.

A launcher stops all of its processes as soon as one ends with an error. So those that read documents leave what failed
in a file and end well; the first waits for the others, reads what they left, and ends with an error if there is any.
Whether one is still at work is told by a lock, which the system takes from a process that dies.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

from filelock import FileLock

from longfocus.errors import RequestError
from longfocus.loading.cache import CACHE_VARIABLE, cache_dir
from longfocus.memory.layout import replace_file
from longfocus.reading.many import Outcome, Share, Summary

STARTING_SECONDS = 300.0
"""How long the first waits for another to begin; all are started together."""


class Siblings:
    """The processes that share a launcher with this one; use as a context manager, entered before the work begins.

    Args:
        share: Which process this is.
        processes: How many the launcher has started on this machine; 1 where it does not tell, so that each reports
            for itself.
        folder: Where they leave what failed; the same for all, and no other's.
    """

    def __init__(self, share: Share, processes: int, folder: Path) -> None:
        self._number = share.local
        self._others = range(1, processes) if share.local == 0 else ()
        self._folder = folder
        self._lock = FileLock(self._file(self._number, "lock"))
        self._alone = processes == 1

    @classmethod
    def here(cls, share: Share, environment: Mapping[str, str] = os.environ) -> Siblings:
        """As the launcher has set this process up.

        Raises:
            RequestError: What it says makes no sense.
        """
        told = environment.get("LOCAL_WORLD_SIZE", "1")
        if not told.isdecimal() or not int(told):
            raise RequestError(f"the launcher says LOCAL_WORLD_SIZE is {told!r}; it must be a number from 1 up")
        again = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
        name = f"{platform.node()}-{os.getppid()}-{again}"
        return cls(share, int(told), cache_dir() / "reading" / name)

    def together(self, mine: Summary) -> Summary:
        """What became of the documents of all, for the first; for the others nothing that they would have to report."""
        if self._alone:
            return mine
        if self._number:
            try:
                replace_file(self._file(self._number, "json"), json.dumps(asdict(mine), default=str).encode())
            except (
                OSError
            ):  # no room even for that: the first says that this one left nothing, and this one what failed
                return mine
            return replace(mine, failed=())
        for number in self._others:
            self._wait_for(number)
            mine = _joined(mine, self._left_by(number))
        return mine

    def _wait_for(self, number: int) -> None:
        lock, latest = self._file(number, "lock"), time.monotonic() + STARTING_SECONDS
        while not lock.exists() and time.monotonic() < latest:
            time.sleep(0.05)
        with FileLock(lock):
            pass

    def _left_by(self, number: int) -> Summary:
        try:
            left = json.loads(self._file(number, "json").read_text(encoding="utf-8"))
            paths = ("path", "folder")
            failed = [{**one, **{name: Path(one[name]) for name in paths}} for one in left.pop("failed")]
            found = Summary(**left, failed=tuple(Outcome(**one) for one in failed))
            if not all(type(count) is int for count in (found.read, found.there, found.tokens)):
                raise ValueError("counts that are no numbers")
            return found
        except FileNotFoundError:
            trouble = "ended before it was through; start again, and what is missing is read"
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # cut short, or no report at all
            trouble = "left a report that cannot be read; start again, and what is missing is read"
        return Summary(failed=(Outcome(Path(f"process {number}"), Path(), trouble=trouble),))

    def _file(self, number: int, suffix: str) -> Path:
        return self._folder / f"{number}.{suffix}"

    def __enter__(self) -> Siblings:
        if not self._alone:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
            except OSError as error:
                raise RequestError(
                    f"cannot write to {self._folder}, where processes leave word of each other: {error.strerror}; "
                    f"set {CACHE_VARIABLE} to a folder that can be written to"
                ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
        if not self._alone and self._number == 0 and kind is None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _joined(one: Summary, other: Summary) -> Summary:
    return Summary(one.read + other.read, one.there + other.there, one.tokens + other.tokens, one.failed + other.failed)
