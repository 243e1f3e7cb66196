"""Approximate indexes in a Book's folder: built, checked, opened, removed.

    index-KIND.json              what the index is of, and its files; written last
    index-KIND.unfinished.json   the same of an index that is being built, with the files that are done
    index-KIND-LLL-H.faiss       Faiss's index over the keys of head H of memory layer LLL

An index is no part of a Book: without it, or with one that is stale or damaged, a Book is what it was. Nothing is
handed to Faiss that the record does not name with its hash, and no record is believed that this user did not seal
(`seal`).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from longfocus.errors import BookError
from longfocus.memory.approximate import LayerIndex
from longfocus.memory.book import StoredBook
from longfocus.memory.faiss_kinds import INDEX_KINDS, build_head, faiss_library
from longfocus.memory.held import held_by
from longfocus.memory.layout import LOCK, layer_files, read_json, replace_file, write_anew
from longfocus.memory.seal import is_sealed, seal_of

_FORMAT = 1
NOT_THERE = "is not there"
"""What `index_trouble` says where there was never an index."""


@dataclass(frozen=True)
class IndexProgress:
    """How far building has come: heads that are done, of how many."""

    done: int
    total: int


def record_file(kind: str) -> str:
    """Name of the record of an index."""
    return f"index-{kind}.json"


def unfinished_file(kind: str) -> str:
    """Name of the record of an index that is being built: the files that are done."""
    return f"index-{kind}.unfinished.json"


def head_file(kind: str, layer: int, head: int) -> str:
    """Name of the file with the index of a head."""
    return f"index-{kind}-{layer:03d}-{head}.faiss"


def entries_fingerprint(book: StoredBook) -> str:
    """What tells the entries of a Book from others: who read what and how, how many there are, and their checksums."""
    progress = book.progress
    keys = {name: progress.checksums[name] for name in (layer_files(n)[0] for n in book.manifest.reading.memory_layers)}
    told = [asdict(book.manifest.reading), book.manifest.tokens_sha256, progress.entries, keys]
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def index_trouble(book: StoredBook, kind: str) -> str | None:
    """Why a Book has no index of this kind that can be used, as a part of a sentence; None where it has one."""
    if not os.path.lexists(book.folder / record_file(kind)):
        return NOT_THERE
    try:
        record = read_json(book.folder, record_file(kind))
    except BookError:
        return "is damaged"
    seal = record.pop("seal", None)
    try:
        if not is_sealed(record, seal):
            return "was not built by this user on this machine, or is damaged"
    except BookError as error:
        return f"cannot be told from one that was made to deceive ({error})"
    if record["format"] != _FORMAT or record["kind"] != kind:
        return "is of another version of longfocus"
    if record["of"] != entries_fingerprint(book):
        return "is of other entries than the Book has now"
    if any(not _is_whole(book.folder, name, facts) for name, facts in record["files"].items()):
        return "is damaged"
    return None


def open_index(book: StoredBook, kind: str) -> dict[int, LayerIndex]:
    """The index of each memory layer, mapped from its files.

    Raises:
        BookError: There is none of this kind that can be used; says why and what to do.
        RequestError: Faiss is not installed.
    """
    faiss = faiss_library()
    trouble = index_trouble(book, kind)
    if trouble:
        raise BookError(
            f"the index {kind} of {book.folder} {trouble}; `longfocus index {book.folder} --kind {kind}` builds it"
        )
    reading, opened = book.manifest.reading, {}
    for layer in reading.memory_layers:
        heads = []
        for head in range(reading.key_heads):
            path = book.folder / head_file(kind, layer, head)
            try:
                index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
            except RuntimeError:
                raise BookError(f"Faiss cannot read {path}; `longfocus index` with --anew builds it anew") from None
            if (index.ntotal, index.d) != (book.progress.entries, reading.head_dim):
                raise BookError(f"{path} does not fit the Book; `longfocus index` with --anew builds it anew")
            heads.append(index)
        opened[layer] = LayerIndex(tuple(heads), book.progress.entries)
    return opened


def build_index(book: StoredBook, kind: str) -> Iterator[IndexProgress]:
    """Build an index of this kind and put it into the Book's folder, in place of one that is there.

    Yields before the first head and after each. Stopped at any moment, it leaves no index of this kind that is used, or
    the whole; called again for the same entries, it goes on behind the last head that was done.

    Raises:
        BookError: The Book has no entries, is in use, or cannot be written to; the user's key cannot be used.
        RequestError: Faiss is not installed.
    """
    faiss = faiss_library()
    seal_of({})  # without a key no index would be believed: refused before hours of building, not behind them
    reading = book.manifest.reading
    if not book.progress.entries or not reading.memory_layers:
        raise BookError(f"{book.folder} has nothing in memory: all of it fits the window, and no index is needed")
    with _in_use(book.folder):
        try:
            yield from _build(book, kind, faiss)
        except OSError as error:
            raise BookError(f"cannot write an index to {book.folder}: {error.strerror or error}") from None


@contextmanager
def _in_use(folder: Path) -> Iterator[None]:
    """Hold a Book's folder, as one that reads does."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BookError(f"{folder} is in use by another process; wait for it or stop it") from None
    except OSError as error:
        raise BookError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def _build(book: StoredBook, kind: str, faiss: Any) -> Iterator[IndexProgress]:
    reading, folder = book.manifest.reading, book.folder
    told = {"format": _FORMAT, "kind": kind, "of": entries_fingerprint(book)}
    files = _begun(folder, kind, told)
    # the record first: from here on there is none until all files are there
    _remove(folder, kind, keep={unfinished_file(kind), *files} if files else set())
    total = len(reading.memory_layers) * reading.key_heads
    yield IndexProgress(len(files), total)
    for layer, memory in book.memories().items():
        held = held_by(memory)
        for head in range(reading.key_heads):
            name = head_file(kind, layer, head)
            if name in files:
                continue
            contents = memoryview(faiss.serialize_index(build_head(kind, held, head)))
            _put(folder / name, contents)
            files[name] = _facts(folder / name) | {"sha256": sha256(contents).hexdigest()}
            _seal(folder / unfinished_file(kind), told | {"files": files})
            yield IndexProgress(len(files), total)
    os.replace(folder / unfinished_file(kind), folder / record_file(kind))


def _begun(folder: Path, kind: str, told: dict[str, Any]) -> dict[str, Any]:
    """The files, with their facts, that a stopped process built of the same entries and that are whole."""
    try:
        record = read_json(folder, unfinished_file(kind))
    except BookError:
        return {}
    seal = record.pop("seal", None)
    if not is_sealed(record, seal) or any(record[name] != value for name, value in told.items()):
        return {}
    return {name: facts for name, facts in record["files"].items() if _is_whole(folder, name, facts)}


def _seal(path: Path, record: dict[str, Any]) -> None:
    replace_file(path, json.dumps(record | {"seal": seal_of(record)}).encode())


def remove_index(folder: Path, kind: str) -> None:
    """Take an index out of a Book's folder, what a stopped process left of it included.

    Raises:
        BookError: The Book is in use, or the folder cannot be written to.
    """
    with _in_use(folder):
        try:
            _remove(folder, kind, keep=set())
        except OSError as error:
            raise BookError(f"cannot remove the index {kind} of {folder}: {error.strerror}") from None


def _remove(folder: Path, kind: str, keep: set[str]) -> None:
    """Remove all files of an index but some; its record first."""
    (folder / record_file(kind)).unlink(missing_ok=True)
    for path in folder.glob(f"index-{kind}[-.]*"):
        if path.name not in keep:
            path.unlink()


def indexes_in(folder: Path) -> list[str]:
    """The kinds of index that lie in a Book's folder, whether they can be used or not."""
    return [kind for kind in INDEX_KINDS if os.path.lexists(folder / record_file(kind))]


def index_bytes(folder: Path, kind: str) -> int:
    """Bytes of an index on the disk."""
    return sum(path.lstat().st_size for path in folder.glob(f"index-{kind}[-.]*"))


def _put(path: Path, contents: memoryview) -> None:
    """Write a file in one piece, and see that it is on the disk itself: its contents are not read again to check."""
    temporary = path.with_name(path.name + ".new")
    write_anew(temporary, contents)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _facts(path: Path) -> dict[str, Any]:
    found = os.lstat(path)
    return {"size": found.st_size, "changed": found.st_mtime_ns, "identity": found.st_ino}


def _is_whole(folder: Path, name: str, wanted: dict[str, Any]) -> bool:
    """Whether a file is as it was written; one that was copied or touched since is read through."""
    path = folder / name
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        found = _facts(path)
        if found.items() <= wanted.items():
            return True
        if found["size"] != wanted["size"]:
            return False
        with open(path, "rb") as file:
            return bool(file_digest(file, "sha256").hexdigest() == wanted["sha256"])
    except OSError:
        return False
