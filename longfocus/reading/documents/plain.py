"""Plain text: the file's own characters, Project Gutenberg's frame left out of the body, chapters by their headings."""

from pathlib import Path

from longfocus.reading.documents.chapters import find_headings
from longfocus.reading.documents.decoding import decode_text
from longfocus.reading.documents.document import Document
from longfocus.reading.documents.gutenberg import body_of, title_of
from longfocus.reading.documents.headline import looks_like_title, parse_headline
from longfocus.reading.documents.outline import chapter_sections
from longfocus.reading.documents.source import file_stem, read_bytes

_LONGEST_TITLE = 80


def read_plain(path: Path) -> Document:
    """Read a text file. Its `text` is exactly what `open(path, encoding=...).read()` gives (see `decoding`)."""
    text = decode_text(read_bytes(path), path)
    body = body_of(text)
    title = title_of(text, body[0]) or _first_line_title(text, body) or file_stem(path)
    return Document(title, text, body, chapter_sections(find_headings(text, body), body))


def _first_line_title(text: str, body: tuple[int, int]) -> str | None:
    """The body's first line, where it stands alone and reads like a title rather than a chapter's heading."""
    first, _, behind = text[body[0] : min(body[1], body[0] + 2 * _LONGEST_TITLE)].partition("\n")
    line = " ".join(first.split())
    alone = bool(behind) and not behind.partition("\n")[0].strip()
    if not alone or len(line) > _LONGEST_TITLE or parse_headline(line) or not looks_like_title(line):
        return None
    return line.strip("_*= ") or None
