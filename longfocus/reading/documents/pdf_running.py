"""Running heads and feet of a PDF's pages: what a printer sets on page after page and no author wrote there.

A line belongs to them where it stands at the top or at the bottom of most pages, of most right-hand or of most
left-hand ones, or on several neighbours (a chapter's title over its pages). Numbers in it may differ if they count the
pages. What only looks so stays: a false find would take words from the book, a missed one leaves a line too many.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from longfocus.reading.documents.headline import parse_headline, roman_number

_MOST_LINES = 3
"""Lines of a head or a foot."""
_MOST = 1 / 2
_NEARLY_ALL = 3 / 4
_LEAST_PAGES = 3
_LEAST_NEIGHBOURS = 4
_LONGEST = 150

_NUMBER = re.compile(r"\d+")
_ROMAN = re.compile(r"(?<![^\W_])[ivxlc]+(?![^\W_])")
_LETTERS = re.compile(r"[^\W\d_]+")
_PAGE_WORDS = frozenset(
    {"page", "p", "pg", "pag", "seite", "s", "página", "pagina", "bladzijde", "blz", "sida", "side", "strona", "str"}
    | {"strana", "sivu", "oldal", "σελίδα", "страница", "стр", "с", "of", "von", "sur", "de", "di", "van", "av", "af"}
    | {"z", "ze", "из"}
)

_Key = tuple[str, int, int]
"""A line as it recurs: with `#` for each number, which of them counts the pages (or -1), and how far it is ahead."""


def without_running_lines(pages: Sequence[Sequence[str]]) -> list[list[str]]:
    """The pages' lines without running heads and feet, nor the blank lines between these and the text."""
    kept = [list(page) for page in pages]
    for end in (0, -1):
        for _ in range(_MOST_LINES):
            _trim(kept, end)
            running = _running(kept, end)
            if not running:
                break
            for index in running:
                del kept[index][end]
        _trim(kept, end)
    return kept


def _trim(pages: Sequence[list[str]], end: int) -> None:
    """Remove the blank lines at the pages' tops (`end` 0) or bottoms (-1)."""
    for lines in pages:
        from_the_end = lines if end == 0 else reversed(lines)
        blank = next((count for count, line in enumerate(from_the_end) if line), len(lines))
        del lines[slice(blank) if end == 0 else slice(len(lines) - blank, None)]


def _running(pages: Sequence[Sequence[str]], end: int) -> set[int]:
    """The pages of which the outermost line is a running one."""
    places: dict[_Key, list[int]] = defaultdict(list)
    with_text = [index for index, lines in enumerate(pages) if lines]
    sides = Counter(index % 2 for index in with_text)
    for index in with_text:
        for key in _keys(pages[index][end], index):
            places[key].append(index)
    running: set[int] = set()
    for (_, number, _), indices in places.items():
        if len(indices) < _LEAST_PAGES:
            continue
        # Over a part of the pages, the first that holds no page's number may be the heading which the others repeat.
        first = 0 if number >= 0 or len(indices) > _NEARLY_ALL * len(with_text) else 1
        if len(indices) > _MOST * len(with_text):
            running.update(indices[first:])
        for side in (0, 1):
            there = [index for index in indices if index % 2 == side]
            if len(there) >= _LEAST_PAGES and len(there) > _NEARLY_ALL * sides[side]:
                running.update(there)
        for chain in _chains(indices):
            running.update(chain[first:])
    return running


def _chains(indices: Sequence[int]) -> Iterator[list[int]]:
    """Pages next to each other, or every other one, enough of them to say that a line runs over them."""
    chain: list[int] = []
    for index in [*indices, None]:
        if index is not None and (not chain or index - chain[-1] <= 2):
            chain.append(index)
            continue
        if len(chain) >= _LEAST_NEIGHBOURS:
            yield chain
        chain = [] if index is None else [index]


def _keys(line: str, index: int) -> Iterator[_Key]:
    """In what ways the line of page `index` may recur: to the letter, and by each number that may count the pages."""
    if len(line) > _LONGEST:
        return
    yield line, -1, 0
    for pattern in (_NUMBER, _ROMAN):
        numbers = [_value(match[0]) for match in pattern.finditer(line)]
        shape = pattern.sub("#", line)
        if numbers and _may_count_pages(line, shape):
            yield from ((shape, slot, value - index) for slot, value in enumerate(numbers) if value is not None)


def _value(number: str) -> int | None:
    if number.isdecimal():
        return int(number) if len(number) < 10 else None
    return roman_number(number.upper())


def _may_count_pages(line: str, shape: str) -> bool:
    """Not so "Chapter 3" and "Question 3": one to a page, they count themselves."""
    words = [word.lower() for word in _LETTERS.findall(shape)]
    if all(word in _PAGE_WORDS for word in words):
        return True
    head = parse_headline(line)
    return len(words) > 1 and (head is None or head.kind == "numeral")
