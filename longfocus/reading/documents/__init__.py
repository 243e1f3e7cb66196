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

__all__ = ["KNOWN", "READERS", "Document", "load_document", "suffix_of"]

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

_PACKED = {f"{suffix}.gz": reader for suffix, reader in READERS.items() if reader in (read_plain, read_markdown)}
KNOWN = f"Known: {', '.join(READERS)}, and .txt.gz or .md.gz."
"""What to say where a file is no document."""


def suffix_of(name: str) -> str:
    """The suffix, in lower case, by which the file of this name is a document; empty where it is none."""
    fits = [suffix for suffix in (*READERS, *_PACKED) if name.lower().endswith(suffix) and len(name) > len(suffix)]
    return max(fits, key=len, default="")


def load_document(path: str | Path) -> Document:
    """Read a document by the reader that its suffix names; text files may be packed (`book.txt.gz`).

    DocumentError, in one line, where there is none that can be read.
    """
    path = Path(path)
    require_file(path)
    suffix = suffix_of(path.name)
    if not suffix:
        came = (
            f"the suffix {path.suffix.lower()!r} names no kind of document" if path.suffix else "its name has no suffix"
        )
        raise refusal(path, f"{came} that can be read. {KNOWN}")
    return (READERS | _PACKED)[suffix](path)
