"""Documents that clients gave us, kept until they are read: a server that is stopped or killed goes on with them.

A document is taken apart when it comes, and only its text is kept. What a client called it is a label beside it: files
here are named after numbers that we drew.

    NAME.json             what the client said of it
    NAME.document.json    its text and sections, until the Book is whole; written last, so that it is there whole
    lock                  held by the server that these are the documents of
    new-NUMBER/           a document that is coming in; removed at the next start
    gone-NUMBER/          a Book that is being deleted; likewise
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from longfocus.errors import DocumentError, RequestError
from longfocus.memory.layout import replace_file
from longfocus.memory.library import BOOKS_VARIABLE
from longfocus.memory.sections import Section
from longfocus.reading.documents import Document

_NOTE, _DOCUMENT = ".json", ".document.json"
_OURS = re.compile(r"book-[0-9a-f]{16}")
_LONGEST_LABEL = 200


@dataclass(frozen=True)
class Note:
    """What is known of a document that a client gave us.

    Attributes:
        filename: What the client called it; a label.
        bytes: Its size when it came.
        created: When, in seconds since 1970.
        purpose: What the client said it was for.
        client: Who gave it.
        stopped: Whether a client stopped the reading.
        deleted: Whether a client deleted it; what is left of it then is removed at the next start.
        tries: How often reading began at the same place and did not come further.
        place: That place, in tokens.
        resumed: Tokens that had been read before the last run of the reading.
    """

    filename: str
    bytes: int
    created: int
    purpose: str = "user_data"
    client: str = ""
    stopped: bool = False
    deleted: bool = False
    tries: int = 0
    place: int = 0
    resumed: int = 0


class Kept:
    """The folder with documents to be read, which belongs to one server at a time.

    Args:
        folder: Made if it is not there.

    Raises:
        RequestError: It is another server's, or cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changes = threading.Lock()
        self._held = FileLock(folder / "lock", thread_local=False)  # taken and let go of in different threads
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._held.acquire(timeout=0)
        except Timeout:
            raise RequestError(
                f"another server has the shelf {folder.parent}; stop it, or choose another shelf with {BOOKS_VARIABLE}"
            ) from None
        except OSError as error:
            raise RequestError(
                f"cannot keep uploads in {folder}: {error.strerror}; choose another shelf with {BOOKS_VARIABLE}"
            ) from None

    def close(self) -> None:
        """Let another server have the folder."""
        self._held.release()

    def open(self) -> None:
        """Clear away what was left of what was not finished."""
        for path in self._folder.iterdir():
            if path.name.startswith(("new-", "gone-")):
                shutil.rmtree(path, ignore_errors=True)

    def place(self, kind: str) -> Path:
        """A path for a folder that is not there yet."""
        return self._folder / f"{kind}-{secrets.token_hex(8)}"

    def add(self, document: Document, note: Note) -> str:
        """Keep a document; returns the name that it has from now on."""
        name = f"book-{secrets.token_hex(8)}"
        self._write(name, note)
        replace_file(self._folder / (name + _DOCUMENT), json.dumps(asdict(document)).encode())
        return name

    def unread(self) -> list[str]:
        """Names of the documents that are still kept, oldest first."""
        paths = sorted(self._folder.glob(f"*{_DOCUMENT}"), key=lambda path: path.stat().st_mtime_ns)
        return [name for path in paths if _OURS.fullmatch(name := path.name.removesuffix(_DOCUMENT))]

    def document(self, name: str) -> Document:
        """A document that is kept.

        Raises:
            DocumentError: It is not there any more, or damaged.
        """
        try:
            held = json.loads((self._folder / (name + _DOCUMENT)).read_bytes())
            sections = tuple(Section(**section) for section in held["sections"])
            first, last = held["body"]
            return Document(held["title"], held["text"], (first, last), sections)
        except (OSError, ValueError, KeyError, TypeError):
            raise DocumentError(f"{name} is not kept any more; upload the document again") from None

    def has(self, name: str) -> bool:
        """Whether the document of this name is kept."""
        return _OURS.fullmatch(name) is not None and (self._folder / (name + _DOCUMENT)).is_file()

    def note(self, name: str) -> Note:
        """What is known of a document, or of the Book that it became; little where it was not given to us."""
        if _OURS.fullmatch(name):
            try:
                return Note(**json.loads((self._folder / (name + _NOTE)).read_bytes()))
            except (OSError, ValueError, TypeError):
                return Note(name, 0, 0)  # a Book can be asked without
        return Note(name, 0, 0)

    def mark(self, name: str, **changes: Any) -> None:
        """Change what is known of a document; of one that was not given to us nothing is."""
        with self._changes:  # from several threads: each change is of what the last one left
            if _OURS.fullmatch(name) and (self._folder / (name + _NOTE)).is_file():
                self._write(name, replace(self.note(name), **changes))

    def deleted(self) -> list[str]:
        """Names of what clients deleted, and of which something is left."""
        names = (path.name.removesuffix(_NOTE) for path in self._folder.glob(f"*{_NOTE}"))
        return [name for name in names if _OURS.fullmatch(name) and self.note(name).deleted]

    def was_read(self, name: str) -> None:
        """The Book is whole: its document is not needed any more."""
        (self._folder / (name + _DOCUMENT)).unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Remove all that is kept of a document."""
        if _OURS.fullmatch(name):
            self.was_read(name)
            with self._changes:
                (self._folder / (name + _NOTE)).unlink(missing_ok=True)

    def _write(self, name: str, note: Note) -> None:
        replace_file(self._folder / (name + _NOTE), json.dumps(asdict(note)).encode())


def label_of(filename: str | None) -> str:
    """A name from outside as a label: its last part, without what could steer a terminal, not too long."""
    last = re.split(r"[/\\]", filename or "")[-1]
    return "".join(each for each in last if each.isprintable())[:_LONGEST_LABEL].strip() or "document"


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
