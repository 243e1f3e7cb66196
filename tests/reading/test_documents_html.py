"""HTML: the text that a browser shows, headings as chapters, and pages that mean harm."""

from pathlib import Path

import pytest

from longfocus.errors import DocumentError
from longfocus.reading.documents import Document, load_document


def written(folder: Path, page: str | bytes, name: str = "page.html") -> Document:
    path = folder / name
    path.write_bytes(page.encode("utf-8") if isinstance(page, str) else page)
    return load_document(path)


def shown(folder: Path, page: str) -> str:
    return written(folder, page).text


def labels(document: Document) -> list[str]:
    return [section.label for section in document.sections]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>One  two\n three</p><p>Four</p>", "One two three\n\nFour"),
        ("<p>a <b> b </b> c</p>", "a b c"),
        ("<p>a<b>b</b>c <i>d</i></p>", "abc d"),
        ("One<br>two<br/>three<p>four", "One\ntwo\nthree\n\nfour"),
        ("One<br><br><br>two", "One\n\ntwo"),
        ("<div>One<div>two</div>three</div>", "One\n\ntwo\n\nthree"),
        ("<p>one&nbsp;&#160;two</p><p>&nbsp;</p><p>so&shy;lo &amp; &lt;</p>", "one two\n\nsolo & <"),
        ("<pre>\n  a\n    b  c\n\n\td\n</pre>after", "  a\n    b  c\n\n\td\n\nafter"),
        ("<pre><b>a</b>\n<i>b</i>\n\n\nc</pre>", "a\nb\n\n\nc"),
        ("x<ul><li>one<li>two <b>b</b></ul>y", "x\n\n- one\n- two b\n\ny"),
        ("<ul><li><p>one</p><p>more</p></li><li>two</li></ul>", "- one\n\nmore\n\n- two"),
        ("<ol><li>one<ul><li>in</li></ul></li><li></li><li>two</li></ol>", "- one\n  - in\n\n- two"),
        ("<dl><dt>term<dd>meaning</dl>", "term\nmeaning"),
        ("<table><tr><th>a<th>b</tr><tr><td><p>1</p><td>2<br>3</table>", "a\tb\n1\t2 3"),
        ("<table><tr><td></td><td>b</td><td></td><td>d</td><td></td></tr></table>", "\tb\t\td"),
        ("<table><tr><td><h2>T</h2><p>a</p></td><td><p>b</p></td></tr></table>", "T\n\na\n\nb"),
        ("<p>He said <q>no</q>.</p>", "He said “no”."),
        ("a<script>x()</script>b<style>c{}</style><noscript>d</noscript><template>e</template>", "ab"),
        ("<nav><a>Home</a></nav><p>t</p><svg><title>s</title><text>x</text></svg><!-- c -->", "t"),
        ("a<p hidden>b</p><p style='color:red; display : none'>c</p><p style='visibility:hidden'>d</p>e", "a\n\ne"),
        ("<span aria-hidden='true'>#</span>Title<textarea>x</textarea><select><option>o</select>", "Title"),
        ("<img alt='a picture' src='x.png'>word", "word"),
        ("<p>Area: <math><mi>a</mi><mo>=</mo><msup><mi>x</mi><mn>2</mn></msup></math>.</p>", "Area: a=x2."),
        ("<ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp></ruby>", "漢"),
        ("just words", "just words"),
        ("<p>unclosed <b>bold <i>both</b> x</i> < y && z", "unclosed bold both x < y && z"),
    ],
)
def test_text_is_as_a_browser_shows_it(tmp_path: Path, page: str, text: str) -> None:
    assert shown(tmp_path, page) == text


def test_chapters_are_headings(tmp_path: Path) -> None:
    page = (
        "<h1>Part <i>One</i></h1><h2> Chapter\n1 </h2><p>a</p><h4>no</h4><h2>Chapter 2</h2>b<h1>Part Two</h1><h2></h2>c"
    )
    document = written(tmp_path, page)
    assert labels(document) == ["Part One", "Part One › Chapter 1", "Part One › Chapter 2", "Part Two"]
    for section in document.sections:
        assert document.text[section.start :].startswith(section.label.split(" › ")[-1])


def test_title(tmp_path: Path) -> None:
    assert written(tmp_path, "<title> The\n Page </title><h1>Head</h1>").title == "The Page"
    assert written(tmp_path, "<title></title><svg><title>s</title></svg><h1>Head</h1>").title == "Head"
    assert written(tmp_path, "<p>words").title == "page"


@pytest.mark.parametrize(
    "page",
    [
        "<meta charset=utf-8><p>Grüße – ok".encode(),
        "<meta http-equiv='Content-Type' content='text/html; charset=iso-8859-1'><p>Grüße – ok".encode("cp1252"),
        "<p>Grüße – ok".encode(),
        "<p>Grüße – ok".encode("cp1252"),
        "<meta charset=utf-8><p>Grüße – ok".encode("cp1252"),
        "<meta charset=nonsense><p>Grüße – ok".encode(),
        "<meta charset=utf-16><p>Grüße – ok".encode(),
        "\ufeff<meta charset=latin-1><p>Grüße – ok".encode(),
        "<p>Grüße – ok".encode("utf-16"),
        "<?xml version='1.0' encoding='windows-1252'?><html><p>Grüße – ok</p></html>".encode("cp1252"),
        "<meta charset='gb18030'><p>Grüße – ok".encode("gb18030"),
    ],
)
def test_character_sets(tmp_path: Path, page: bytes) -> None:
    assert written(tmp_path, page).text == "Grüße – ok"


XHTML = '<?xml version="1.0" encoding="utf-8"?>{0}<html xmlns="http://www.w3.org/1999/xhtml">{1}</html>'


@pytest.mark.parametrize("name", ["page.xhtml", "page.html"])
def test_xhtml(tmp_path: Path, name: str) -> None:
    doctype = '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "http://www.w3.org/TR/xhtml11/DTD/xhtml11.dtd">'
    head = "<head><title/><script src='x.js'/></head>"
    body = f"{head}<body><h1>One<a id='x'/></h1><p>a&nbsp;b &eacute; &lt;c&gt;</p></body>"
    document = written(tmp_path, XHTML.format(doctype, body), name)
    assert document.text == "One\n\na b é <c>"
    assert labels(document) == ["One"]


def test_broken_xhtml_is_mended(tmp_path: Path) -> None:
    assert written(tmp_path, XHTML.format("", "<p>one<p>two & three"), "page.xhtml").text == "one\n\ntwo & three"


def test_gutenberg_frame(tmp_path: Path) -> None:
    page = (
        "<p>Title: My Tale</p><div>*** START OF THE PROJECT GUTENBERG EBOOK MY TALE ***</div>"
        "<h2>CHAPTER I</h2><p>Text.</p><div>*** END OF THE PROJECT GUTENBERG EBOOK MY TALE ***</div><h2>LICENSE</h2>"
    )
    document = written(tmp_path, page)
    assert document.title == "My Tale"
    assert document.text[slice(*document.body)] == "CHAPTER I\n\nText."
    assert labels(document) == ["CHAPTER I"]


@pytest.mark.parametrize(
    "page", ["<p></p>", "<!-- nothing -->", "<script>render()</script>", "<p>&nbsp;</p>", "<pre> \n </pre>", "<br><hr>"]
)
def test_page_without_text(tmp_path: Path, page: str) -> None:
    with pytest.raises(DocumentError, match=r"no text|no elements"):
        written(tmp_path, page)


@pytest.mark.parametrize("name", ["page.html", "page.xhtml"])
def test_entities_of_the_page_itself_never_expand(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text("the secret words")
    laughs = '<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    outside = f'<!ENTITY file SYSTEM "file://{tmp_path}/secret.txt"><!ENTITY % p SYSTEM "http://127.0.0.1:9/x">%p;'
    document = written(tmp_path, XHTML.format(f"<!DOCTYPE html [{laughs}{outside}]>", "<p>A &l11; &file; B</p>"), name)
    assert "secret words" not in document.text
    assert len(document.text) < 100
    assert document.text.startswith("A ")
    assert document.text.endswith(" B")


@pytest.mark.parametrize("name", ["page.html", "page.xhtml"])
def test_what_the_parser_would_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DocumentError, match="nested too deeply"):
        written(tmp_path, "<div>" * 5000 + "words" + "</div>" * 5000, name)
    with pytest.raises(DocumentError, match="too large a piece"):
        written(tmp_path, "<html><p>" + "words " * 2_000_000 + "</p></html>", name)


def test_deep_but_honest_nesting(tmp_path: Path) -> None:
    assert shown(tmp_path, "<div>" * 200 + "words" + "</div>" * 200) == "words"


def test_many_cells_and_anchors_are_quick(tmp_path: Path) -> None:
    row = "<tr>" + "".join(f"<td id='c{n}'>{n}</td>" for n in range(20_000)) + "</tr>"
    assert shown(tmp_path, f"<table>{row}</table>").count("\t") == 19_999
