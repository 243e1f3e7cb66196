"""PDF files: the text of each page, pages as sections, chapters by the file's outline.

Pictures are not read: a scanned book needs text recognition first. Running heads and feet are left out.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from longfocus.memory.sections import Section
from longfocus.reading.documents.document import Document, trimmed
from longfocus.reading.documents.outline import Heading, chapter_sections
from longfocus.reading.documents.pdf_file import pdf_contents
from longfocus.reading.documents.pdf_running import without_running_lines
from longfocus.reading.documents.pdf_text import ParagraphJoiner
from longfocus.reading.documents.source import MAX_CONTAINER_BYTES, file_stem, read_bytes, refusal

_HEADER_BYTES = 1024
_BETWEEN_PAGES = "\n\n"
_HEADING_REACH = 20_000
"""How far into a page an entry of the outline is looked for, in characters."""


def read_pdf(path: Path) -> Document:
    """Read a PDF file. `text` holds its pages' text, paragraphs joined, separated by blank lines."""
    data = read_bytes(path, MAX_CONTAINER_BYTES)
    if b"%PDF-" not in data[:_HEADER_BYTES]:
        raise refusal(path, "it is not a PDF file. Check that the suffix fits the contents.")
    contents = pdf_contents(path, data)
    lines = without_running_lines(contents.pages)
    joiner = ParagraphJoiner(lines)
    texts = [joiner.joined(page) for page in lines]
    if not any(texts):
        besides = " besides heads and feet" if any(map(any, contents.pages)) else ""
        raise refusal(
            path,
            f"its pages hold no text{besides}, only pictures. Run text recognition (OCR) first, such as ocrmypdf.",
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
            start, end = spans[page]
            words = r"\s+".join(re.escape(word) for word in label.split())
            match = re.compile(words, re.I).search(text, start, min(end, start + _HEADING_REACH))
            headings.append(Heading(level, label, match.start() if match else start))
    return headings
