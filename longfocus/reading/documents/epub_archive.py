"""An EPUB's zip archive, read with bounds: sizes are counted while unpacking, never believed from headers.

Nothing is written to disk. Only the documents asked for are unpacked, so that a bomb elsewhere in the archive is inert.
"""

import posixpath
import re
import struct
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from longfocus.errors import DocumentError
from longfocus.reading.documents.source import MAX_CONTAINER_BYTES, MAX_TEXT_BYTES, refusal, require_file

MAX_ENTRIES = 20_000
"""Most files in the archive."""

MAX_RATIO = 100
"""Most times that all text read may be larger than the archive itself; ordinary text packs about 3 to 1."""

RATIO_FREE_BYTES = 8 * 2**20
"""Up to here any ratio is fine."""

_MAX_DIRECTORY_BYTES = 16 * 2**20
_CHUNK = 2**18
_END_RECORD = b"PK\x05\x06"
_ZIP64_LOCATOR = b"PK\x06\x07"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, OverflowError)


class EpubArchive:
    """The documents of one EPUB by their paths inside it; a context manager that closes the file.

    `locked` names those that are encrypted; asking for one is refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.locked: frozenset[str] = frozenset()
        self._read = 0
        self._size = require_file(path)
        if self._size > MAX_CONTAINER_BYTES:
            raise refusal(path, f"the file is larger than {MAX_CONTAINER_BYTES // 2**20} MiB. Split it.")
        try:
            _require_small_directory(path)
            self._zip = zipfile.ZipFile(path)
        except PermissionError as error:
            raise refusal(path, "permission denied. Allow reading of the file.") from error
        except _UNREADABLE as error:
            raise refusal(path, "it is not a whole zip archive, as an EPUB must be. Fetch it again.") from error
        try:
            self._entries = {entry.filename: entry for entry in self._zip.infolist()}
            self._require_tame_names()
        except DocumentError:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def read(self, name: str, what: str) -> bytes:
        """The bytes of one document; DocumentError, calling it `what`, where it is missing, broken or too large."""
        entry = self._entries.get(name)
        if entry is None:
            raise refusal(self.path, f"{what} ({name[:200]!r}) is missing from the archive. Fetch the file again.")
        if name in self.locked:
            raise refusal(self.path, "it is locked by digital rights management (DRM). Give an edition without.")
        if entry.flag_bits & 1:
            raise refusal(self.path, "the archive is encrypted with a password. Save it without one.")
        if entry.compress_type not in _METHODS:
            raise refusal(self.path, f"{what} is packed in a way that EPUB does not allow. Pack it again.")
        pieces = []
        try:
            with self._zip.open(entry) as file:
                while piece := file.read(_CHUNK):
                    self._count(len(piece))
                    pieces.append(piece)
        except _UNREADABLE as error:
            raise refusal(self.path, f"{what} in the archive is damaged. Fetch the file again.") from error
        return b"".join(pieces)

    def _count(self, size: int) -> None:
        self._read += size
        if self._read > MAX_TEXT_BYTES:
            raise refusal(self.path, f"unpacked its text is larger than {MAX_TEXT_BYTES // 2**20} MiB. Split it.")
        if self._read > max(RATIO_FREE_BYTES, MAX_RATIO * self._size):
            raise refusal(self.path, f"it unpacks to more than {MAX_RATIO} times its size, as a zip bomb does.")

    def _require_tame_names(self) -> None:
        if len(self._entries) > MAX_ENTRIES:
            raise refusal(self.path, f"the archive holds more than {MAX_ENTRIES} files. It is no ordinary EPUB.")
        for name in self._entries:
            if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
                raise refusal(self.path, f"the archive holds a path outside itself ({name[:200]!r}). Do not trust it.")


def linked_path(base: str, link: str) -> tuple[str, str] | None:
    """Path and fragment that a link in document `base` points at; None where that is not inside the archive."""
    try:
        parts = urlsplit(link.strip())
    except ValueError:
        return None
    if parts.scheme or parts.netloc:
        return None
    target = unquote(parts.path)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(base), target)) if target else base
    inside = not path.startswith("/") and path.split("/")[0] != ".."
    return (path, unquote(parts.fragment)) if inside else None


def _require_small_directory(path: Path) -> None:
    """ValueError where the list of files is so long that reading it would exhaust the memory."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 2**16 - 64))
        tail = file.read()
    place = tail.rfind(_END_RECORD)
    if place < 0 or len(tail) < place + 22:
        raise ValueError("no end record")
    # No EPUB within the bound on its size needs the form for large archives.
    if tail[max(0, place - 20) : place].startswith(_ZIP64_LOCATOR):
        raise ValueError("an archive in the form for large ones")
    if struct.unpack_from("<I", tail, place + 12)[0] > _MAX_DIRECTORY_BYTES:
        raise ValueError("too many entries")
