"""A document's name leads to its Book only while the document is the one that was read."""

import os
import shutil

import pytest

from longfocus.errors import BookError, DocumentError
from longfocus.memory.layout import ORIGIN
from longfocus.memory.library import shelf_folder
from longfocus.reading.documents import load_document
from longfocus.reading.origin import book_of, file_hash, note_origin
from longfocus.reading.reader import read_steps
from tests.conftest import story

TEXT = story(60)


@pytest.fixture(scope="module")
def book_of_text(tiny_model, tmp_path_factory):
    """The Book of a document with that text; not to be changed, copy it."""
    folder = tmp_path_factory.mktemp("read")
    (folder / "story.txt").write_text(TEXT, encoding="utf-8")
    for _ in read_steps(load_document(folder / "story.txt"), tiny_model, folder / "story.book"):
        pass
    return folder / "story.book"


@pytest.fixture
def document(tmp_path, monkeypatch, book_of_text):
    """A document in the working folder, and its Book on the shelf."""
    monkeypatch.setenv("LONGFOCUS_BOOKS", str(tmp_path / "shelf"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "story.txt"
    path.write_text(TEXT, encoding="utf-8")
    shutil.copytree(book_of_text, shelf_folder(path))
    return path


@pytest.mark.parametrize("is_noted", [False, True])
def test_a_document_that_was_changed_is_not_answered_for(document, is_noted):
    book = shelf_folder(document)
    if is_noted:
        note_origin(book, file_hash(document))
    assert book_of(document) == book_of("story") == book_of(book) == book
    document.write_text(TEXT + " And that was all.", encoding="utf-8")
    with pytest.raises(BookError, match=r"is not what .*story.book was read from .*--out FOLDER"):
        book_of(document)
    assert book_of("story") == book_of("story.book") == book
    document.unlink()
    assert book_of(document) == book  # its name is all that there is


def test_another_document_of_that_name(document, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "story.md"
    other.write_text("Another story.", encoding="utf-8")
    with pytest.raises(BookError, match="another document of that name"):
        book_of(other)
    other.write_bytes(b"")
    with pytest.raises(DocumentError, match="empty"):
        book_of(other)
    (tmp_path / "story").write_text("No document, for want of a suffix.", encoding="utf-8")
    assert book_of("story") == shelf_folder(document)


def test_a_file_that_was_noted_is_not_taken_apart_again(document, monkeypatch):
    book = shelf_folder(document)
    assert book_of(document) == book
    assert (book / ORIGIN).exists()
    monkeypatch.setattr("longfocus.reading.documents.load_document", lambda _: pytest.fail("taken apart"))
    assert book_of(document) == book
    os.utime(document, (0, 0))
    assert book_of(document) == book


@pytest.mark.parametrize("note", [b"", b"[1]", b'{"sha256": 5}', b'{"sha256": "00"}', b"\xff"])
def test_a_note_that_makes_no_sense_is_only_ignored(document, note):
    book = shelf_folder(document)
    (book / ORIGIN).write_bytes(note)
    assert book_of(document) == book


def test_what_cannot_be_noted_is_no_trouble(document):
    book = shelf_folder(document)
    (book / ORIGIN).mkdir()
    assert book_of(document) == book
    assert file_hash("nowhere") == ""
