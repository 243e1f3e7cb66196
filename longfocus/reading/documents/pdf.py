"""PDF files: the text of each page by pypdf, pages as sections, chapters by the file's outline.

Pictures are not read: a scanned book needs text recognition first. pypdf's complaints about sloppy files are kept
quiet while it reads; what it cannot read at all becomes one `DocumentError`.
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
from longfocus.memory.sections import Section
from longfocus.reading.documents.document import Document, trimmed
from longfocus.reading.documents.outline import Heading, chapter_sections, one_line
from longfocus.reading.documents.pdf_text import ParagraphJoiner, page_lines
from longfocus.reading.documents.source import MAX_CONTAINER_BYTES, MAX_TEXT_BYTES, file_stem, read_bytes, refusal

_HEADER_BYTES = 1024
_OUTLINE_DEPTH = 2
_BETWEEN_PAGES = "\n\n"
_NO_TITLES = frozenset({"untitled", "untitled document", "anonymous", "(anonymous)", "(unspecified)"})
_FILE_AS_TITLE = re.compile(r"microsoft \w+ - |.*\.(?:docx?|indd|tex|dvi|qxd|rtf|odt|pdf|pptx?|xlsx?)$", re.I)


@dataclass(frozen=True)
class _Contents:
    """What pypdf finds in a file; the outline's entries are level, label and page index."""

    pages: list[list[str]]
    labels: list[str]
    outline: list[tuple[int, str, int]]
    title: str


def read_pdf(path: Path) -> Document:
    """Read a PDF file. `text` holds its pages' text, paragraphs joined, separated by blank lines."""
    data = read_bytes(path, MAX_CONTAINER_BYTES)
    if b"%PDF-" not in data[:_HEADER_BYTES]:
        raise refusal(path, "it is not a PDF file. Check that the suffix fits the contents.")
    with _quiet_pypdf():
        contents = _contents(path, data)
    joiner = ParagraphJoiner(contents.pages)
    texts = [joiner.joined(lines) for lines in contents.pages]
    if not any(texts):
        raise refusal(
            path, "its pages hold no text, only pictures. Run text recognition (OCR) first, such as ocrmypdf."
        )
    spans = _page_spans(texts)
    text = _BETWEEN_PAGES.join(filter(None, texts))
    body = trimmed(text, 0, len(text))
    pages = [
        Section("page", label, *span) for label, span in zip(contents.labels, spans, strict=True) if span[0] < span[1]
    ]
    chapters = chapter_sections(_headings(text, spans, contents.outline), body)
    return Document(contents.title or file_stem(path), text, body, (*chapters, *pages))


def _page_spans(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Start and end of each page; a page reaches to the start of the next, and one without text is empty."""
    spans = []
    start = 0
    total = sum(len(text) + len(_BETWEEN_PAGES) for text in texts if text) - len(_BETWEEN_PAGES)
    for text in texts:
        end = min(start + len(text) + len(_BETWEEN_PAGES), total) if text else start
        spans.append((start, end))
        start = end
    return spans


def _headings(text: str, spans: Sequence[tuple[int, int]], outline: Sequence[tuple[int, str, int]]) -> list[Heading]:
    """The outline's entries, each where its words stand on its page, or else at the page's start."""
    headings = []
    for level, label, page in outline:
        if 0 <= page < len(spans):
            words = r"\s+".join(re.escape(word) for word in label.split())
            match = re.compile(words, re.I).search(text, *spans[page])
            headings.append(Heading(level, label, match.start() if match else spans[page][0]))
    return headings


def _contents(path: Path, data: bytes) -> _Contents:
    page = 0  # being read
    try:
        reader = PdfReader(BytesIO(data))
        if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
            raise refusal(path, "it is encrypted with a password. Save a copy without one.")
        pages = []
        size = 0
        for content in reader.pages:
            page += 1
            pages.append(page_lines(content.extract_text()))
            size += sum(map(len, pages[-1]))
            if size > MAX_TEXT_BYTES:
                raise refusal(path, f"its text is larger than {MAX_TEXT_BYTES // 2**20} MiB. Split it.")
        return _Contents(pages, _labels(reader, len(pages)), _outline(reader), _title(reader))
    except DocumentError:
        raise
    except FileNotDecryptedError as error:
        raise refusal(path, "it is encrypted with a password. Save a copy without one.") from error
    except DependencyError as error:
        raise refusal(
            path, "it is encrypted with AES. Save a copy without, or run: pip install cryptography"
        ) from error
    except LimitReachedError as error:
        raise refusal(path, "it unpacks to more than a page can hold. Save it again, or give its text.") from error
    except Exception as error:  # whatever a broken file drives the parser to
        where = f" (page {page})" if page else ""
        raise refusal(path, f"the PDF is damaged{where}. Fetch the file again, or save it anew as PDF.") from error


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
