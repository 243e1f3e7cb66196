"""The shelf, and how a name becomes a Book's folder."""

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from longfocus.errors import BookError
from longfocus.memory.book import StoredBook
from longfocus.memory.inspection import facts_of
from longfocus.memory.library import books_dir, find_book, list_books, shelf_folder
from longfocus.memory.sections import Section, section_at


@pytest.fixture(autouse=True)
def shelf(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFOCUS_BOOKS", str(tmp_path / "shelf"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "shelf"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("some/where/War and Peace.epub", "War-and-Peace.book"),
        ("notes.txt.gz", "notes.book"),
        ("PAPER.PDF", "PAPER.book"),
        ("story", "story.book"),
        ("story.book", "story.book"),
        ("v1.2.md", "v1.2.book"),
        ("Привет.html", "Привет.book"),
        ("../../etc/passwd", "passwd.book"),
        ("a\nb;c.txt", "a-b-c.book"),
        ("….txt", "document.book"),
    ],
)
def test_names_on_the_shelf(shelf, name, kept):
    assert shelf_folder(name) == shelf / kept


@pytest.mark.parametrize("name", ["..", ".", "/", "...", "-"])
def test_no_name_leads_off_the_shelf(shelf, name):
    assert shelf_folder(name).resolve().parent == shelf.resolve()


def test_a_book_is_found_by_folder_name_or_document(shelf, tiny_book_folder):
    on_shelf = shelf_folder("My Story.txt")
    shutil.copytree(tiny_book_folder, on_shelf)
    Path("My Story.txt").touch()
    for name in (on_shelf, "My Story.txt", "My-Story", "My-Story.book", "elsewhere/My Story.txt"):
        assert find_book(name) == on_shelf
    assert find_book(tiny_book_folder) == tiny_book_folder


def test_a_book_that_is_not_there_is_told_apart():
    Path("new.txt").touch()
    Path("folder").mkdir()
    for name, word in (
        ("new.txt", "not been read"),
        ("folder", "no Book"),
        ("nothing", "neither"),
        ("x" * 5000, "neither"),
    ):
        with pytest.raises(BookError, match=word):
            find_book(name)


def test_listing(shelf, tiny_book_folder):
    assert list(list_books()) == []
    shutil.copytree(tiny_book_folder, shelf / "b.book")
    (shelf / "a.book").mkdir(parents=True)
    (shelf / "c.book").touch()
    (shelf / "other").mkdir()
    broken, whole, file = list_books()
    assert (broken.name, broken.model) == ("a", "")
    assert "manifest.json" in broken.title
    assert (whole.name, whole.title, whole.folder) == ("b", "A Story", shelf / "b.book")
    assert whole.tokens == whole.done > 1500
    assert whole.bytes == sum(path.stat().st_size for path in whole.folder.iterdir())
    assert file.model == ""


def test_listing_while_files_come_and_go(shelf, tiny_book_folder):
    """As a Book's window files do while it is read."""
    book = shelf / "b.book"
    shutil.copytree(tiny_book_folder, book)
    stored, is_over = StoredBook.open(book), threading.Event()

    def replace_windows() -> None:
        while not is_over.is_set():
            for number in range(90, 99):
                (book / f"window-{number}.safetensors").touch()
            for number in range(90, 99):
                (book / f"window-{number}.safetensors").unlink()

    reading = threading.Thread(target=replace_windows)
    reading.start()
    try:
        for _ in range(300):
            (listed,) = list_books()
            assert listed.bytes >= facts_of(stored).memory_bytes > 0
    finally:
        is_over.set()
        reading.join()


@pytest.mark.parametrize("name", ["listdir", "stat"])
def test_what_may_not_be_read_is_listed_as_such(shelf, tiny_book_folder, monkeypatch, name):
    """Told by the system's answer: who runs tests as root may read everything."""
    shutil.copytree(tiny_book_folder, shelf / "a.book")
    shutil.copytree(tiny_book_folder, shelf / "b.book")
    allowed = getattr(os, name)
    forbidden = {"listdir": shelf / "a.book", "stat": shelf / "a.book" / "manifest.json"}[name]

    def refused(path, *arguments, **options):
        if path == forbidden:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return allowed(path, *arguments, **options)

    monkeypatch.setattr(os, name, refused)
    first, second = list_books()
    assert (first.name, first.model) == ("a", "")
    assert "Permission denied" in first.title
    assert (second.title, second.done) == ("A Story", second.tokens)


def test_the_shelf_without_the_variable(monkeypatch):
    monkeypatch.delenv("LONGFOCUS_BOOKS")
    assert books_dir().name == "books"


def test_sections():
    sections = [Section("page", "1", 0, 10), Section("chapter", "I", 5, 20), Section("page", "2", 10, 20)]
    found = [[section_at(sections, kind, place) for place in (0, 4, 5, 9, 10, 19, 20)] for kind in ("page", "chapter")]
    assert found == [["1", "1", "1", "1", "2", "2", None], [None, None, "I", "I", "I", "I", None]]
