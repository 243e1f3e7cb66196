"""A document's bytes: what stands at a path, how large it may be, and gzip around text files.

Knows nothing of formats. Every refusal is a `DocumentError` of one line, built by `refusal`.
"""

import gzip
import stat
import zlib
from pathlib import Path

from longfocus.errors import DocumentError

MAX_TEXT_BYTES = 64 * 2**20
"""Most bytes of text in one document (about 16 million tokens), before and after unpacking."""

MAX_CONTAINER_BYTES = 256 * 2**20
"""Most bytes of an EPUB or a PDF file, which may carry pictures."""


def shown(path: Path) -> str:
    """The path in quotes, on one line whatever characters it holds."""
    return "'" + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path)) + "'"


def refusal(path: Path, what: str) -> DocumentError:
    """The error for a document that cannot be read; `what` says what came and what to do."""
    return DocumentError(f"Cannot read {shown(path)}: {' '.join(what.split())}")


def file_stem(path: Path) -> str:
    """The file's name without its suffix, and without the suffix under `.gz`: the title of last resort."""
    stem = path.stem
    return Path(stem).stem if path.suffix.lower() == ".gz" else stem


def require_file(path: Path) -> int:
    """Size in bytes of the file at `path`; DocumentError where there is none that can be read."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise refusal(path, "there is no such file. Check the name and the folder.") from error
    except PermissionError as error:
        raise refusal(path, "permission denied. Allow reading of the file and of its folder.") from error
    except (OSError, ValueError) as error:
        raise refusal(path, f"the path cannot be used ({_reason(error)}). Check the name.") from error
    if stat.S_ISDIR(status.st_mode):
        raise refusal(path, "it is a folder. Name one document inside it.")
    if not stat.S_ISREG(status.st_mode):
        raise refusal(path, "it is a device or a pipe. Save the document as a file first.")
    if status.st_size == 0:
        raise refusal(path, "the file is empty (0 bytes). Give a document with text.")
    return status.st_size


def read_bytes(path: Path, most: int = MAX_TEXT_BYTES) -> bytes:
    """All bytes of the file, unpacked where its name ends in `.gz`; at most `most` of them, before and after."""
    size = require_file(path)
    try:
        with path.open("rb") as file:
            data = file.read(most + 1) if size <= most else b""
    except PermissionError as error:
        raise refusal(path, "permission denied. Allow reading of the file.") from error
    except OSError as error:
        raise refusal(path, f"the file cannot be read ({_reason(error)}).") from error
    if max(size, len(data)) > most:
        raise refusal(path, f"the file is larger than {_mebibytes(most)}. Split it into smaller documents.")
    return _unpacked(path, most) if path.suffix.lower() == ".gz" else data


def _unpacked(path: Path, most: int) -> bytes:
    try:
        with gzip.open(path) as file:
            data = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise refusal(path, "it is not a whole gzip file. Fetch it again, or give it unpacked.") from error
    if len(data) > most:
        raise refusal(path, f"unpacked it is larger than {_mebibytes(most)}. Split it into smaller documents.")
    return data


def _mebibytes(size: int) -> str:
    return f"{size // 2**20} MiB"


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
