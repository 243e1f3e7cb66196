"""The Books that clients may ask: those on the shelf, by names that are compared and never made into paths."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from longfocus.asking.session import Session
from longfocus.errors import BookError, RequestError
from longfocus.loading.load import LoadedModel
from longfocus.memory.book import StoredBook
from longfocus.memory.kinds import AUTO
from longfocus.memory.layout import MANIFEST, PROGRESS, TEXT, Manifest, Reading, parse_manifest, parse_progress
from longfocus.memory.layout import read_bytes as read_book_bytes
from longfocus.memory.library import books_dir, file_sizes, shelf_folder
from longfocus.memory.writer import reading_difference
from longfocus.serving.refusals import Refusal, no_such

_ENDING = shelf_folder("any").suffix
_LARGEST_TEXT = 4 * 2**30


@dataclass(frozen=True)
class Shelved:
    """A Book's folder as it is now.

    Attributes:
        status: Whether it can be asked, was not read to its end, or cannot be used.
        title: The document's title; empty where that is not known.
        error: Why it cannot be used.
        tokens: Tokens to read.
        done: Tokens read.
        bytes: On the disk.
        model: The model that read it.
        created: When, in seconds since 1970.
    """

    status: Literal["ready", "stopped", "unusable"]
    title: str = ""
    error: str | None = None
    tokens: int = 0
    done: int = 0
    bytes: int = 0
    model: str = ""
    created: int = 0


class Shelf:
    """The Books of this machine's shelf, a few of them open.

    Args:
        loaded: The model that asks them.
        open_books: How many are kept open.
        memory: Which memory answers, as for `Session`.
    """

    def __init__(self, loaded: LoadedModel, open_books: int, memory: str = AUTO) -> None:
        self.folder = books_dir()
        self._loaded = loaded
        self._most = open_books
        self._memory = memory
        self._open: OrderedDict[tuple[str, tuple[int, ...]], Session] = OrderedDict()
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Names of the Books, in order."""
        if not self.folder.is_dir():
            return []
        found = (path.name for path in self.folder.iterdir() if path.suffix == _ENDING and path.is_dir())
        return sorted(name.removesuffix(_ENDING) for name in found)

    def find(self, name: str) -> Path:
        """The folder of the Book of this name.

        Raises:
            Refusal: There is none.
        """
        if name not in self.names():
            raise no_such(name)
        return self.place_of(name)

    def place_of(self, name: str) -> Path:
        """Where the Book goes that we call by this name; never to be given a name from outside."""
        return self.folder / f"{name}{_ENDING}"

    def look_at(self, name: str) -> Shelved:
        """How the Book of this name stands.

        Raises:
            Refusal: There is none.
        """
        folder = self.find(name)
        try:
            manifest = parse_manifest(folder)
            progress = parse_progress(folder, manifest)
            size = sum(file_sizes(folder).values())
            created = int((folder / MANIFEST).stat().st_mtime)
        except BookError as error:
            return Shelved("unusable", error=str(error).replace(str(folder), name))
        except OSError as error:
            return Shelved("unusable", error=error.strerror)
        reading = manifest.reading
        difference = reading_difference(reading, self._here(manifest))
        wrong = f"{name} was {difference}; read it again with this model" if difference else None
        tokens, done = manifest.tokens, progress.tokens
        status: Literal["ready", "stopped", "unusable"] = (
            "unusable" if wrong else "ready" if done == tokens else "stopped"
        )
        return Shelved(status, manifest.title, wrong, tokens, done, size, reading.model, created)

    def manifest(self, name: str) -> Manifest:
        """What is in the Book of this name.

        Raises:
            Refusal: There is none.
            BookError: It cannot be used.
        """
        return parse_manifest(self.find(name))

    def text(self, name: str) -> str:
        """The text of the Book of this name; citations are offsets into it.

        Raises:
            Refusal: There is none.
            BookError: It cannot be used.
        """
        return read_book_bytes(self.find(name), TEXT, _LARGEST_TEXT).decode("utf-8", "surrogatepass")

    def session(self, name: str) -> Session:
        """The Book of this name, opened; for the worker's thread.

        Raises:
            Refusal: There is none, it is not read to its end, or it cannot be used.
        """
        folder = self.find(name)
        key = (name, _state_of(folder))
        with self._lock:
            if (held := self._open.get(key)) is not None:
                self._open.move_to_end(key)
                return held
        try:
            session = Session(StoredBook.open(folder), self._loaded, memory=self._memory)
        except (BookError, RequestError) as error:
            raise Refusal(409, str(error).replace(str(folder), name), "book_not_ready", "model") from None
        for note in session.notes:
            logging.getLogger(__name__).warning("%s: %s", name, note)
        with self._lock:
            self._open[key] = session
            while len(self._open) > self._most:
                self._open.popitem(last=False)
        return session

    def remove(self, name: str, aside: Path) -> None:
        """Take a Book off the shelf at once, then its files from the disk.

        Args:
            name: Its name.
            aside: A folder that is not there, for its files until they are gone.

        Raises:
            Refusal: There is none.
        """
        folder = self.find(name)
        with self._lock:
            for key in [key for key in self._open if key[0] == name]:
                del self._open[key]
        os.rename(folder, aside)
        shutil.rmtree(aside)

    def _here(self, manifest: Manifest) -> Reading:
        """How this server's model reads; looking back and packing are left to each Book."""
        reader, there = self._loaded.reader, manifest.reading
        return Reading.by(reader.name, reader.fingerprint, reader.model.config, there.look_back, there.packed)


def _state_of(folder: Path) -> tuple[int, ...]:
    """What tells a Book that was read anew from the one that is open."""
    try:
        facts = [os.stat(folder / name) for name in (MANIFEST, PROGRESS)]
    except OSError:
        return ()
    return tuple(number for fact in facts for number in (fact.st_ino, fact.st_mtime_ns))
