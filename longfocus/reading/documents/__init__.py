"""Documents of several formats as text with chapters and pages. A new format is one reader and one line here."""

from collections.abc import Callable
from pathlib import Path

from longfocus.reading.documents.document import Document
from longfocus.reading.documents.epub import read_epub
from longfocus.reading.documents.html import read_html
from longfocus.reading.documents.markdown import read_markdown
from longfocus.reading.documents.pdf import read_pdf
from longfocus.reading.documents.plain import read_plain
from longfocus.reading.documents.source import refusal, require_file

__all__ = ["READERS", "Document", "load_document"]

READERS: dict[str, Callable[[Path], Document]] = {
    ".txt": read_plain,
    ".text": read_plain,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".epub": read_epub,
    ".pdf": read_pdf,
}
"""The reader of each kind of document, by the file's suffix in lower case."""

_READ_PACKED = (read_plain, read_markdown)


def load_document(path: str | Path) -> Document:
    """Read a document by the reader that its suffix names; text files may be packed (`book.txt.gz`).

    DocumentError, in one line, where there is none that can be read.
    """
    path = Path(path)
    require_file(path)
    suffix = path.suffix.lower()
    packed = suffix == ".gz"
    reader = READERS.get(Path(path.stem).suffix.lower() if packed else suffix)
    if reader is None or (packed and reader not in _READ_PACKED):
        came = f"the suffix {suffix!r} names no kind of document" if suffix else "its name has no suffix"
        raise refusal(path, f"{came} that can be read. Known: {', '.join(READERS)}, and .txt.gz or .md.gz.")
    return reader(path)
