"""Many documents: a folder of them becomes as many Books, by one process or by several that never talk to each other.

A launcher tells every process which one it is (`RANK`) and how many there are (`WORLD_SIZE`), as torchrun, `accelerate
launch` and most clusters do. All list the same folder and divide it in the same way, so nothing else has to be agreed
upon. A Book that is complete is left alone and one that is half read goes on, so a run that was stopped, or lost one of
its processes, is started again as it was.
"""

from __future__ import annotations

import errno
import heapq
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longfocus.errors import BookError, DocumentError, RequestError, UserError
from longfocus.loading.load import LoadedModel
from longfocus.memory.layout import MANIFEST, Manifest, one_line, parse_manifest, parse_progress
from longfocus.memory.library import shelf_folder
from longfocus.reading.documents import KNOWN, Document, load_document, suffix_of
from longfocus.reading.origin import file_hash, note_origin
from longfocus.reading.reader import ReadProgress, read_steps

ATTEMPTS = 2
"""How often a document is tried, the second time after all others."""
_BOOK = ".book"


@dataclass(frozen=True)
class Share:
    """Which process this is.

    Attributes:
        process: Its number, from 0.
        processes: How many there are.
        local: Its number on this machine, which picks its GPU.
    """

    process: int = 0
    processes: int = 1
    local: int = 0

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Share:
        """As the launcher has set this process up; one alone where there is none.

        Raises:
            RequestError: What it says makes no sense.
        """
        told = [environment.get(name, usual) for name, usual in (("RANK", "0"), ("WORLD_SIZE", "1"))]
        told.append(environment.get("LOCAL_RANK", told[0]))
        if not all(text.isdecimal() for text in told) or int(told[0]) >= int(told[1]):
            raise RequestError(
                f"the launcher calls this process {told[0]!r} of {told[1]!r}; RANK must be a number from 0 up, and "
                "below WORLD_SIZE"
            )
        return cls(*map(int, told))

    @property
    def device(self) -> str | None:
        """The GPU of this process where several share a machine's; None for the usual device."""
        import torch

        if self.processes == 1 or not torch.cuda.is_available():
            return None
        return f"cuda:{self.local % torch.cuda.device_count()}"


@dataclass(frozen=True)
class Planned:
    """A document to be read.

    Attributes:
        path: Its file.
        folder: Where its Book goes.
        bytes: Of the file; 0 where it cannot be asked.
        trouble: Why it cannot be read, known before anything is begun; empty where nothing is.
    """

    path: Path
    folder: Path
    bytes: int
    trouble: str = ""


@dataclass(frozen=True)
class DocumentProgress:
    """How far one of the documents has come.

    Attributes:
        path: The document.
        number: Which it is among those of this process, from 1.
        progress: How far its reading has come.
    """

    path: Path
    number: int
    progress: ReadProgress


@dataclass(frozen=True)
class Outcome:
    """What became of a document.

    Attributes:
        path: The document.
        folder: Where its Book lies, or would.
        tokens: Read into the Book; 0 where it was not read.
        seconds: Spent on it, earlier runs included.
        there: Whether the Book was complete before.
        left_out: Characters cut out of the middle of the document, or None.
        trouble: Why it could not be read, in one line; empty where it was.
        last: Whether it will not be tried again.
    """

    path: Path
    folder: Path
    tokens: int = 0
    seconds: float = 0.0
    there: bool = False
    left_out: tuple[int, int] | None = None
    trouble: str = ""
    last: bool = True


@dataclass(frozen=True)
class Summary:
    """What became of all of them.

    Attributes:
        read: Read by this run.
        there: Complete before.
        tokens: Of those that were read.
        failed: What could not be read.
    """

    read: int = 0
    there: int = 0
    tokens: int = 0
    failed: tuple[Outcome, ...] = ()

    def plus(self, one: Outcome) -> Summary:
        """With one more; what is tried again does not count yet."""
        if one.trouble:
            return replace(self, failed=(*self.failed, one)) if one.last else self
        if one.there:
            return replace(self, there=self.there + 1)
        return replace(self, read=self.read + 1, tokens=self.tokens + one.tokens)


def documents_in(folder: Path, out: Path | None = None) -> tuple[Planned, ...]:
    """The documents in a folder and the folders in it, in order of their paths; what is hidden or a Book is passed by.

    Args:
        folder: Where they lie.
        out: Where Books go, in folders as those of the documents; None for the shelf, which has no folders.

    Raises:
        DocumentError: The folder cannot be listed, or holds no document.
    """

    def refuse(error: OSError) -> None:
        raise DocumentError(f"Cannot list {error.filename}: {error.strerror}.") from None

    found: list[Path] = []
    for place, inner, names in os.walk(folder, onerror=refuse):
        inner[:] = [
            name
            for name in inner
            if not name.startswith(".") and not name.endswith(_BOOK) and not Path(place, name, MANIFEST).exists()
        ]
        found += [Path(place, name) for name in names if suffix_of(name) and not name.startswith(".")]
    if not found:
        raise DocumentError(f"There is no document in {folder}. {KNOWN}")
    taken: dict[Path, Path] = {}
    planned = []
    for path in sorted(found):
        book = shelf_folder(path)
        if out is not None:
            book = out / path.relative_to(folder).parent / book.name
        first = taken.setdefault(book, path)
        trouble = "" if first == path else f"its Book would be {book.name}, as that of {first}; rename one of them"
        if trouble and out is None:
            trouble += ", or name a folder with --out, in which folders are kept apart"
        planned.append(Planned(path, book, _size(path), trouble))
    return tuple(planned)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # said in full when it is read


def shared_out(planned: Sequence[Planned], share: Share) -> tuple[Planned, ...]:
    """The documents of one process, largest first: each goes to whoever has least so far (Graham, 1969).

    The most that any process gets is at most 4/3 of what the best division would give it.
    """
    loads = [(0, process) for process in range(share.processes)]
    mine = []
    for each in sorted(planned, key=lambda one: (-one.bytes, one.path)):
        load, process = heapq.heappop(loads)
        heapq.heappush(loads, (load + max(each.bytes, 1), process))
        if process == share.process:
            mine.append(each)
    return tuple(mine)


def read_many(planned: Sequence[Planned], loaded: LoadedModel, **options: Any) -> Iterator[DocumentProgress | Outcome]:
    """Read documents one after the other; what fails is tried once more at the end.

    Yields how far each has come, and an `Outcome` whenever one has ended. A document that cannot be read does not keep
    the others from it; a disk that is full does.

    Args:
        planned: Those of this process.
        loaded: The model that reads.
        **options: As for `longfocus.reading.reader.read_steps`.

    Raises:
        BookError: The disk is full.
    """
    waiting = list(enumerate(planned, 1))
    for attempt in range(ATTEMPTS):
        failed = []
        for number, each in waiting:
            outcome = None
            for step in _read(each, number, loaded, options):
                outcome = step
                if isinstance(step, DocumentProgress):
                    yield step
            assert isinstance(outcome, Outcome)
            if outcome.trouble and attempt + 1 < ATTEMPTS and not each.trouble:
                failed.append((number, each))
                outcome = replace(outcome, last=False)
            yield outcome
        waiting = failed


def _read(
    each: Planned, number: int, loaded: LoadedModel, options: dict[str, Any]
) -> Iterator[DocumentProgress | Outcome]:
    """Read one document; the last that is given is its outcome."""
    if each.trouble:
        yield Outcome(each.path, each.folder, trouble=each.trouble)
        return
    last = None
    try:
        digest, document = file_hash(each.path), load_document(each.path)
        if (before := _read_before(each.folder, document, loaded)) is not None:
            note_origin(each.folder, digest)
            yield Outcome(each.path, each.folder, there=True, left_out=before.left_out)
            return
        for last in read_steps(document, loaded, each.folder, **options):
            yield DocumentProgress(each.path, number, last)
        note_origin(each.folder, digest)
    except UserError as error:
        if _disk_is_full(error):
            raise
        yield Outcome(each.path, each.folder, trouble=trouble_of(error))
    except Exception as error:
        yield Outcome(each.path, each.folder, trouble=trouble_of(error))
    else:
        assert last is not None
        yield Outcome(each.path, each.folder, last.total, last.seconds, left_out=last.left_out)


def trouble_of(error: Exception) -> str:
    """What an error says of one document, in one line.

    A defect, or a machine's trouble, is told by its name: among thousands of documents it must not cost the others
    theirs, and it is no line that was written for users.
    """
    if isinstance(error, UserError):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)}; read it alone to see more"


def _read_before(folder: Path, document: Document, loaded: LoadedModel) -> Manifest | None:
    """What a complete Book of the document by this model says of it, with whichever settings; None if there is none."""
    if not (folder / MANIFEST).exists():
        return None
    manifest = parse_manifest(folder)
    is_it = (
        manifest.text_sha256 == document.sha256
        and manifest.reading.fingerprint == loaded.reader.fingerprint
        and parse_progress(folder, manifest).tokens == manifest.tokens
    )
    return manifest if is_it else None


def _disk_is_full(error: UserError) -> bool:
    cause = error.__context__
    return isinstance(error, BookError) and isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
