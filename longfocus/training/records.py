"""Records of training data: JSON files, and what stands in their fields."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from longfocus.errors import DocumentError
from longfocus.training.examples import Record


def load_records(path: str | Path) -> list[Record]:
    """The records of a JSON file.

    Args:
        path: `.json` with a list of objects, or `.jsonl` with an object on each line; either may end in `.gz`.

    All records are held in memory. For more than fits, give the data sets of this folder a sequence that reads its
    records when asked, as those of the `datasets` library do.

    Raises:
        DocumentError: The file is missing, of another kind, damaged, or holds no records.
    """
    path = Path(path)
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind not in (".json", ".jsonl"):
        raise DocumentError(f"{path} is not training data; wanted .json or .jsonl, perhaps with .gz")
    text = read_text(path)
    found = list(_lines(path, text)) if kind == ".jsonl" else _parsed(path, text)
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise DocumentError(f"{path} holds something else than records; wanted a list of objects")
    if not found:
        raise DocumentError(f"{path} holds no records")
    return found


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked where its name ends in `.gz`.

    Raises:
        DocumentError: It is missing or damaged.
    """
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path} is not UTF-8 (byte {error.start})") from error


def read_bytes(path: Path) -> bytes:
    """The contents of a file, unpacked where its name ends in `.gz`.

    Raises:
        DocumentError: It is missing or damaged.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DocumentError(f"{path} cannot be read ({error})") from error


def _lines(path: Path, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _parsed(path, line, number)


def _parsed(path: Path, text: str, line: int = 1) -> Any:
    """The JSON in `text`, which begins in that line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DocumentError(f"{path} is not JSON in line {line + error.lineno - 1}: {error.msg}") from error


def text_field(record: Record, name: str) -> str:
    """The text in a record's field.

    Raises:
        DocumentError: There is none.
    """
    value = record.get(name)
    if not isinstance(value, str):
        came = (
            f"it is {value!r:.60}" if name in record else f"there are {', '.join(sorted(map(str, record))) or 'none'}"
        )
        raise DocumentError(f"a record was to have text in its field {name!r}; {came}")
    return value
