"""Markdown: the file's own characters, front matter left out of the body, chapters by its headings.

Reads headings only ("# ATX" and underlined ones, levels 1 to 3), not inside fenced code; the marks stay in the text.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from longfocus.reading.documents.decoding import decode_text
from longfocus.reading.documents.document import Document, trimmed
from longfocus.reading.documents.outline import Heading, chapter_sections, one_line
from longfocus.reading.documents.source import file_stem, read_bytes, refusal

_DEEPEST = 3
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?")
_CLOSING_HASHES = re.compile(r"(?:^|[ \t]+)#+[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_NOT_A_PARAGRAPH = re.compile(r"(?: {4}|\t| {0,3}(?:[-*+>|]|\d{1,9}[.)])(?:[ \t]|$))")
_FRONT_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(\S.*)$", re.I | re.M)
_MOST_FRONT_LINES = 500
_LONGEST_LINE = 1000
"""A longer line is no heading."""


def read_markdown(path: Path) -> Document:
    """Read a Markdown file. Its `text` is exactly what `open(path, encoding=...).read()` gives (see `decoding`)."""
    text = decode_text(read_bytes(path), path)
    front = _front_matter_end(text)
    body = trimmed(text, front, len(text))
    if body[0] == body[1]:
        raise refusal(path, "there is nothing behind its front matter. Give a document with text.")
    marked = front or int(text.startswith("\ufeff"))
    headings = [heading for heading in _headings(text, marked, body[1]) if heading.label]
    first = next((heading.label for heading in headings if heading.level == 1), None)
    title = _front_title(text[:front]) or first or file_stem(path)
    deep_enough = [heading for heading in headings if heading.level <= _DEEPEST]
    return Document(title, text, body, chapter_sections(deep_enough, body))


def _headings(text: str, start: int, end: int) -> Iterator[Heading]:
    fence = ""
    above: tuple[int, str] | None = None  # the line above, where it may be a heading that this line underlines
    fresh = True  # no paragraph is open above this line
    for line in text[start:end].split("\n"):
        marks = line if len(line) <= _LONGEST_LINE else ""
        opening, atx, underline = _FENCE.fullmatch(marks), _ATX.fullmatch(marks), _UNDERLINE.fullmatch(marks)
        plain = False
        if fence:
            if opening and opening[1].startswith(fence) and not opening[2].strip():
                fence = ""
        elif opening and not (opening[1][0] == "`" and "`" in opening[2]):
            fence = opening[1]
        elif atx:
            yield Heading(len(atx[1]), _plain(_CLOSING_HASHES.sub("", atx[2] or "")), start + line.index("#"))
        elif underline and above:
            yield Heading(1 if underline[1][0] == "=" else 2, _plain(above[1]), above[0])
        else:
            plain = bool(line.strip()) and not _NOT_A_PARAGRAPH.match(line)
        # Only the first line of a paragraph can be a heading of this kind: longer ones are rarely meant as such.
        above = (start + len(line) - len(line.lstrip()), line) if plain and fresh and marks else None
        fresh = not plain
        start += len(line) + 1


def _plain(label: str) -> str:
    """A heading's text without Markdown's marks: links, attributes, code, emphasis."""
    label = re.sub(r"!?\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])", r"\1", label)
    label = re.sub(r"[ \t]*\{[#.][^{}]*\}[ \t]*$", "", label)
    label = re.sub(r"(`+)(.+?)\1", r"\2", label)
    for _ in range(3):  # emphasis inside emphasis
        label = re.sub(r"(?<![\\*])(\*{1,3})(?=\S)(.+?)(?<=[^\s\\*])\1(?!\*)", r"\2", label)
    label = re.sub(r"(?<![\w\\])(_{1,3})(?=\S)(.+?)(?<=[^\s\\])\1(?!\w)", r"\2", label)
    return one_line(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", label))


def _front_matter_end(text: str) -> int:
    """Where the text goes on behind YAML or TOML front matter; 0 without any."""
    lines = text.lstrip("\ufeff").split("\n", _MOST_FRONT_LINES)
    opening = lines[0].rstrip()
    if opening not in ("---", "+++"):
        return 0
    closings = ("---", "...") if opening == "---" else ("+++",)
    for index, line in enumerate(lines[1:_MOST_FRONT_LINES], 1):
        if line.rstrip() in closings:
            block = lines[1:index]
            # Two rules with prose between them are no front matter.
            if any(re.match(r"[\w.\"'-]+\s*[:=]", entry) for entry in block):
                return len(text) - len("\n".join(lines[index + 1 :]))
            return 0
    return 0


def _front_title(front: str) -> str | None:
    match = _FRONT_TITLE.search(front)
    return one_line(match[1].strip().strip("\"'")) or None if match else None
