"""Documents to train on in files: text, JSON Lines and parquet.

Of a file with many documents only the places where they start are held in memory; the file itself is mapped.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import mmap
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from longfocus.errors import DocumentError
from longfocus.training.document_tables import parquet_documents
from longfocus.training.documents import Documents, JoinedDocuments, TrainingDocument, document_of_record


class TextFile(Documents):
    """A file of UTF-8 text, gzipped or not, as one document."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> TrainingDocument:
        with _told(self._path), _unpacked(self._path) as file:
            return TrainingDocument(file.read().decode("utf-8"), self._name)


class JsonLines(Documents):
    """A file with a JSON object on each line, gzipped or not.

    A gzipped file is unpacked into a temporary one, since any line may be asked for; each process does that once.

    Args:
        path: The file.
        name: What it is called in the ids of its documents.
        text: The field that holds the text.
        id: The field that holds the id; None numbers the lines, "name:12" being the twelfth.

    Raises:
        DocumentError: The file cannot be read.
    """

    def __init__(self, path: Path, name: str, text: str = "text", id: str | None = None) -> None:
        self._path, self._name, self._text, self._id = path, name, text, id
        self._map: mmap.mmap | None = None
        places, numbers, start, number = [], [], 0, 0
        mapped = self._mapped()
        while start < len(mapped):
            end = mapped.find(b"\n", start)
            end, number = len(mapped) if end < 0 else end, number + 1
            if mapped[start:end].strip():
                places.append((start, end))
                numbers.append(number)
            start = end + 1
        self._places, self._numbers = np.array(places, np.int64).reshape(-1, 2), np.array(numbers, np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}  # another process maps the file anew

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> TrainingDocument:
        start, end = self._places[index]
        where = f"line {self._numbers[index]} of {self._path}"
        try:
            record = json.loads(self._mapped()[start:end])
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"Cannot read {where}: it is no JSON ({error}). Mend or delete it.") from error
        if not isinstance(record, dict):
            raise DocumentError(f"Cannot use {where}: wanted a JSON object with the field {self._text!r}.")
        return document_of_record(record, where, f"{self._name}:{self._numbers[index]}", self._text, self._id)

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            with _told(self._path), tempfile.TemporaryFile() if _packed(self._path) else self._path.open("rb") as file:
                if _packed(self._path):
                    with _unpacked(self._path) as packed:
                        shutil.copyfileobj(packed, file)
                    file.flush()
                if file.seek(0, 2) == 0:
                    raise DocumentError(f"Cannot read {self._path}: the file is empty. Give one with documents.")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map


def open_documents(path: str | Path, text: str = "text", id: str | None = None, pattern: str = "**/*") -> Documents:
    """The documents of a file, or of all files with a known suffix in a folder and the folders in it.

    A text file is one document, called by its path in the folder; other files hold one on each line or row.

    Args:
        path: The file or the folder.
        text: The field or column that holds the text, in files that have such.
        id: The field or column that holds the id.
        pattern: Which files of a folder, as a shell would write it; `**` is any folders.

    Raises:
        DocumentError: There is nothing there that can be read.
        RequestError: A parquet file, and the `datasets` library is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise DocumentError(f"Cannot read {path}: there is no such file or folder. Check the name.")
    if path.is_dir():
        files = sorted(file for file in path.glob(pattern) if file.is_file() and _reader_of(file) is not None)
        names = [file.relative_to(path).as_posix() for file in files]
    else:
        files, names = [path], [path.name]
    readers = [_reader_of(file) for file in files]
    if not files or None in readers:
        raise DocumentError(f"Cannot read {path}: wanted {', '.join(READERS)}, or a folder with such files.")
    parts = [reader(file, name, text, id) for reader, file, name in zip(readers, files, names, strict=True) if reader]
    return parts[0] if len(parts) == 1 else JoinedDocuments(parts)


def _text_file(path: Path, name: str, text: str, id: str | None) -> Documents:
    return TextFile(path, name)


READERS: dict[str, Callable[[Path, str, str, str | None], Documents]] = {
    ".txt": _text_file,
    ".txt.gz": _text_file,
    ".jsonl": JsonLines,
    ".jsonl.gz": JsonLines,
    ".json.gz": JsonLines,
    ".parquet": parquet_documents,
}
"""By suffix, what makes documents of a file: path, name, field of the text, field of the id."""


def _reader_of(path: Path) -> Callable[[Path, str, str, str | None], Documents] | None:
    return next((READERS[suffix] for suffix in READERS if path.name.lower().endswith(suffix)), None)


def _packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _unpacked(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if _packed(path) else path.open("rb")


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What goes wrong with a file, as one line."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DocumentError(f"Cannot read {path}: it is not UTF-8 (byte {error.start}). Convert it.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DocumentError(f"Cannot read {path}: {' '.join(str(error).split())}.") from error
