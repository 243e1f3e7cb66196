"""Chapters of plain text: which lines that read like headings really head a chapter.

Conservative: a wrong chapter in a citation misleads, a missing one does not. A heading stands between blank lines,
not in a table of contents; bare numerals count only in a sequence from one; a preface counts only before others.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from longfocus.reading.documents.headline import Headline, bare_line, fits_as_title, parse_headline
from longfocus.reading.documents.outline import Heading

_MOST_LINES = 3
"""Lines of a heading, or of the title under it."""
_MOST_TITLE = 160
_MOST_BLANKS = 5
"""Blank lines between a heading and the title under it."""

_CONTENTS_RUN = 3
"""From how many headings of one kind with next to nothing between them they are a table of contents."""
_CONTENTS_GAP = 120
_LIST_GAP = 8

# Numerals closer than this on average are a page's numbers, a poem's stanzas or a list's items.
_LEAST_ARABIC = 3000
_LEAST_NESTED = 1500


@dataclass(frozen=True)
class _Found:
    """A line that reads like a heading, with the title under it: `end` is where both end."""

    head: Headline
    label: str
    start: int
    end: int


def find_headings(text: str, body: tuple[int, int]) -> list[Heading]:
    """The headings of a plain text's body, in order, with levels by kind: parts, chapters, numerals."""
    found = _without_contents(text, list(_candidates(text, body)))
    found = _without_idle_fronts(_without_stray_numerals(found))
    parts = list(dict.fromkeys(item.head.word for item in found if item.head.kind == "part"))
    headings: list[Heading] = []
    inner = len(parts)
    for item in reversed(found):
        head = item.head
        if head.kind == "part":
            level = parts.index(head.word)
        elif head.kind == "front":
            level = headings[-1].level  # beside what it opens
        else:
            level = {"back": 0, "chapter": inner}.get(head.kind, inner + 1)
        headings.append(Heading(level, item.label, item.start))
    return headings[::-1]


def _candidates(text: str, body: tuple[int, int]) -> Iterator[_Found]:
    lines = text[body[0] : body[1]].split("\n")
    starts = list(accumulate((len(line) + 1 for line in lines), initial=body[0]))
    blank = True
    below = 0  # the first line behind the last heading's title
    for index, line in enumerate(lines):
        after_blank, blank = blank and index >= below, not line or line.isspace()
        head = parse_headline(line) if after_blank and not blank else None
        if head is None:
            continue
        end = _block_end(lines, index)
        inner = parse_headline(lines[index + 1]) if end - index > 1 else None
        if inner and inner.word == head.word:
            continue  # a list of headings
        if inner and _stands_alone(head, inner):
            blank, end = True, index + 1  # "PART ONE" on the line above "CHAPTER I"
        rest = _joined(lines[index + 1 : end])
        if end - index > _MOST_LINES or (rest and not fits_as_title(rest, head)):
            continue  # the line opens a paragraph
        title = rest if not head.title else ""
        label = f"{head.text} {rest}" if head.title and rest else head.text
        if not head.title and not title and not blank:
            end, title = _title_below(lines, end, head)
        if title:
            label = f"{head.text.rstrip('.:')} — {title}"
        below = end
        yield _Found(head, label, starts[index] + line.index(bare_line(line)), min(starts[end], body[1]))


def _title_below(lines: Sequence[str], end: int, head: Headline) -> tuple[int, str]:
    """Where a short title under a bare heading ends, and the title; the same end and "" where there is none."""
    start = end
    while start < len(lines) and not lines[start].strip() and start - end < _MOST_BLANKS:
        start += 1
    stop = _block_end(lines, start)
    title = _joined(lines[start:stop])
    if not 0 < stop - start <= _MOST_LINES or len(title) > _MOST_TITLE or not fits_as_title(title, head):
        return end, ""
    below = parse_headline(lines[start])
    return (end, "") if below and _stands_alone(head, below) else (stop, title)


def _stands_alone(head: Headline, below: Headline) -> bool:
    """Whether what reads like a heading below another is one of its own: not so "Conclusion" below "XXVIII"."""
    return head.kind == "part" or below.kind not in ("front", "back")


def _block_end(lines: Sequence[str], start: int) -> int:
    """Index of the first blank line from `start`, looking only as far as a heading can reach."""
    end = start
    while end < len(lines) and lines[end].strip() and end - start <= _MOST_LINES:
        end += 1
    return end


def _joined(lines: Sequence[str]) -> str:
    return " ".join(" ".join(bare_line(line).split()) for line in lines).strip()


def _without_contents(text: str, found: list[_Found]) -> list[_Found]:
    """Leave out tables of contents: headings that follow each other closely and come again later."""
    kept: list[_Found] = []
    later: set[int | str] = set()  # what is numbered or named behind the run
    for run in reversed(_close_runs(text, found)):
        if max(Counter(item.head.word for item in run).values()) >= _CONTENTS_RUN:
            is_list = all(_gap(text, one, two) <= _LIST_GAP for one, two in pairwise(run))
            listed = run[0].head.word if is_list else None
            kept += [item for item in reversed(run) if item.head.word != listed and _sign(item) not in later]
        else:
            kept += reversed(run)
        later.update(map(_sign, run))
    return kept[::-1]


def _sign(item: _Found) -> int | str:
    """What tells that two headings are the same in the table of contents and in the book."""
    return item.head.number or item.head.word


def _close_runs(text: str, found: list[_Found]) -> list[list[_Found]]:
    """The headings in stretches with little between them and rising numbers."""
    runs: list[list[_Found]] = []
    last: dict[str, int] = {}
    outermost = 0
    for item in found:
        head = item.head
        # Where the numbers fall back, or a part opens behind mere chapters, the book itself has begun.
        restarts = head.number is not None and head.number <= last.get(head.word, 0)
        if not runs or restarts or head.rank < outermost or _gap(text, runs[-1][-1], item) > _CONTENTS_GAP:
            runs.append([])
            last, outermost = {}, head.rank
        runs[-1].append(item)
        if head.kind == "part":
            last = {}
        last[head.word] = head.number or 0
    return runs


def _gap(text: str, one: _Found, two: _Found) -> int:
    """Characters of text between two headings; white space does not count beyond one space."""
    if two.start - one.end > 10 * _CONTENTS_GAP:
        return two.start - one.end
    return len(" ".join(text[one.end : two.start].split()))


def _without_stray_numerals(found: list[_Found]) -> list[_Found]:
    """Keep bare numerals that run from one upwards, or that carry on the numbers of the chapters before them."""
    kept: list[_Found] = []
    run: list[_Found] = []
    chapter = 0
    for item in found:
        head, number = item.head, item.head.number or 0
        if head.kind == "chapter":
            kept += _worthy(run, nested=chapter > 0)
            run, chapter = [], number
        if head.kind != "numeral":
            kept.append(item)
        elif run and head.word == run[-1].head.word and 0 < number - (run[-1].head.number or 0) <= 3:
            run.append(item)
        elif chapter and number == chapter + 1:
            kept += [*_worthy(run, nested=True), replace(item, head=replace(head, kind="chapter", word="chapter"))]
            run, chapter = [], number
        elif number == 1:
            kept += _worthy(run, nested=chapter > 0)
            run = [item]
    return sorted(kept + _worthy(run, nested=chapter > 0), key=lambda item: item.start)


def _worthy(run: list[_Found], nested: bool) -> list[_Found]:
    if len(run) < 2:
        return []
    least = _LEAST_ARABIC if run[0].head.word == "arabic" else _LEAST_NESTED if nested else 0
    return run if run[-1].start - run[0].start >= least * (len(run) - 1) else []


def _without_idle_fronts(found: list[_Found]) -> list[_Found]:
    """Drop a preface behind which no numbered heading was found: the whole book would pass for the preface."""
    numbered = max((index for index, item in enumerate(found) if item.head.number is not None), default=-1)
    return [item for index, item in enumerate(found) if item.head.kind != "front" or index < numbered]
