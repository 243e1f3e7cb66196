"""PDF files that are made to keep a reader busy: a bound on the work that does not depend on the machine."""

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pypdf import PdfReader
from pypdf.errors import LimitReachedError

from longfocus.reading.documents import load_document, pdf_work

RawPdf = Callable[..., bytes]
Refused = Callable[..., str]
WORDS = b"BT /F0 9 Tf 10 10 Td (Some words.) Tj ET\n"
SPACES = WORDS + b" " * 30_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pdf"


def test_pages_and_forms_are_read(raw_pdf: RawPdf, path: Path) -> None:
    path.write_bytes(raw_pdf(WORDS + b"/X0 Do", forms=(b"/X1 Do /X1 Do", WORDS)))
    assert load_document(path).text.split() == ["Some", "words."] * 3


def laughs(step: bytes) -> tuple[bytes, ...]:
    return (*(step.replace(b"@", b"/X%d" % number) for number in range(1, 21)), WORDS)


def unpacked(times: int) -> bytes:
    data = zlib.compress(b" " * 300_000_000, 9)
    for _ in range(times - 1):
        data = zlib.compress(data, 9)
    filters = b"/FlateDecode" * times
    return b"<</Length %d/Filter[%b]>>\nstream\n%b\nendstream" % (len(data), filters, data)


BOMBS: dict[str, Callable[[RawPdf], bytes]] = {
    "a heavy stream on many pages": lambda make: make(SPACES, pages=3000),
    "comments": lambda make: make(WORDS + b"%" * 30_000_000, pages=3000),
    "a name before a gap": lambda make: make(WORDS + b"/X0" + b" " * 20_000_000 + b"% " * 5_000_000, forms=(WORDS,)),
    "a string": lambda make: make(WORDS + b"(" * 30_000_000),
    "forms in forms": lambda make: make(b"/X0 Do", forms=laughs(b"@ Do @ Do @ Do")),
    "forms by escaped names": lambda make: make(b"/X#30 Do", forms=laughs(b"@ Do @ Do @ Do".replace(b"X", b"#58"))),
    "forms behind comments": lambda make: make(b"/X0 Do", forms=laughs(b"@ %c\nDo @ % Do\n%\r Do @ Do")),
    "forms behind strings": lambda make: make(b"/X0 Do", forms=laughs(b"(a (b) % ) @ Do (\\)) @ (c) Do @ Do")),
    "forms behind a picture": lambda make: make(
        b"/X0 Do", forms=laughs(b"BI /W 1/H 1/BPC 8/CS/G ID ( EI @ Do @ Do @ Do BI /W 1/H 1/BPC 8/CS/G ID ) EI ")
    ),
    "a form that draws itself": lambda make: make(b"/X0 Do", forms=(b"/X1 Do", b"/X0 Do")),
    "a font of long characters": lambda make: make(
        WORDS, font=b"/ToUnicode 5 0 R", more=(b"<</Length 820>>\nstream\n<57> <%b>\nendstream" % (b"0041" * 200),)
    ),
    "one stream many times on a page": lambda make: make(SPACES).replace(
        b"/Contents 3 0 R", b"/Contents[%b]" % (b"3 0 R " * 9000)
    ),
    "a stream packed twice": lambda make: make(WORDS, more=(unpacked(2),)).replace(b"/Contents 3", b"/Contents 5"),
    "pages in a tree of trees": lambda make: make(
        WORDS,
        catalog=b"/Pages 5 0 R",
        more=tuple(b"<</Type/Pages/Count 9/Kids[%b]>>" % (b"%d 0 R " % (6 + depth) * 10) for depth in range(9)),
    ).replace(b"/Pages 2 0 R", b"", 1),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.timeout(30)
def test_bombs(bomb: Callable[[RawPdf], bytes], raw_pdf: RawPdf, path: Path, refused: Refused) -> None:
    data = bomb(raw_pdf)
    assert len(data) < 2**20
    path.write_bytes(data)
    refused(path, "unpacks to more, or asks for more work")


CIRCLES = {
    "page labels": {"catalog": b"/PageLabels 5 0 R", "more": (b"<</Kids[5 0 R 5 0 R]>>",)},
    "an outline": {
        "catalog": b"/Outlines 5 0 R",
        "more": (b"<</First 6 0 R>>", b"<</Title(A)/First 6 0 R/Next 6 0 R/Dest[7 0 R/Fit]>>"),
    },
    "names": {
        "catalog": b"/Names<</Dests 5 0 R>>/Outlines 6 0 R",
        "more": (b"<</Kids[5 0 R 5 0 R]>>", b"<</First 7 0 R>>", b"<</Title(A)/Dest(x)>>"),
    },
    "tables of objects": {"trailer": b"/Prev 9"},
}


@pytest.mark.parametrize("parts", CIRCLES.values(), ids=CIRCLES)
@pytest.mark.timeout(30)
def test_circles_beside_the_pages_cost_no_text(parts: dict[str, bytes], raw_pdf: RawPdf, path: Path) -> None:
    path.write_bytes(raw_pdf(WORDS, **parts))
    assert load_document(path).text == "Some words."


def test_pages_in_a_circle(raw_pdf: RawPdf, path: Path, refused: Refused) -> None:
    path.write_bytes(raw_pdf(WORDS).replace(b"/Kids[5 0 R]", b"/Kids[2 0 R]"))
    refused(path, "damaged")


def test_forms_count_as_often_as_they_are_drawn_and_memory_once(raw_pdf: RawPdf, path: Path) -> None:
    page, form, pages = 100_000, 300_000, 3
    path.write_bytes(raw_pdf(b"/X0 Do".ljust(page), pages=pages, forms=(b"/X1 Do /X1 Do", WORDS.ljust(form))))
    drawn = page + 2 * form
    expected = pages * (drawn + drawn**2 / pdf_work._LENGTH_WHERE_DOUBLED) + page + form

    def charge(most: float) -> None:
        work = pdf_work.PageWork(int(most))
        for one in PdfReader(path).pages:
            work.charge(one)

    charge(1.01 * expected)
    with pytest.raises(LimitReachedError):
        charge(0.99 * expected)


def test_what_a_text_says_draws_nothing(raw_pdf: RawPdf, path: Path) -> None:
    """A page beside a heavy form, in whose words the operator's name occurs."""
    said = b"BT /F0 9 Tf 10 10 Td (Do (/X0 Do) What Do \\) /X0 Do) Tj ET %% /X0 Do\n" * 100
    path.write_bytes(raw_pdf(said + b"/X0 Do /None Do", forms=(WORDS.ljust(5_000_000),)))
    assert load_document(path).text.count("What Do") == 100


def test_a_long_and_an_ordinary_page_are_within_the_bound(raw_pdf: RawPdf, path: Path) -> None:
    """A page of 10,000 lines; and 3,000 pages of the length of a novel's."""
    work = pdf_work.PageWork()
    for content, pages in ((WORDS * 10_000, 1), (WORDS * 100, 3000)):
        path.write_bytes(raw_pdf(content, pages=pages))
        for page in PdfReader(path).pages:
            work.charge(page)
