"""Project Gutenberg's header and licence: where the book itself begins and ends, and what it is called.

Knows the current markers ("*** START OF THE PROJECT GUTENBERG EBOOK ... ***"), the "End of Project Gutenberg's ..."
line before the closing one, and the "small print" of the 1990s. A text without them is all body.
"""

import re

from longfocus.reading.documents.document import trimmed
from longfocus.reading.documents.outline import one_line

_PROJECT = r"OF[ ](?:THE|THIS)[ ](?:COPYRIGHTED[ ])?PROJECT[ ]GUTENBERG[ ]E(?:BOOK|TEXT)\b"
# The book's title may run over a few lines before the closing stars.
_START = re.compile(rf"^[ \t]*\*\*\*[ ]?START[ ]{_PROJECT}(?:(?:[^*\n]*\n){{0,3}}[^*\n]*\*\*\*)?[^\n]*$", re.I | re.M)
_END = re.compile(rf"^[ \t]*\*\*\*[ ]?END[ ]{_PROJECT}", re.I | re.M)
_END_LINE = re.compile(r"^[ \t]*End of (?:the |this )?Project Gutenberg(?:['’]s|\s+E(?:Book|text))\b", re.I | re.M)
_SMALL_PRINT_OPENS = re.compile(r"^[^\n]*\*START\*+\s*THE SMALL PRINT", re.I | re.M)
_SMALL_PRINT_CLOSES = re.compile(r"^\*END[* ]*THE SMALL PRINT[^\n]*$", re.I | re.M)
_TITLE = re.compile(r"^Title:[ \t]*(\S[^\n]*(?:\n[ \t]+\S[^\n]*)*)", re.M)

_CLOSING_LINES = 600
"""How far before the closing marker the line "End of Project Gutenberg's ..." may stand, in characters."""


def body_of(text: str) -> tuple[int, int]:
    """Start and end of the book within the text, without surrounding white space."""
    start = _body_start(text)
    end = _body_end(text, start)
    body = trimmed(text, start, end)
    return body if body[0] < body[1] else trimmed(text, 0, len(text))


def title_of(text: str, body_start: int) -> str | None:
    """The book's title by the header's "Title:" line, where there is a header."""
    match = _TITLE.search(text, 0, body_start) if _body_start(text) else None
    return one_line(match[1]) if match else None


def _body_start(text: str) -> int:
    opening = _START.search(text)
    start = opening.end() if opening else 0
    small_print = _SMALL_PRINT_CLOSES.search(text, start)
    # In some early books the small print stands at the end instead.
    if small_print and small_print.end() < len(text) // 2:
        start = small_print.end()
    return start


def _body_end(text: str, start: int) -> int:
    # The last marker counts: a file that holds several books must not lose those behind the first.
    markers = [match.start() for match in _END.finditer(text, start)]
    end = markers[-1] if markers else len(text)
    lines = [match.start() for match in _END_LINE.finditer(text, start, end)]
    if lines and (not markers or end - lines[-1] < _CLOSING_LINES):
        end = lines[-1]
    small_print = _SMALL_PRINT_OPENS.search(text, max(start, len(text) // 2), end)
    return small_print.start() if small_print else end
