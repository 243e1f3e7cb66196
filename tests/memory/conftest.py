import os
import shutil
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def on_one_thread(one_thread):
    """All tests of this folder."""


@pytest.fixture
def book(tiny_book_folder: Path, tmp_path: Path) -> Path:
    """A copy of the small Book, to be damaged."""
    return Path(shutil.copytree(tiny_book_folder, tmp_path / "story.book"))


@pytest.fixture
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def some():
    """Make numbers of a shape; equal seeds give equal ones."""

    def make(*shape, seed=0):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture(scope="session")
def some_entries(some):
    """Make keys and values, each [rows, groups, count, 8]."""

    def make(rows, groups, count):
        return some(rows, groups, count, 8, seed=1), some(rows, groups, count, 8, seed=2)

    return make


class Crash(BaseException):
    """What stops a process at a point where it writes."""


class CrashPoints:
    """Stops whatever writes below a folder at its n-th write: a file opened, moved, removed, or written half."""

    def __init__(self) -> None:
        self.left = 0
        self.folder: Path | None = None
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple) -> None:
        if self.folder is None or event not in ("open", "os.rename", "os.remove", "os.link"):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if str(arguments[0]).startswith(str(self.folder)):
            self.passed()

    def passed(self) -> None:
        """One more point."""
        self.left -= 1
        if self.left == 0:
            self.folder = None
            raise Crash

    def run(self, folder: Path, number: int, work) -> bool:
        """Run `work`, stopped at its n-th write below `folder`; False once it has fewer."""
        self.folder, self.left = folder, number
        try:
            work()
        except Crash:
            return True
        finally:
            self.folder = None
        return False


_POINTS: list[CrashPoints] = []


@pytest.fixture
def crash_points() -> CrashPoints:
    """One for all tests: what listens to a process cannot be taken off it."""
    if not _POINTS:
        _POINTS.append(CrashPoints())
    return _POINTS[0]
