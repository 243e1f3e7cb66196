"""Which reader reads what, and one clear line for all that cannot be read."""

import gzip
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from longfocus.reading.documents import READERS, Document, load_document, source

Refused = Callable[..., str]
SUFFIXES = [*READERS, ".txt.gz", ".md.gz"]


def check(document: Document) -> None:
    """What holds for every document."""
    start, end = document.body
    assert 0 <= start < end <= len(document.text)
    assert document.title
    document.text.encode("utf-8")
    assert len(document.sha256) == 64
    for kind in ("chapter", "page"):
        sections = [section for section in document.sections if section.kind == kind]
        for section in sections:
            assert section.label == " ".join(section.label.split()) != ""
            assert 0 <= section.start < section.end <= len(document.text)
        for one, two in pairwise(sections):
            assert one.end == two.start or (kind == "page" and one.end <= two.start)


@pytest.fixture(scope="session")
def check_or_refused(read_or_refused: Callable[[Path], Document | None]) -> Callable[[Path], None]:
    """The path gives a sound document or is refused in one line."""

    def check_or_refused(path: Path) -> None:
        document = read_or_refused(path)
        if document is not None:
            check(document)

    return check_or_refused


@pytest.mark.parametrize("suffix", ["", ".TXT", ".Text", ".md", ".MARKDOWN", ".htm", ".html", ".xhtml"])
def test_text_kinds_are_chosen_by_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"note{suffix or '.txt'}"
    path.write_text("Some words & more.\n", "utf-8")
    document = load_document(str(path))
    assert "Some words & more." in document.text
    assert document.title == "note"
    check(document)


def test_packed_text(tmp_path: Path) -> None:
    path = tmp_path / "my book.txt.gz"
    path.write_bytes(gzip.compress(b"Words in a packed file.\r\n"))
    document = load_document(path)
    assert document.text == "Words in a packed file.\n"
    assert document.title == "my book"


def test_missing_file(tmp_path: Path, refused: Refused) -> None:
    assert "no such file" in refused(tmp_path / "nowhere.txt")
    assert "no such file" in refused(tmp_path / "nowhere" / "book.txt")


def test_link_to_nowhere(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "link.txt").symlink_to(tmp_path / "gone.txt")
    assert "no such file" in refused(tmp_path / "link.txt")


def test_folder(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "folder.txt").mkdir()
    assert "folder" in refused(tmp_path / "folder.txt")
    assert "folder" in refused("")


def test_paths_that_no_file_can_have(tmp_path: Path, refused: Refused) -> None:
    refused("null\0.txt")
    refused(tmp_path / ("x" * 300 + ".txt"))
    assert "no such file" in refused(tmp_path / "two\nlines.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipe(tmp_path: Path, refused: Refused) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert "pipe" in refused(tmp_path / "pipe.txt")


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.epub", "a.pdf", "a.txt.gz"])
def test_no_permission(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    path = tmp_path / name
    path.write_text("words")

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    # The tests may run as root, whom no mode bits stop.
    monkeypatch.setattr(Path, "open", deny)
    assert "permission" in refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_file(tmp_path: Path, suffix: str, refused: Refused) -> None:
    (tmp_path / f"a{suffix}").touch()
    assert "empty" in refused(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html", ".xhtml"])
@pytest.mark.parametrize("blank", [" \n\t\r\n ", "\ufeff\n", "\u2003\n"])
def test_nothing_but_white_space(tmp_path: Path, suffix: str, blank: str, refused: Refused) -> None:
    (tmp_path / f"a{suffix}").write_text(blank, "utf-8")
    assert "white space" in refused(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("name", ["book.docx", "book", "book.", "picture.png", "book.pdf.gz", "book.gz", ".txt"])
def test_unknown_suffix_says_which_are_known(tmp_path: Path, name: str, refused: Refused) -> None:
    (tmp_path / name).write_text("words")
    message = refused(tmp_path / name)
    assert ".epub" in message
    assert ".pdf" in message


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html", ".xhtml"])
@pytest.mark.parametrize(
    "data", [b"text\0more", bytes(range(1, 32)) * 9, b"MZ\x90\x03\x01\x02\x03\x04\xff\xff\xb8\x01"]
)
def test_binary_data(tmp_path: Path, suffix: str, data: bytes, refused: Refused) -> None:
    (tmp_path / f"a{suffix}").write_bytes(data)
    assert "binary" in refused(tmp_path / f"a{suffix}")


def test_size_is_bounded(tmp_path: Path, refused: Refused) -> None:
    for name, most in (("a.txt", source.MAX_TEXT_BYTES), ("a.html", source.MAX_TEXT_BYTES)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(most + 1)  # a hole: takes no room
        assert "larger than 64 MiB" in refused(tmp_path / name)
    for name in ("a.pdf", "a.epub"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(source.MAX_CONTAINER_BYTES + 1)
        assert "larger than 256 MiB" in refused(tmp_path / name)


def test_size_is_bounded_behind_gzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    path = tmp_path / "bomb.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(65):
            file.write(b" " * 2**20)
    assert path.stat().st_size < 2**20
    assert "unpacked it is larger" in refused(path)


def test_broken_gzip(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"words " * 1000)[:-10])
    assert "gzip" in refused(path)
    path.write_bytes(b"words that were never packed")
    assert "gzip" in refused(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SUFFIXES), st.binary(max_size=300))
@example(".html", b"<")
@example(".html", b"<!-- -->")
@example(".html", b"<!DOCTYPE html [")
@example(".xhtml", b"<?xml version='1.0'?>")
@example(".xhtml", b"\xfe\xff\x00<\x00a\x00/\x00>")
@example(".html", b"\xff\xfe\x00\x00")
@example(".html", b"<meta charset='utf-16'>words")
@example(".html", b"<meta charset='unicode_escape'>\\ud800")
@example(".html", b"&#xD800;&#0;&#1;")
@example(".md", b"---\ntitle: x\n---\n")
@example(".md", b"# \n#\n===\n")
@example(".pdf", b"%PDF-1.7\n")
@example(".pdf", b"%PDF-1.4\ntrailer<</Root 1 0 R>>\nstartxref\n0\n%%EOF")
@example(".epub", b"PK\x05\x06" + bytes(18))
@example(".txt", b"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n*** END OF THE PROJECT GUTENBERG EBOOK X ***")
def test_any_bytes_give_a_document_or_one_line(
    tmp_path: Path, check_or_refused: Callable[[Path], None], suffix: str, data: bytes
) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    check_or_refused(path)


WORDS = ["CHAPTER I", "CHAPTER II", "PART ONE", "Preface", "I", "II", "3", "# One", "===", "---", "```", "Some words."]
TAGS = ["<p>", "</p>", "<h1>", "</h1>", "<h2>x</h2>", "<ul><li>", "<table><tr><td>", "</td>", "<pre>", "</pre>", "<br>"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SUFFIXES[:7]),
    st.lists(st.sampled_from([*WORDS, *TAGS, "\n", "\n\n", " ", "é\xa0\xad"]), max_size=25),
)
def test_any_mixture_of_marks_gives_sound_sections(
    tmp_path: Path, check_or_refused: Callable[[Path], None], suffix: str, pieces: list[str]
) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_text("".join(pieces), "utf-8")
    check_or_refused(path)
