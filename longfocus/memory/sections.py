"""Named stretches of a document: the chapters and pages that citations point to."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SectionKind = Literal["chapter", "page"]


@dataclass(frozen=True)
class Section:
    """A chapter or a page: characters `start` (included) to `end` (excluded) of the document's text."""

    kind: SectionKind
    label: str
    start: int
    end: int


def section_at(sections: Sequence[Section], kind: SectionKind, position: int) -> str | None:
    """Label of the section of this kind that holds character `position`; None where no section does.

    Sections of one kind must be sorted by `start` and may not overlap.
    """
    of_kind = [section for section in sections if section.kind == kind]
    index = bisect_right([section.start for section in of_kind], position) - 1
    if index >= 0 and position < of_kind[index].end:
        return of_kind[index].label
    return None
