"""One run at a time in a folder of results: two would make the same attempts twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from longfocus.errors import RequestError

_LOCK = ".lock"


@contextmanager
def alone_in(folder: Path, first: bool = True) -> Iterator[None]:
    """Keep other runs out of a folder, which is made if need be; the system lets go when the process ends.

    Args:
        folder: Where results are kept.
        first: Whether this is the first process of a run; the others come in with it.

    Raises:
        RequestError: Another run is in it.
    """
    if not first:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RequestError(
            f"another `longfocus eval` is writing into {folder}; wait for its end, or name another folder by --out"
        ) from None
    with lock:
        yield
