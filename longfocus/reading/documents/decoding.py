r"""From bytes to text: which encoding a file is in, and whether it is text at all.

Encodings of plain text: UTF-32, UTF-16 and UTF-8 by their byte order mark; else UTF-8 where all of it is valid;
else Windows-1252; else Latin-1, which takes any byte. The text is exactly that of
`open(path, encoding=...).read()`: line ends become "\n", and UTF-8's byte order mark, which Python keeps, stays as
the text's first character (it lies outside a document's body), so that offsets hold in the user's own file.
"""

import codecs
import re
from pathlib import Path

from longfocus.reading.documents.source import refusal

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")
_MOST_CONTROLS = 0.05


def marked_encoding(data: bytes) -> str | None:
    """The encoding that the bytes announce by a byte order mark, if any."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def encoding_of(data: bytes) -> str:
    """Name of the encoding to open the bytes with, by the rule of this module; they may still be invalid in it."""
    marked = marked_encoding(data)
    if marked:
        return marked
    for encoding in ("utf-8", "cp1252"):
        try:
            data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def universal_newlines(text: str) -> str:
    r"""The text with "\r\n" and "\r" turned into "\n", as `open` does."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decode_text(data: bytes, path: Path, encoding: str | None = None) -> str:
    """The text of a file's bytes, in the encoding given or found; DocumentError for what is not text."""
    encoding = encoding or encoding_of(data)
    try:
        text = universal_newlines(data.decode(encoding))
    except UnicodeDecodeError as error:
        raise refusal(
            path, f"it begins like {encoding.upper()} but is not valid in it. Save it again as UTF-8."
        ) from error
    require_text(text, path)
    return text


def require_text(text: str, path: Path) -> None:
    """DocumentError where the text is blank, or is binary data that only decodes as text."""
    if "\0" in text or sum(1 for _ in _CONTROLS.finditer(text)) > _MOST_CONTROLS * len(text):
        raise refusal(path, "it holds binary data, not text. Check that the suffix fits the contents.")
    if not text.strip("\ufeff \t\r\n\f\v") or text.isspace():
        raise refusal(path, "there is nothing but white space in it. Give a document with text.")
