"""PDF: pages and outline as sections, paragraphs made whole, and files that cannot be read."""

import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from longfocus.reading.documents import Document, load_document
from longfocus.reading.documents.pdf_text import ParagraphJoiner, page_lines

RawPdf = Callable[..., bytes]
Refused = Callable[..., str]
ReadOrRefused = Callable[[Path], Document | None]

PAGES = (
    [
        "Chapter One",
        "The first line of a paragraph runs on and on to the",
        "very edge of the page and then it ends here.",
    ],
    ["Chapter Two", "Another paragraph that runs on and on to the edge", "of the page. Short end."],
    ["Words on the last page."],
)


def pdf(
    path: Path,
    pages: Sequence[Sequence[str]] = PAGES,
    before_page: Callable[[Canvas, int], None] | None = None,
    password: str | None = None,
    title: str | None = None,
) -> Path:
    encrypt = StandardEncryption(password, ownerPassword="owner", strength=128) if password is not None else None
    canvas = Canvas(str(path), pageCompression=0, encrypt=encrypt, invariant=1)
    if title is not None:
        canvas.setTitle(title)
    for index, lines in enumerate(pages):
        if before_page:
            before_page(canvas, index)
        text = canvas.beginText(72, 720)
        for line in lines:
            text.textLine(line)
        canvas.drawText(text)
        canvas.showPage()
    canvas.save()
    return path


def spans(document: Document, kind: str) -> dict[str, str]:
    return {s.label: document.text[s.start : s.end].strip() for s in document.sections if s.kind == kind}


def test_pages_are_sections(tmp_path: Path) -> None:
    document = load_document(pdf(tmp_path / "book.pdf"))
    one = (
        "Chapter One\nThe first line of a paragraph runs on and on to the very edge of the page and then it ends here."
    )
    two = "Chapter Two\nAnother paragraph that runs on and on to the edge of the page. Short end."
    assert document.text == f"{one}\n\n{two}\n\nWords on the last page."
    assert spans(document, "page") == {"1": one, "2": two, "3": "Words on the last page."}
    assert spans(document, "chapter") == {}
    assert document.body == (0, len(document.text))
    assert document.sections[-1].end == len(document.text)


def test_pages_without_text_have_no_section(tmp_path: Path) -> None:
    document = load_document(pdf(tmp_path / "a.pdf", [[], ["One page."], [], ["Another."], []]))
    assert document.text == "One page.\n\nAnother."
    assert spans(document, "page") == {"2": "One page.", "4": "Another."}


def test_page_labels(tmp_path: Path) -> None:
    def label(canvas: Canvas, index: int) -> None:
        if index == 0:
            canvas.addPageLabel(0, style="ROMAN_LOWER", start=4)
        if index == 1:
            canvas.addPageLabel(1, style="ARABIC", start=1)

    assert list(spans(load_document(pdf(tmp_path / "a.pdf", before_page=label)), "page")) == ["iv", "1", "2"]


def outlined(*entries: tuple[int, str, int]) -> Callable[[Canvas, int], None]:
    """Outline entries of page index, title and level, in the order given."""

    def mark(canvas: Canvas, index: int) -> None:
        for number, (page, title, level) in enumerate(entries):
            if page == index:
                canvas.bookmarkPage(f"entry{number}")
            if index == 0:
                canvas.addOutlineEntry(title, f"entry{number}", level)

    return mark


def test_chapters_by_the_outline(tmp_path: Path) -> None:
    marks = outlined((0, "Part  I", 0), (0, "Chapter One", 1), (0, "Detail", 2), (1, "CHAPTER TWO", 1), (2, "End", 0))
    document = load_document(pdf(tmp_path / "a.pdf", before_page=marks))
    chapters = spans(document, "chapter")
    assert list(chapters) == ["Part I › Chapter One", "Part I › CHAPTER TWO", "End"]
    assert chapters["Part I › CHAPTER TWO"].startswith("Chapter Two")
    assert [section.kind for section in document.sections] == ["chapter"] * 3 + ["page"] * 3


def test_chapters_start_where_their_words_stand(tmp_path: Path) -> None:
    pages = [["The end of something.", "", "Beginning", "Then it goes on."], ["More."]]
    document = load_document(pdf(tmp_path / "a.pdf", pages, outlined((0, "Beginning", 0), (1, "Nowhere", 0))))
    assert spans(document, "chapter") == {"Beginning": "Beginning\nThen it goes on.", "Nowhere": "More."}


def test_outline_out_of_order_is_sorted(tmp_path: Path) -> None:
    marks = outlined((2, "C", 0), (0, "A", 0), (1, "B", 0))
    assert list(spans(load_document(pdf(tmp_path / "a.pdf", before_page=marks)), "chapter")) == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("given_title", "title"),
    [
        ("My  Book", "My Book"),
        ("untitled", "book"),
        ("Microsoft Word - x.doc", "book"),
        ("x.indd", "book"),
        (None, "book"),
    ],
)
def test_title(tmp_path: Path, given_title: str | None, title: str) -> None:
    assert load_document(pdf(tmp_path / "book.pdf", title=given_title)).title == title


def test_characters_beyond_latin(tmp_path: Path) -> None:
    assert load_document(pdf(tmp_path / "a.pdf", [["Grüße, naïve café"]])).text == "Grüße, naïve café"


def test_encrypted_with_a_password(tmp_path: Path, refused: Refused) -> None:
    refused(pdf(tmp_path / "a.pdf", password="user"), "encrypted with a password")


def test_encrypted_with_the_empty_password(tmp_path: Path) -> None:
    assert "Words on the last page." in load_document(pdf(tmp_path / "a.pdf", password="")).text


AES = (
    b"/Encrypt<</Filter/Standard/V 5/R 6/Length 256/P -4/CF<</StdCF<</CFM/AESV3/Length 32>>>>/StmF/StdCF/StrF/StdCF"
    b"/O<%b>/U<%b>/OE<%b>/UE<%b>/Perms<%b>>>/ID[<00><00>]"
) % (b"ab" * 48, b"cd" * 48, b"ef" * 32, b"12" * 32, b"34" * 16)


def test_encrypted_with_aes(raw_pdf: RawPdf, tmp_path: Path, refused: Refused) -> None:
    """Where the package for it is missing, it is named; where it is here, a password is what is missing."""
    (tmp_path / "a.pdf").write_bytes(raw_pdf(b"", trailer=AES))
    found = find_spec("cryptography") or find_spec("Crypto")
    message = refused(tmp_path / "a.pdf", "with a password" if found else "pip install cryptography")
    assert len(message) < 250


def test_encryption_of_a_shop(raw_pdf: RawPdf, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "a.pdf").write_bytes(raw_pdf(b"", trailer=b"/Encrypt<</Filter/SomeShop/V 1>>/ID[<00><00>]"))
    refused(tmp_path / "a.pdf", "DRM")


def test_another_package_that_is_missing(raw_pdf: RawPdf, tmp_path: Path, refused: Refused) -> None:
    if find_spec("brotli") or find_spec("brotlicffi"):
        pytest.skip("brotli is here")
    (tmp_path / "a.pdf").write_bytes(raw_pdf(b"Words").replace(b"/FlateDecode", b"/BrotliDecode"))
    refused(tmp_path / "a.pdf", "package is missing .*brotli")


def test_pictures_only(tmp_path: Path, refused: Refused) -> None:
    refused(pdf(tmp_path / "a.pdf", [[], []]), "OCR")


def test_what_is_no_pdf(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "a.pdf").write_bytes(b"Words, not a PDF." * 9)
    refused(tmp_path / "a.pdf", "not a PDF")


def test_broken_file(
    tmp_path: Path, refused: Refused, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = pdf(tmp_path / "whole.pdf").read_bytes()
    (tmp_path / "a.pdf").write_bytes(whole[:400])
    refused(tmp_path / "a.pdf", "damaged")
    assert not caplog.records
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger("pypdf").level == logging.NOTSET


def test_end_cut_off_is_mended_or_refused(tmp_path: Path, read_or_refused: ReadOrRefused) -> None:
    whole = pdf(tmp_path / "whole.pdf").read_bytes()
    (tmp_path / "a.pdf").write_bytes(whole[: whole.rindex(b"xref")])
    document = read_or_refused(tmp_path / "a.pdf")
    assert document is None or "last page" in document.text


def test_stream_that_unpacks_without_end(tmp_path: Path, refused: Refused) -> None:
    writer = PdfWriter()
    writer.append(PdfReader(pdf(tmp_path / "whole.pdf")))
    content = writer.pages[0].get_contents()
    assert content is not None
    content.set_data(b" " * 80_000_000)
    writer.pages[0].replace_contents(content.flate_encode())
    path = tmp_path / "a.pdf"
    with path.open("wb") as file:
        writer.write(file)
    assert path.stat().st_size < 2**20
    refused(path, "unpacks to more")


def test_outline_that_runs_in_a_circle(tmp_path: Path) -> None:
    writer = PdfWriter()
    writer.append(PdfReader(pdf(tmp_path / "whole.pdf")))
    first = writer.add_outline_item(title="A", page_number=0)
    writer.add_outline_item(title="B", page_number=1).get_object()[NameObject("/Next")] = first
    with (tmp_path / "a.pdf").open("wb") as file:
        writer.write(file)
    document = load_document(tmp_path / "a.pdf")
    assert list(spans(document, "chapter")) == ["A", "B"]
    assert len(spans(document, "page")) == 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 3000),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=6),
)
def test_any_damage_gives_a_document_or_one_line(
    tmp_path: Path, read_or_refused: ReadOrRefused, cut: int, damage: list[tuple[float, bytes]]
) -> None:
    path = tmp_path / "a.pdf"
    data = bytearray(pdf(path, before_page=outlined((0, "A", 0), (1, "B", 0))).read_bytes())
    if not damage:
        del data[-cut:]
    for share, piece in damage:
        place = 9 + int(share * (len(data) - 9))
        data[place : place + len(piece)] = piece
    path.write_bytes(data)
    read_or_refused(path)


WIDE = "x" * 28 + " a line as wide as a line of the page can be"


def joined(*lines: str, elsewhere: str = "") -> str:
    page = page_lines("\n".join(lines))
    return ParagraphJoiner([page, [elsewhere], [WIDE] * 9]).joined(page)


@pytest.mark.parametrize(
    ("lines", "elsewhere", "text"),
    [
        ([WIDE, "and on"], "", f"{WIDE} and on"),
        (["A heading", WIDE], "", f"A heading\n{WIDE}"),
        ([WIDE, "", "", "next"], "", f"{WIDE}\n\nnext"),
        ([f"{WIDE} exam-", "ple on"], "An example.", f"{WIDE} example on"),
        ([f"{WIDE} well-", "known on"], "It is well known.", f"{WIDE} well-known on"),
        ([f"{WIDE} well-", "known on"], "", f"{WIDE} well-known on"),
        ([f"{WIDE} Anglo-", "Saxon"], "", f"{WIDE} Anglo- Saxon"),
        ([f"{WIDE} soft\xad", "ened"], "", f"{WIDE} softened"),
        (["", "", "a\tb  c", ""], "", "a b c"),
        ([], "", ""),
    ],
)
def test_paragraphs(lines: list[str], elsewhere: str, text: str) -> None:
    assert joined(*lines, elsewhere=elsewhere) == text


def test_characters_that_no_text_should_hold() -> None:
    assert page_lines("a\0b\ud800c\r\nd\fe\x07") == ["abc", "d", "e"]
