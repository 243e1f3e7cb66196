"""PDF: running heads and feet are left out, what only looks like them stays, and pages keep their exact places."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reportlab.pdfgen.canvas import Canvas

from longfocus.reading.documents import load_document
from longfocus.reading.documents.pdf_running import without_running_lines

COUNT = 9
ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
PLACES = ("river", "harbour", "garden", "bridge", "station", "market", "tower", "museum", "school")


def body(page: int) -> list[str]:
    """Lines that no other page has."""
    return [f"They came to the {PLACES[page]} at noon,", "", f"and left the {PLACES[page]} again."]


def kept(head: Callable[[int], Sequence[str]], foot: Callable[[int], Sequence[str]]) -> list[list[str]]:
    """What is left of each page beside its body."""
    lines = without_running_lines([[*head(page), *body(page), *foot(page)] for page in range(COUNT)])
    for page, left in enumerate(lines):
        assert [line for line in left if line in body(page)] == body(page)
    return [[line for line in left if line not in body(page)] for page, left in enumerate(lines)]


def nothing(page: int) -> list[str]:
    return []


RUNNING: dict[str, Callable[[int], Sequence[str]]] = {
    "a title": lambda page: ["A BOOK OF WALKS"],
    "a title and a number": lambda page: [f"A Book of Walks {page + 17}"],
    "a number and a title": lambda page: [f"{page + 17} A Book of Walks", ""],
    "numbers": lambda page: [str(page + 1)],
    "numbers between dashes": lambda page: [f"- {page + 1} -"],
    "roman numbers": lambda page: [ROMAN[page]],
    "pages of all": lambda page: [f"Page {page + 1} of {COUNT}"],
    "Seite": lambda page: [f"Seite {page + 1} von {COUNT}"],
    "lines on several lines": lambda page: ["", "A Book of Walks", "", f"1 May 2024 Page {page + 1}", ""],
    "left and right": lambda page: [f"{page + 1} A BOOK OF WALKS" if page % 2 else f"In the Morning {page + 1}"],
    "on all but the first": lambda page: ["A BOOK OF WALKS"] if page else [],
    "on right-hand pages only": lambda page: ["A Book of Walks"] if page % 2 == 0 else [],
}


@pytest.mark.parametrize("lines", RUNNING.values(), ids=RUNNING)
def test_running_heads_and_feet_are_left_out(lines: Callable[[int], Sequence[str]]) -> None:
    assert kept(lines, nothing) == [[]] * COUNT
    assert kept(nothing, lines) == [[]] * COUNT
    assert kept(lines, lambda page: [f"Press, {page + 1}"]) == kept(nothing, lambda page: [f"Press, {page + 1}"])


STAYING: dict[str, Callable[[int], Sequence[str]]] = {
    "chapters, one to a page": lambda page: [f"Chapter {page + 1}"],
    "questions, one to a page": lambda page: [f"Question {page + 1}"],
    "numbers that do not count the pages": lambda page: [str(page * page)],
    "poems by numerals": lambda page: [ROMAN[page].upper()],
    "a word that comes back": lambda page: ["Refrain" if page in (0, 4, 5, 8) else f"Verse at the {PLACES[page]}"],
    "lines of their own": lambda page: [f"The {PLACES[page]} was closed."],
}


@pytest.mark.parametrize("lines", STAYING.values(), ids=STAYING)
def test_what_only_looks_like_them_stays(lines: Callable[[int], Sequence[str]]) -> None:
    assert kept(lines, nothing) == [list(lines(page)) for page in range(COUNT)]
    assert kept(nothing, lines) == [list(lines(page)) for page in range(COUNT)]


def test_a_title_on_a_page_of_its_own_form_stays() -> None:
    """The first page says it without a number: there it is the document's title."""
    assert kept(lambda page: [f"A Book of Walks {page + 1}" if page else "A Book of Walks"], nothing) == [
        ["A Book of Walks"],
        *[[]] * (COUNT - 1),
    ]


def test_a_chapter_over_its_pages_stays_where_it_begins() -> None:
    chapters = ["Morning"] * 5 + ["Evening"] * 4
    assert kept(lambda page: [chapters[page]], nothing) == [["Morning"], *[[]] * 4, ["Evening"], *[[]] * 3]


def test_two_pages_are_too_few_to_tell() -> None:
    pages = [["A BOOK", "one"], ["A BOOK", "two"]]
    assert without_running_lines(pages) == pages


words = st.sampled_from(["", "The Walk", "Page 1", "Page 2", "1", "2", "3", "iv", "Chapter 1", "text", "more text"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(words, max_size=8), max_size=9))
def test_lines_are_left_out_at_the_ends_only(pages: list[list[str]]) -> None:
    found = without_running_lines(pages)
    assert len(found) == len(pages)
    for before, after in zip(pages, found, strict=True):
        starts = range(len(before) - len(after) + 1)
        assert any(before[start : start + len(after)] == after for start in starts)
        assert sum(map(bool, before)) - sum(map(bool, after)) <= 6
        assert not after or (after[0] and after[-1])


def test_pages_keep_their_exact_places(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    canvas = Canvas(str(path), invariant=1)
    for page in range(COUNT):
        if page != 3:  # a picture's
            canvas.drawString(72, 780, f"A Book of Walks {page + 1}")
            canvas.drawString(72, 700, f"They came to the {PLACES[page]} at noon.")
            canvas.drawString(72, 60, "The Press")
        canvas.showPage()
    canvas.save()
    document = load_document(path)
    pages = {section.label: document.text[section.start : section.end].strip() for section in document.sections}
    assert pages == {str(page + 1): f"They came to the {PLACES[page]} at noon." for page in range(COUNT) if page != 3}
    assert document.text == "\n\n".join(pages.values())


def test_nothing_besides_heads_and_feet(tmp_path: Path, refused: Callable[..., str]) -> None:
    """Pages of pictures with a stamp on each."""
    path = tmp_path / "a.pdf"
    canvas = Canvas(str(path), invariant=1)
    for _ in range(COUNT):
        canvas.drawString(72, 780, "Copy of the library")
        canvas.showPage()
    canvas.save()
    refused(path, "no text besides heads and feet.*OCR")


def test_many_pages_are_quick() -> None:
    pages = [[f"{page + 1} of a long book", *body(page % COUNT), f"line {page}"] for page in range(20_000)]
    assert all(lines[0] == body(page % COUNT)[0] for page, lines in enumerate(without_running_lines(pages)))
