"""Indexes by the command line: built while reading or asking, gone on with, built anew, removed; never in silence."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from longfocus.memory import seal
from longfocus.memory.book import StoredBook
from longfocus.memory.index_files import build_index, head_file, index_trouble
from longfocus.memory.layout import LOCK

pytest.importorskip("faiss")
KIND = "sq8"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, one_thread):
    """A folder to work in, with a shelf, a cache and a key of its own."""
    monkeypatch.setenv("LONGFOCUS_BOOKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(seal, "key_path", lambda: tmp_path / "user" / "index.key")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def read(command_line, tiny_folder, tiny_document, home):
    """Read the document with these arguments; the Book's folder, and what was said."""
    (home / "story.txt").write_text(tiny_document.text[:2500], encoding="utf-8")

    def read(*arguments):
        status, out, err = command_line("read", "story.txt", "--model", tiny_folder, "--window", 64, *arguments)
        assert status == 0, err
        return Path(out.strip()), err

    return read


def trouble(book):
    return index_trouble(StoredBook.open(book), KIND)


def test_reading_builds_an_index_goes_on_with_one_and_builds_a_damaged_one_anew(read):
    book, err = read("--index", KIND)
    assert "built the index sq8" in err
    assert trouble(book) is None
    assert "built" not in read("--index", KIND)[1]
    name = min(book.glob("index-*.faiss")).name
    os.truncate(book / name, 10)
    err = read("--index", KIND)[1]
    assert "is damaged; building it anew" in err
    assert trouble(book) is None
    going = build_index(StoredBook.open(book), KIND)  # as of a process that is killed behind one of its heads
    next(going)
    next(going)
    going.close()
    done = [path.stat().st_ino for path in book.glob("index-*.faiss")]
    read("--index", KIND)
    assert trouble(book) is None
    assert done == [(book / name).stat().st_ino]


def test_asking_by_an_index_that_is_not_there_builds_it(read, command_line, tiny_folder):
    book, _ = read()
    ask = ("find", book, "the river", "--model", tiny_folder, "--memory", KIND)
    status, _, err = command_line(*ask)
    assert status == 0
    assert "is not there; building it" in err
    assert trouble(book) is None
    assert "building" not in command_line(*ask)[2]


def test_an_index_stays_while_its_book_is_in_use(read, command_line):
    book, _ = read("--index", KIND)
    with FileLock(book / LOCK):
        status, _, err = command_line("index", book, "--kind", KIND, "--remove")
    assert (status, err.count("\n")) == (1, 1)
    assert "in use" in err
    assert trouble(book) is None
    assert command_line("index", book, "--kind", KIND, "--remove")[0] == 0
    assert not list(book.glob("index-*"))
    assert not (book / head_file(KIND, 1, 0)).exists()


def test_a_short_document_needs_no_index(home, command_line, tiny_folder):
    (home / "short.txt").write_text("The captain closed the window.", encoding="utf-8")
    status, out, err = command_line("read", "short.txt", "--model", tiny_folder, "--window", 64, "--index", KIND)
    assert status == 0, err
    assert out.strip() == str(home / "shelf" / "short.book")
    assert "it needs no index" in err


def test_an_index_that_cannot_be_built_does_not_keep_other_documents_from_theirs(
    home, command_line, tiny_folder, tiny_document, monkeypatch
):
    papers = home / "papers"
    papers.mkdir()
    (papers / "long.txt").write_text(tiny_document.text[:2000], encoding="utf-8")
    (papers / "longer.txt").write_text(tiny_document.text[:2500], encoding="utf-8")
    (papers / "short.txt").write_text("The captain closed the window.", encoding="utf-8")
    (papers / "longer.txt").rename(home / "longer.txt")
    command_line("read", "longer.txt", "--model", tiny_folder, "--window", 64)
    (home / "longer.txt").rename(papers / "longer.txt")
    in_its_way = home / "shelf" / "longer.book" / f"index-{KIND}-001-0.faiss"
    in_its_way.mkdir()
    arguments = ("read", papers, "--model", tiny_folder, "--window", 64, "--index", KIND)
    status, out, err = command_line(*arguments)
    assert status == 1
    assert "read 2 (" in err and ", 0 there before, 1 failed" in err
    assert "longer.txt: its Book is there, but not finished: cannot write an index" in err
    assert sorted(Path(line).name for line in out.split()) == ["long.book", "short.book"]
    assert trouble(home / "shelf" / "long.book") is None
    in_its_way.rmdir()
    status, out, err = command_line(*arguments)
    assert (status, len(out.split())) == (0, 3), err
    assert trouble(home / "shelf" / "longer.book") is None
