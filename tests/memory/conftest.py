import shutil
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
