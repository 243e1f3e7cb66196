"""From headings to chapter sections: one list that tiles the text, whatever the nesting of its source.

A nested heading carries its ancestors in its label ("Part One › Chapter 2"), so that one flat list says it all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from longfocus.memory.sections import Section

_LONGEST_LABEL = 200
_MOST_LEVELS = 4


@dataclass(frozen=True)
class Heading:
    """A heading at character `start`; a smaller `level` is further out."""

    level: int
    label: str
    start: int


def chapter_sections(headings: Sequence[Heading], body: tuple[int, int]) -> tuple[Section, ...]:
    """Chapters from each heading to the next within the body, sorted by where they start.

    Headings come in the order of their source, which settles what is nested in what. Of several at the same
    place the last, which is the most deeply nested, names the stretch. The stretch before the first has no name.
    """
    sections: list[Section] = []
    placed = sorted(_joined(headings), key=lambda heading: heading.start)
    ends = [heading.start for heading in placed[1:]] + [body[1]]
    for heading, end in zip(placed, ends, strict=False):
        start, end = max(heading.start, body[0]), min(end, body[1])
        if start < end:
            sections.append(Section("chapter", heading.label, start, end))
    return tuple(sections)


def one_line(label: str) -> str:
    """A label with white space collapsed, and cut where it is longer than a heading can be."""
    label = " ".join(label.split())
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1].rstrip() + "…"


def _joined(headings: Sequence[Heading]) -> Iterable[Heading]:
    headings = [heading for heading in headings if one_line(heading.label)]
    # A single outermost heading at the front is the document's title: it would only repeat itself in every label.
    titled = len(headings) > 1 and all(headings[0].level < heading.level for heading in headings[1:])
    ancestors: list[Heading] = []
    for index, heading in enumerate(headings):
        while ancestors and ancestors[-1].level >= heading.level:
            ancestors.pop()
        labels = [one_line(label) for label in (*(parent.label for parent in ancestors), heading.label)]
        yield Heading(heading.level, " › ".join(list(dict.fromkeys(labels))[-_MOST_LEVELS:]), heading.start)
        if not (titled and index == 0):
            ancestors.append(heading)
