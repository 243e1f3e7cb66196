"""What pypdf finds in a PDF file: its pages' lines, their labels, the outline and a title, or one clear line.

pypdf's complaints about sloppy files are kept quiet while it reads. What it cannot read at all, must not read without
a password, or would read without end becomes one `DocumentError`.
"""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pypdf import PasswordType, PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError

from longfocus.errors import DocumentError
from longfocus.reading.documents.outline import one_line
from longfocus.reading.documents.pdf_text import page_lines
from longfocus.reading.documents.pdf_work import PageWork, bounded_streams
from longfocus.reading.documents.source import MAX_TEXT_BYTES, refusal

_OUTLINE_DEPTH = 2
_NO_TITLES = frozenset({"untitled", "untitled document", "anonymous", "(anonymous)", "(unspecified)"})
_FILE_AS_TITLE = re.compile(r"microsoft \w+ - |.*\.(?:docx?|indd|tex|dvi|qxd|rtf|odt|pdf|pptx?|xlsx?)$", re.I)


@dataclass(frozen=True)
class PdfContents:
    """What pypdf finds in a file; the outline's entries are level, label and page index."""

    pages: list[list[str]]
    labels: list[str]
    outline: list[tuple[int, str, int]]
    title: str


def pdf_contents(path: Path, data: bytes) -> PdfContents:
    """Read the bytes of the PDF file at `path`; DocumentError, in one line, where that cannot be done."""
    page = 0  # being read
    try:
        with _quiet_pypdf(), bounded_streams():
            reader = PdfReader(BytesIO(data))
            if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
                raise refusal(path, _PASSWORD)
            pages = []
            size = 0
            work = PageWork()
            for content in reader.pages:
                page += 1
                work.charge(content)
                pages.append(page_lines(content.extract_text()))
                size += sum(map(len, pages[-1]))
                if size > MAX_TEXT_BYTES:
                    raise refusal(path, f"its text is larger than {MAX_TEXT_BYTES // 2**20} MiB. Split it.")
            return PdfContents(pages, _labels(reader, len(pages)), _outline(reader), _title(reader))
    except DocumentError:
        raise
    except FileNotDecryptedError as error:
        raise refusal(path, _PASSWORD) from error
    except DependencyError as error:
        raise refusal(path, _AES if "AES" in str(error) else _lacking(error)) from error
    except LimitReachedError as error:
        raise refusal(path, _TOO_MUCH) from error
    except NotImplementedError as error:
        raise refusal(path, _PROTECTED if _is_protected(data) else _damaged(page)) from error
    except Exception as error:  # whatever a broken file drives the parser to
        raise refusal(path, _damaged(page)) from error


_PASSWORD = "it is encrypted with a password. Save a copy without one."
_AES = """it is encrypted with AES, for which the package cryptography is missing. Run: pip install cryptography.
    Or save a copy without encryption."""
_PROTECTED = "it is protected by a shop's own encryption (DRM). Give a copy without it."
_TOO_MUCH = """it unpacks to more, or asks for more work, than the pages of a book do. Save it anew as PDF, or give its
    text."""


def _damaged(page: int) -> str:
    where = f" (page {page})" if page else ""
    return f"the PDF is damaged{where}. Fetch the file again, or save it anew as PDF."


def _lacking(error: DependencyError) -> str:
    return f"a package is missing ({one_line(str(error)).rstrip('.')}). Install it, or save the file anew as PDF."


def _is_protected(data: bytes) -> bool:
    """Whether the file has an entry for encryption: pypdf knows the standard kinds only."""
    return b"/Encrypt" in data


def _labels(reader: PdfReader, count: int) -> list[str]:
    numbers = [str(number) for number in range(1, count + 1)]
    try:
        labels = [one_line(label) for label in reader.page_labels]
    except Exception:  # broken labels cost nothing but themselves: pages count from 1
        return numbers
    return [label or number for label, number in zip(labels, numbers, strict=True)] if len(labels) == count else numbers


def _outline(reader: PdfReader) -> list[tuple[int, str, int]]:
    try:
        return list(_outline_entries(reader, reader.outline, 1))
    except Exception:  # a broken outline costs the chapters' names, not the text
        return []


def _outline_entries(reader: PdfReader, entries: Sequence[Any], level: int) -> Iterator[tuple[int, str, int]]:
    for entry in entries:
        if isinstance(entry, list):
            if level < _OUTLINE_DEPTH:
                yield from _outline_entries(reader, entry, level + 1)
            continue
        page = reader.get_destination_page_number(entry)
        label = "".join(character for character in one_line(str(entry.title or "")) if character.isprintable())
        if page is not None and label.strip():
            yield level, label, page


def _title(reader: PdfReader) -> str:
    """The title in the file's metadata, where it is not a program's stand-in for one."""
    try:
        title = one_line(str((reader.metadata and reader.metadata.title) or ""))
    except Exception:  # a broken title costs nothing but itself
        return ""
    return "" if title.lower() in _NO_TITLES or _FILE_AS_TITLE.match(title) or not title.isprintable() else title


@contextmanager
def _quiet_pypdf() -> Iterator[None]:
    logger = logging.getLogger("pypdf")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
