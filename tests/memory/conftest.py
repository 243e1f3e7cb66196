import shutil
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Models this small run faster on one thread, and much faster beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def book(tiny_book_folder: Path, tmp_path: Path) -> Path:
    """A copy of the small Book, to be damaged."""
    return Path(shutil.copytree(tiny_book_folder, tmp_path / "story.book"))
