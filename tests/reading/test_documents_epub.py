"""EPUB: pages in reading order, chapters by the book's contents, and archives that are broken or mean harm."""

import struct
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longfocus.errors import DocumentError
from longfocus.reading.documents import Document, epub_archive, load_document
from longfocus.reading.documents.epub_archive import linked_path

Refused = Callable[..., str]
ReadOrRefused = Callable[[Path], Document | None]

CONTAINER = (
    '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
    '<rootfiles><rootfile full-path="{0}" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
OPF = (
    '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
    '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title> My \n Book </dc:title></metadata>'
    "<manifest>{items}</manifest><spine{toc}>{refs}</spine></package>"
)
PAGE = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>t</title></head><body>{}</body></html>'
NAV = '<nav xmlns:epub="http://www.idpf.org/2007/ops" epub:type="{}"><h1>Contents</h1><ol>{}</ol></nav>'
PAGES = {
    "cover.xhtml": "<img src='c.jpg'/>",
    "one.xhtml": "<h1>First</h1><p id='p'>Alpha.</p><h2 id='b'>Second</h2><p>Beta.</p>",
    "two.xhtml": "<p>Gamma.</p>",
}


def epub(
    path: Path,
    pages: Mapping[str, str] = PAGES,
    nav: str | None = None,
    ncx: str | None = None,
    files: Mapping[str, str | bytes | None] | None = None,
) -> Path:
    """Build a book; `files` adds to the archive, replaces in it, or (None) leaves out of it."""
    items = "".join(
        f'<item id="i{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(pages)
    )
    refs = "".join(f'<itemref idref="i{n}"/>' for n in range(len(pages)))
    contents: dict[str, str | bytes | None] = {f"OPS/{name}": PAGE.format(body) for name, body in pages.items()}
    if nav is not None:
        items += '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
        refs = '<itemref idref="nav"/>' + refs
        contents["OPS/nav.xhtml"] = PAGE.format(nav)
    if ncx is not None:
        items += '<item id="ncx" href="toc/toc.ncx" media-type="application/x-dtbncx+xml"/>'
        contents["OPS/toc/toc.ncx"] = f'<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap>{ncx}</navMap></ncx>'
    contents["OPS/book.opf"] = OPF.format(items=items, refs=refs, toc=' toc="ncx"' if ncx is not None else "")
    contents["META-INF/container.xml"] = CONTAINER.format("OPS/book.opf")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        for name, data in (contents | dict(files or {})).items():
            if data is not None:
                archive.writestr(name, data)
    return path


def labels(document: Document) -> list[str]:
    return [section.label for section in document.sections]


def parts(document: Document) -> dict[str, str]:
    return {section.label: document.text[section.start : section.end].strip() for section in document.sections}


def point(label: str, link: str, inside: str = "") -> str:
    text = f"<navLabel><text>{label}</text></navLabel>"
    return f'<navPoint>{text}<content src="{link}"/>{inside}</navPoint>'


def test_pages_in_reading_order(tmp_path: Path) -> None:
    document = load_document(epub(tmp_path / "a.epub"))
    assert document.text == "First\n\nAlpha.\n\nSecond\n\nBeta.\n\nGamma."
    assert document.title == "My Book"
    assert document.body == (0, len(document.text))


def test_chapters_by_the_navigation_document(tmp_path: Path) -> None:
    nav = NAV.format("landmarks", "<li><a href='one.xhtml'>Landmark</a></li>") + NAV.format(
        "toc",
        "<li><a href='cover.xhtml'>Cover</a></li>"
        "<li><span>Part  One</span><ol><li><a href='one.xhtml'>A <i>sea</i></a></li>"
        "<li><a href='one.xhtml#b'>B</a></li></ol></li>"
        "<li><a href='two.xhtml#missing'>Part Two</a></li><li><a href='http://example.org/'>Web</a></li>"
        "<li><a href='nowhere.xhtml'>Nowhere</a></li>",
    )
    document = load_document(epub(tmp_path / "a.epub", nav=nav))
    assert parts(document) == {
        "Part One › A sea": "First\n\nAlpha.",
        "Part One › B": "Second\n\nBeta.",
        "Part Two": "Gamma.",
    }
    assert "Contents" not in document.text


def test_chapters_by_the_ncx(tmp_path: Path) -> None:
    ncx = point("One", "../one.xhtml", point("Alpha", "../one.xhtml#p")) + point("Two", "../two.xhtml")
    document = load_document(epub(tmp_path / "a.epub", ncx=ncx))
    assert parts(document) == {"One": "First", "One › Alpha": "Alpha.\n\nSecond\n\nBeta.", "Two": "Gamma."}


def test_contents_that_tell_nothing_apart_yield_to_headings(tmp_path: Path) -> None:
    nav = NAV.format("toc", "<li><a href='one.xhtml'>Start</a></li>")
    assert labels(load_document(epub(tmp_path / "a.epub", nav=nav))) == ["First", "Second"]


def test_chapters_by_headings(tmp_path: Path) -> None:
    pages = {"1.xhtml": "<h1>I</h1><p>a</p>", "2.xhtml": "<h1>II</h1><p>b</p>"}
    assert labels(load_document(epub(tmp_path / "a.epub", pages))) == ["I", "II"]


def test_chapters_by_number(tmp_path: Path) -> None:
    pages = {"1.xhtml": "<p>a</p>", "empty.xhtml": "", "2.xhtml": "<p>b</p>"}
    assert parts(load_document(epub(tmp_path / "a.epub", pages))) == {"Section 1": "a", "Section 2": "b"}


def test_contents_out_of_order_are_sorted(tmp_path: Path) -> None:
    nav = NAV.format("toc", "<li><a href='two.xhtml'>Two</a></li><li><a href='one.xhtml'>One</a></li>")
    assert labels(load_document(epub(tmp_path / "a.epub", nav=nav))) == ["One", "Two"]


def test_gutenberg_frame_and_its_chapters_are_outside(tmp_path: Path) -> None:
    pages = {
        "head.xhtml": "<p>Title: T</p><div>*** START OF THE PROJECT GUTENBERG EBOOK T ***</div>",
        "one.xhtml": "<h2>CHAPTER I</h2><p>Alpha.</p>",
        "two.xhtml": "<h2>CHAPTER II</h2><p>Beta.</p><div>*** END OF THE PROJECT GUTENBERG EBOOK T ***</div>",
        "tail.xhtml": "<h2>THE LICENSE</h2><p>Terms.</p>",
    }
    document = load_document(epub(tmp_path / "a.epub", pages))
    assert document.text[slice(*document.body)] == "CHAPTER I\n\nAlpha.\n\nCHAPTER II\n\nBeta."
    assert labels(document) == ["CHAPTER I", "CHAPTER II"]


def test_names_with_spaces_and_percent_signs(tmp_path: Path) -> None:
    path = epub(
        tmp_path / "a.epub",
        {"a%20b.xhtml": "unused", "c%25.xhtml": "unused"},
        files={
            "OPS/a%20b.xhtml": None,
            "OPS/c%25.xhtml": None,
            "OPS/a b.xhtml": PAGE.format("<p>Alpha.</p>"),
            "OPS/c%.xhtml": PAGE.format("<p>Beta.</p>"),
        },
    )
    assert load_document(path).text == "Alpha.\n\nBeta."


def test_pages_named_twice_are_read_once(tmp_path: Path) -> None:
    item = '<item id="a" href="one.xhtml" media-type="application/xhtml+xml"/>'
    opf = OPF.format(items=item, refs='<itemref idref="a"/>' * 1000, toc="")
    assert load_document(epub(tmp_path / "a.epub", files={"OPS/book.opf": opf})).text.count("Alpha") == 1


def test_entities_of_html_and_broken_pages(tmp_path: Path) -> None:
    pages = {"1.xhtml": "<p>caf&eacute;&nbsp;&mdash; ok</p>", "2.xhtml": "<p>a & b<br>c"}
    assert load_document(epub(tmp_path / "a.epub", pages)).text == "café — ok\n\na & b\nc"


def test_what_is_no_archive(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "a.epub"
    path.write_bytes(b"words " * 100)
    refused(path, "zip archive")
    whole = epub(tmp_path / "b.epub").read_bytes()
    for share in (0.3, 0.9, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path, "zip archive")


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"META-INF/container.xml": None}, "not an EPUB"),
        ({"META-INF/container.xml": "<container/>"}, "names no package"),
        ({"META-INF/container.xml": "<container>"}, "well-formed"),
        ({"META-INF/container.xml": b"\0\1\2"}, "binary"),
        ({"META-INF/container.xml": CONTAINER.format("OPS/gone.opf")}, r"gone\.opf.*missing"),
        ({"META-INF/container.xml": CONTAINER.format("../../etc/passwd")}, "outside itself"),
        ({"META-INF/container.xml": CONTAINER.format("/etc/passwd")}, "outside itself"),
        ({"META-INF/container.xml": CONTAINER.format("file:///etc/passwd")}, "outside itself"),
        ({"OPS/book.opf": "<package/>"}, "no spine"),
        ({"OPS/book.opf": "<package><spine/></package>"}, "no pages"),
        ({"OPS/book.opf": "<package><spine><itemref idref='x'/></spine></package>"}, "does not list"),
        ({"OPS/book.opf": "words"}, "well-formed"),
        ({"OPS/two.xhtml": None}, r"two\.xhtml.*missing"),
        ({"OPS/two.xhtml": b"\0\0\0"}, "binary"),
        ({"OPS/one.xhtml": "", "OPS/two.xhtml": " "}, "no text"),
        ({"../outside.txt": "x"}, "outside itself"),
        ({"/absolute.txt": "x"}, "outside itself"),
        ({"C:/windows.txt": "x"}, "outside itself"),
        ({"OPS\\..\\..\\x": "x"}, "outside itself"),
    ],
)
def test_broken_and_foreign_packages(
    tmp_path: Path, files: dict[str, str | bytes | None], what: str, refused: Refused
) -> None:
    refused(epub(tmp_path / "a.epub", files=files), what)


@pytest.mark.parametrize(
    "link", ["../../secret.xhtml", "/etc/passwd", "http://127.0.0.1:9/x.xhtml", "//host/x", "http://["]
)
def test_pages_outside_the_archive(tmp_path: Path, link: str, refused: Refused) -> None:
    (tmp_path / "secret.xhtml").write_text("secret")
    item = f'<item id="a" href="{link}" media-type="application/xhtml+xml"/>'
    opf = OPF.format(items=item, refs='<itemref idref="a"/>', toc="")
    refused(epub(tmp_path / "a.epub", files={"OPS/book.opf": opf}), "outside itself")


def encryption(algorithm: str, *names: str) -> dict[str, str]:
    data = "".join(
        f'<enc:EncryptedData><enc:EncryptionMethod Algorithm="{algorithm}"/><enc:CipherData>'
        f'<enc:CipherReference URI="{name}"/></enc:CipherData></enc:EncryptedData>'
        for name in names
    )
    enc = "http://www.w3.org/2001/04/xmlenc#"
    return {"META-INF/encryption.xml": f'<encryption xmlns:enc="{enc}">{data}</encryption>'}


def test_digital_rights_management(tmp_path: Path, refused: Refused) -> None:
    aes = "http://www.w3.org/2001/04/xmlenc#aes128-cbc"
    path = tmp_path / "a.epub"
    refused(epub(path, files=encryption(aes, "OPS/one.xhtml")), "DRM")
    refused(epub(path, files=encryption(aes, "OPS/font.ttf", "OPS/book.opf")), "DRM")
    assert load_document(epub(path, files=encryption(aes, "OPS/picture.jpg"))).text


@pytest.mark.parametrize("veil", ["http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"])
def test_veiled_fonts_are_fine(tmp_path: Path, veil: str) -> None:
    assert load_document(epub(tmp_path / "a.epub", files=encryption(veil, "OPS/font.ttf"))).text


def test_zip_bomb_by_ratio(tmp_path: Path, refused: Refused) -> None:
    path = epub(tmp_path / "a.epub", {"1.xhtml": "<p>" + " " * 12 * 2**20 + "</p>"})
    assert path.stat().st_size < 2**17
    refused(path, "zip bomb")


def test_zip_bomb_in_a_file_that_is_not_read(tmp_path: Path) -> None:
    assert load_document(epub(tmp_path / "a.epub", files={"OPS/picture.jpg": b"\0" * 12 * 2**20})).text


def test_bound_on_all_pages_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr(epub_archive, "MAX_TEXT_BYTES", 10_000)
    pages = {f"{n}.xhtml": "<p>words</p>" * 100 for n in range(10)}
    refused(epub(tmp_path / "a.epub", pages), "larger than")


def test_sizes_in_headers_are_not_believed(tmp_path: Path, refused: Refused) -> None:
    path = epub(tmp_path / "a.epub", {"1.xhtml": "<p>" + "a" * 12 * 2**20 + "</p>"})
    data = bytearray(path.read_bytes())
    place = data.index(b"OPS/1.xhtml", data.index(b"PK\x01\x02"))
    struct.pack_into("<I", data, place - 46 + 24, 100)  # the central directory's uncompressed size
    path.write_bytes(data)
    refused(path, "damaged|zip bomb")


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr(epub_archive, "MAX_ENTRIES", 10)
    refused(epub(tmp_path / "a.epub", files={f"f{n}": "" for n in range(20)}), "more than 10 files")


def test_huge_directory(tmp_path: Path, refused: Refused) -> None:
    path = epub(tmp_path / "a.epub")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x05\x06") + 12, 2**30)
    path.write_bytes(data)
    refused(path, "zip archive")


def test_password(tmp_path: Path, refused: Refused) -> None:
    path = epub(tmp_path / "a.epub")
    data = bytearray(path.read_bytes())
    place = data.index(b"META-INF/container.xml", data.index(b"PK\x01\x02"))
    data[place - 46 + 8] |= 1
    path.write_bytes(data)
    refused(path, "password")


def test_damaged_page(tmp_path: Path, refused: Refused) -> None:
    path = epub(tmp_path / "a.epub")
    data = bytearray(path.read_bytes())
    place = data.index(b"OPS/one.xhtml") + len("OPS/one.xhtml")
    data[place + 20 : place + 30] = b"\xff" * 10
    path.write_bytes(data)
    refused(path, "damaged")


@pytest.mark.parametrize("name", ["META-INF/container.xml", "OPS/book.opf", "OPS/toc/toc.ncx", "OPS/one.xhtml"])
def test_entities_never_expand(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text("the secret words")
    laughs = '<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    doctype = f'<!DOCTYPE x [{laughs}<!ENTITY f SYSTEM "file://{tmp_path}/secret.txt">]>'
    start = time.monotonic()
    try:
        document = load_document(
            epub(
                tmp_path / "a.epub",
                ncx=point("One", "../one.xhtml") + point("Two", "../two.xhtml"),
                files={name: f"{doctype}<html><p>&l11;&f;</p></html>"},
            )
        )
    except DocumentError:
        pass
    else:
        assert "secret words" not in document.text + "".join(labels(document))
        assert len(document.text) < 200
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("base", "link", "target"),
    [
        ("OPS/a.xhtml", "b.xhtml#x", ("OPS/b.xhtml", "x")),
        ("OPS/a.xhtml", "#x", ("OPS/a.xhtml", "x")),
        ("OPS/text/a.xhtml", "../b.xhtml", ("OPS/b.xhtml", "")),
        ("a.xhtml", "./b%20c.xhtml?q=1#%C3%A9", ("b c.xhtml", "é")),
        ("OPS/a.xhtml", "../../b.xhtml", None),
        ("OPS/a.xhtml", "%2e%2e/%2e%2e/b", None),
        ("a.xhtml", "/b.xhtml", None),
        ("a.xhtml", "https://example.org/b", None),
    ],
)
def test_links(base: str, link: str, target: tuple[str, str] | None) -> None:
    assert linked_path(base, link) == target


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6)
)
def test_any_damage_gives_a_document_or_one_line(
    tmp_path: Path, read_or_refused: ReadOrRefused, damage: list[tuple[float, bytes]]
) -> None:
    path = epub(tmp_path / "a.epub", nav=NAV.format("toc", "<li><a href='one.xhtml'>One</a></li>"))
    data = bytearray(path.read_bytes())
    for share, piece in damage:
        place = int(share * len(data))
        data[place : place + len(piece)] = piece
    path.write_bytes(data)
    read_or_refused(path)
