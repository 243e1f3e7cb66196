"""From a page's tree to its text as a browser shows it: blocks in order, white space collapsed, hidden parts left out.

Paragraphs are separated by a blank line, list items begin with "- ", a table's rows are lines with tabs between cells.
No-break spaces become plain spaces and soft hyphens are left out, so that a quotation of the text can be found in it.
"""

import re
from dataclasses import dataclass, field

from longfocus.reading.documents.markup import Element, inner_text, local_name
from longfocus.reading.documents.outline import Heading

_LEFT_OUT = frozenset(
    {"head", "script", "style", "noscript", "noframes", "template", "svg", "nav", "iframe", "object", "embed"}
    | {"video", "audio", "canvas", "map", "select", "datalist", "textarea", "input", "rp", "rt", "annotation"}
)
_BLOCKS = frozenset(
    {"html", "body", "p", "div", "section", "article", "main", "header", "footer", "aside", "address", "blockquote"}
    | {"center", "form", "fieldset", "details", "ul", "ol", "dl", "menu", "table", "pre", "figure", "hr", "hgroup"}
    | {"h1", "h2", "h3", "h4", "h5", "h6"}
)
_LINES = frozenset({"li", "dt", "dd", "tr", "caption", "figcaption", "legend", "summary", "option"})
# These part the text around them even where they are left out themselves.
_PARTING = _BLOCKS | {"nav"}
_LISTS = frozenset({"ul", "ol", "menu"})
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3}
# A table that holds one of these lays out a page: its cells are blocks of text, not values in a row.
_LAID_OUT = _LISTS | {"table", "dl", "pre", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6"}
# Of a heading that is never closed: enough for any label.
_MOST_PIECES = 400
_SPACE = re.compile("[ \t\n\r\f\xa0]+")
_HIDING = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.I)


@dataclass(frozen=True)
class Flow:
    """A page as text: its headings (levels 1 to 3) and the elements that links may point at, by their offsets."""

    text: str
    headings: tuple[Heading, ...]
    anchors: dict[str, int]


def flow_of(root: Element) -> Flow:
    """The page's text with its headings and anchors."""
    writer = _Writer()
    layout = _layout_tables(root)
    # An explicit stack: a page's nesting must not depend on Python's recursion limit.
    stack = [_Open(root, layout)]
    stack[0].enter(writer)
    while stack:
        child = next(stack[-1].children, None)
        if child is None:
            done = stack.pop()
            done.leave(writer)
            if stack:
                writer.text(done.element.tail or "")
        elif _is_hidden(child):
            if local_name(child) in _PARTING:
                writer.line_breaks(2)
            writer.text(child.tail or "")
        else:
            stack.append(_Open(child, layout))
            stack[-1].enter(writer)
    return writer.flow()


def page_title(root: Element) -> str | None:
    """The page's <title>, or else its first <h1>, where it has text."""
    # Inside a picture, <title> names a part of the picture.
    named = [element for element in root.iter() if local_name(element) in ("title", "h1") and not _in_picture(element)]
    named.sort(key=lambda element: local_name(element) != "title")
    return next((title for element in named if (title := inner_text(element))), None)


def _in_picture(element: Element) -> bool:
    return any(local_name(parent) == "svg" for parent in element.iterancestors())


def _is_hidden(element: Element) -> bool:
    name = local_name(element)
    return (
        not name
        or name in _LEFT_OUT
        or "hidden" in element.attrib
        or element.get("aria-hidden") == "true"
        or bool(_HIDING.search(element.get("style") or ""))
    )


def _layout_tables(root: Element) -> frozenset[Element]:
    found = set()
    for element in root.iter():
        if local_name(element) in _LAID_OUT:
            table = _table_of(element)
            if table is not None:
                found.add(table)
    return frozenset(found)


@dataclass(eq=False)
class _Mark:
    """A place in the text that is known only when the next words are written."""

    start: int = -1
    piece: int = -1


@dataclass
class _Writer:
    """Collects words; breaks and prefixes are held back until words follow, so that none stand at an end."""

    pieces: list[str] = field(default_factory=list)
    length: int = 0
    newlines: int = 0
    space: bool = False
    prefix: str = ""
    verbatim: int = 0
    in_cell: int = 0
    waiting: list[_Mark] = field(default_factory=list)
    anchors: dict[str, _Mark] = field(default_factory=dict)
    headings: list[Heading] = field(default_factory=list)

    def line_breaks(self, count: int) -> None:
        """Ask for at least this many line breaks before the next words; inside a table's cell, for a space."""
        if self.in_cell:
            self.space = True
        else:
            self.newlines = max(self.newlines, count)
            self.space = False

    def text(self, text: str) -> None:
        """Add text that stands in the page at this place."""
        text = text.replace("\xad", "")
        if self.verbatim and not self.in_cell:
            words = text.strip("\n")
            self.newlines += len(text) - len(text.lstrip("\n"))
            if words:
                self._write(words)
                self.newlines = len(text) - len(text.rstrip("\n"))
            return
        words = _SPACE.sub(" ", text)
        self.space = self.space or words.startswith(" ")
        if words.strip(" "):
            self._write(words.strip(" "))
            self.space = words.endswith(" ")

    def mark(self) -> _Mark:
        """A mark at the next words."""
        mark = _Mark()
        self.waiting.append(mark)
        return mark

    def end_heading(self, level: int, mark: _Mark) -> None:
        """Note a heading that began at the mark, where words came since."""
        if mark.start >= 0:
            label = "".join(self.pieces[mark.piece : mark.piece + _MOST_PIECES])
            self.headings.append(Heading(level, label, mark.start))

    def flow(self) -> Flow:
        anchors = {name: self.length if mark.start < 0 else mark.start for name, mark in self.anchors.items()}
        text = "".join(self.pieces)
        return Flow(text, tuple(self.headings), anchors) if text.strip() else Flow("", (), dict.fromkeys(anchors, 0))

    def _write(self, words: str) -> None:
        gap = ("\n" * self.newlines if self.pieces else "") + self.prefix
        if not gap and self.space and self.pieces:
            gap = " "
        if gap:
            self._add(gap)
        for mark in self.waiting:
            mark.start, mark.piece = self.length, len(self.pieces)
        self.waiting.clear()
        self._add(words)
        self.newlines, self.space, self.prefix = 0, False, ""

    def _add(self, piece: str) -> None:
        self.pieces.append(piece)
        self.length += len(piece)


class _Open:
    """An element being read: what it writes before and after its content."""

    def __init__(self, element: Element, layout: frozenset[Element]) -> None:
        self.element = element
        self.name = local_name(element)
        self.children = iter(element)
        self.heading: _Mark | None = None
        table = _table_of(element) if self.name in ("td", "th") else None
        self.is_cell = table is not None and table not in layout
        self.is_block = self.name in _BLOCKS or (self.name in ("td", "th") and not self.is_cell)

    def enter(self, writer: _Writer) -> None:
        for key in ("id", "name"):
            if target := self.element.get(key):
                writer.anchors.setdefault(target, writer.mark())
        if self.is_cell:
            self._enter_cell(writer)
        elif self.is_block:
            # A list inside a list goes on at the next line; other blocks stand apart.
            nested = self.name in _LISTS and self._depth() > 1
            writer.line_breaks(1 if nested else 2)
        elif self.name in _LINES:
            writer.line_breaks(1)
        elif self.name == "br":
            self._break(writer)
        elif self.name == "q":
            writer.text("“")
        if self.name == "li":
            writer.prefix = "  " * (max(self._depth(), 1) - 1) + "- "
        if self.name in _HEADINGS:
            self.heading = writer.mark()
        text = self.element.text or ""
        if self.name == "pre":
            writer.verbatim += 1
            text = text.removeprefix("\n")
        writer.text(text)

    def leave(self, writer: _Writer) -> None:
        if self.name == "pre":
            writer.verbatim -= 1
        if self.heading is not None:
            writer.end_heading(_HEADINGS[self.name], self.heading)
        if self.name in ("li", "tr"):
            writer.prefix = ""
        if self.name == "q":
            writer.text("”")
        if self.is_cell:
            writer.in_cell -= 1
        elif self.is_block:
            writer.line_breaks(2)
        elif self.name in _LINES:
            writer.line_breaks(1)

    def _enter_cell(self, writer: _Writer) -> None:
        if any(local_name(cell) in ("td", "th") for cell in self.element.itersiblings(preceding=True)):
            writer.prefix += "\t"
            writer.space = False
        writer.in_cell += 1

    def _break(self, writer: _Writer) -> None:
        if writer.in_cell:
            writer.space = True
        else:
            writer.newlines, writer.space = min(writer.newlines + 1, 2), False

    def _depth(self) -> int:
        """How many lists the element is or stands in."""
        return (self.name in _LISTS) + sum(local_name(parent) in _LISTS for parent in self.element.iterancestors())


def _table_of(element: Element) -> Element:
    return next((parent for parent in element.iterancestors() if local_name(parent) == "table"), None)
