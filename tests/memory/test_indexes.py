"""Approximate indexes: what they find, and that their files are believed only when they are whole and ours."""

import json
import os
import shutil
import sys
import warnings
from dataclasses import replace

import numpy
import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from longfocus.asking.generation import Sampling
from longfocus.asking.session import Session
from longfocus.books import Book
from longfocus.errors import BookError, RequestError
from longfocus.loading.defaults import TRAINED
from longfocus.memory import kinds, seal
from longfocus.memory.approximate import ApproximateMemory, LayerIndex
from longfocus.memory.book import StoredBook
from longfocus.memory.disk import DiskMemory
from longfocus.memory.faiss_kinds import INDEX_KINDS
from longfocus.memory.index_files import (
    build_index,
    head_file,
    index_bytes,
    index_trouble,
    indexes_in,
    open_index,
    record_file,
    remove_index,
)
from longfocus.memory.inspection import facts_of, kinds_to_compare
from longfocus.memory.int8 import Int8Memory
from longfocus.memory.kinds import choose, memories_of
from longfocus.memory.layout import LOCK, layer_files
from longfocus.memory.top_k import TopKMemory
from longfocus.model.memory import DenseMemory
from longfocus.reading.reader import read_steps

faiss = pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("without_gradients", "own_key")
SCALE = 0.3
KIND = "ivf"
SHORT = Sampling(max_new_tokens=4)


@pytest.fixture
def own_key(tmp_path, monkeypatch):
    """A folder for the user's key that is the test's alone."""
    monkeypatch.setattr(seal, "key_path", lambda: tmp_path / "user" / "index.key")


def build(folder, kind=KIND):
    return [step.done for step in build_index(StoredBook.open(folder), kind)]


@pytest.fixture
def indexed(book):
    build(book)
    return book


def trouble(folder, kind=KIND):
    return index_trouble(StoredBook.open(folder), kind)


def places_of(folder, kind=KIND):
    """What an index finds for some queries."""
    query = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
    return [index.search(query, 7) for index in open_index(StoredBook.open(folder), kind).values()]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", INDEX_KINDS)
@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 300), k=st.integers(1, 400), batch=st.integers(1, 3), seed=st.integers(0, 99))
def test_the_scores_of_what_is_found_are_true(some, kind, packed, count, k, batch, seed):
    """Whatever an index finds: one softmax over as many entries as are wanted, and over all where that is all."""
    keys, values = some(1, 2, count, 8, seed=seed) + 3, some(1, 2, count, 8, seed=seed + 1)
    inner = Int8Memory.of(keys, values) if packed else DiskMemory(keys, values)
    with torch.no_grad():
        told = []
        memory = ApproximateMemory(inner, k, LayerIndex.of(kind, inner)).reporting(lambda *found: told.append(found))
        query = some(batch, 4, 3, 8, seed=seed + 2)
        output, lse = memory.attend(query, SCALE)
        memory.attended(query, SCALE, lse)
        (chosen, shares), (keys, values, _) = told[0], inner.entries()
        assert chosen.shape == (2, batch * 2, 3, min(k, count))
        assert all(len(set(row.tolist())) == min(k, count) for row in chosen.flatten(0, 2)), "some are found twice"
        grouped = query.view(batch, 2, 2, 3, 8).transpose(0, 1).reshape(2, -1, 3, 8)
        head = torch.arange(2)[:, None, None, None]
        scores = torch.einsum("ghtd,ghtkd->ghtk", grouped, keys[0][head, chosen]) * SCALE
        assert_close(shares, scores.softmax(-1), rtol=0, atol=1e-4)
        wanted = torch.einsum("ghtk,ghtkd->ghtd", scores.softmax(-1), values[0][head, chosen])
        assert_close(output, wanted.reshape(2, batch, 2, 3, 8).transpose(0, 1).reshape(query.shape), rtol=0, atol=1e-4)
        exact = TopKMemory(inner, k).attend(query, SCALE)
        if 2 * k >= count:
            assert_close((output, lse), exact, rtol=0, atol=1e-5)
        if k >= count:
            assert_close((output, lse), DenseMemory.of(keys, values).attend(query, SCALE), rtol=0, atol=1e-4)
        # what comes behind is seen whole
        new = some(1, 2, 4, 8, seed=5)
        longer = TopKMemory(inner, k).append(new, new, None).attend(query, SCALE)
        if 2 * k >= count:
            assert_close(memory.append(new, new, None).attend(query, SCALE), longer, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_most_of_the_best_are_found_where_keys_share_an_offset(some, kind):
    """Which is what keeps a search among raw keys from finding them."""
    keys = some(1, 2, 4000, 16, seed=1) + 10 * some(1, 2, 1, 16, seed=2)
    held = DiskMemory(keys, keys)
    query = some(1, 4, 30, 16, seed=3)
    memory = ApproximateMemory(held, 16, LayerIndex.of(kind, held))
    grouped = query[0].view(2, -1, 16)
    best = TopKMemory(held, 16).best(grouped, held.held())
    found = memory.best(grouped, held.held())
    recall = (best[..., None] == found[..., None, :]).any(-1).float().mean()
    assert recall > {"hnsw": 0.95, "ivf": 0.6, "sq8": 0.98}[kind]


def test_what_an_index_does_not_find_is_found_exactly(some):
    """A broken graph gives up after a few entries; a query still sees as many as it should, the best."""
    keys = some(1, 1, 500, 8, seed=1)
    held = DiskMemory(keys, keys)

    class GivesUp:
        def search(self, queries, count):
            places = numpy.full((len(queries), count), -1)
            places[:, :3] = [5, 6, 7]
            return None, places

    query = some(1, 2, 4, 8, seed=3)
    found = ApproximateMemory(held, 16, LayerIndex((GivesUp(),), 500)).attend(query, SCALE)
    assert_close(found, TopKMemory(held, 16).attend(query, SCALE), rtol=0, atol=1e-6)


def test_an_index_of_other_entries_is_refused(some):
    held = DiskMemory(some(1, 2, 50, 8), some(1, 2, 50, 8))
    longer = DiskMemory(some(1, 2, 51, 8), some(1, 2, 51, 8))
    with pytest.raises(ValueError, match="50 entries"):
        ApproximateMemory(longer, 4, LayerIndex.of("sq8", held))


def test_threads_are_torchs(some):
    held = DiskMemory(some(1, 2, 50, 8), some(1, 2, 50, 8))
    index = LayerIndex.of("sq8", held)
    faiss.omp_set_num_threads(7)
    torch.set_num_threads(1)
    index.search(some(2, 3, 8), 4)
    assert faiss.omp_get_max_threads() == torch.get_num_threads() == 1


@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_built_opened_and_asked(book, tiny_model, kind):
    assert trouble(book, kind) == "is not there"
    assert build(book, kind) == [0, 1, 2, 3, 4]
    assert indexes_in(book) == [kind]
    assert trouble(book, kind) is None
    assert index_bytes(book, kind) > StoredBook.open(book).progress.entries * 2 * 2 * 16
    session = Session(StoredBook.open(book), tiny_model, memory=kind, top_k=600)
    exact = Session(StoredBook.open(book), tiny_model, memory="top-k", top_k=600)
    assert session.choice.kind == kind
    assert isinstance(session.state.layers[1].memory, ApproximateMemory)
    assert len(session.find("the river")) == len(exact.find("the river"))
    answers = [session.ask("Who saw the lamp?", sampling=SHORT, look_up=0).ids for _ in range(2)]
    assert answers[0] == answers[1]
    remove_index(book, kind)
    assert not [path for path in book.iterdir() if path.name.startswith("index")]


def test_with_as_many_as_there_are_every_kind_answers_alike(book, tiny_model):
    for kind in INDEX_KINDS:
        build(book, kind)
    stored = StoredBook.open(book)
    answers = {
        kind: Session(stored, tiny_model, memory=kind, top_k=10**6)
        .ask("Who saw the lamp?", sampling=SHORT, look_up=0)
        .ids
        for kind in kinds.MEMORY_KINDS
        if kind != "int8"
    }
    assert len(set(answers.values())) == 1, answers


def test_a_packed_book_can_have_an_index(tiny_model, tiny_document, tmp_path):
    for _ in read_steps(tiny_document, tiny_model, tmp_path / "b", packed=True):
        pass
    build(tmp_path / "b", "hnsw")
    session = Session(StoredBook.open(tmp_path / "b"), tiny_model, memory="hnsw")
    assert session.find("the river")


def missing(path):
    path.unlink()


def truncated(path):
    os.truncate(path, path.stat().st_size - 1)


def flipped(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


def a_link(path):
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", [record_file(KIND), head_file(KIND, 2, 1)])
@pytest.mark.parametrize("damage", [missing, truncated, flipped, a_link, a_pipe, a_folder])
def test_a_damaged_index_is_not_opened_and_can_be_built_anew(indexed, tiny_model, monkeypatch, name, damage):
    before = places_of(indexed)
    damage(indexed / name)
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("handed to Faiss"))
    with pytest.raises(BookError, match="longfocus index") as refused:
        open_index(StoredBook.open(indexed), KIND)
    assert len(str(refused.value).splitlines()) == 1
    monkeypatch.undo()
    if damage is a_folder:
        (indexed / name).rmdir()
    monkeypatch.setattr(seal, "key_path", lambda: indexed.parent / "user" / "index.key")
    session = Session(StoredBook.open(indexed), tiny_model, memory=KIND)
    (note,) = session.notes
    assert note.endswith("it was built")
    assert isinstance(session.state.layers[1].memory, ApproximateMemory)
    assert_close(places_of(indexed), before)


def test_a_record_that_is_none(indexed):
    for contents in (b"", b"{}", b"null", b"[1]", b"\xff", b"[" * 100_000, b'{"seal": 5}', b'{"seal": "\xc3\xa9"}'):
        (indexed / record_file(KIND)).write_bytes(contents)
        assert trouble(indexed) is not None


def test_a_record_that_was_changed(indexed):
    """Each of its values, however well it is chosen."""
    record = json.loads((indexed / record_file(KIND)).read_text())
    for name in record:
        changed = {**record, name: {} if name == "files" else "x"}
        (indexed / record_file(KIND)).write_text(json.dumps(changed))
        assert "not built by this user" in (trouble(indexed) or "")


def test_an_index_from_elsewhere_is_not_opened(indexed, tmp_path, monkeypatch):
    """As it comes with a Book of another user: whole, but who knows what is in it."""
    monkeypatch.setattr(seal, "key_path", lambda: tmp_path / "other" / "index.key")
    assert "not built by this user" in (trouble(indexed) or "")
    build(indexed)
    assert trouble(indexed) is None


def test_the_key_is_made_once_for_this_user_alone(tmp_path):
    first = seal.seal_of({"a": 1})
    assert seal.seal_of({"a": 1}) == first != seal.seal_of({"a": 2})
    assert seal.key_path().stat().st_mode & 0o077 == 0
    assert [path.name for path in seal.key_path().parent.iterdir()] == ["index.key"]
    seal.key_path().write_bytes(b"short")
    with pytest.raises(BookError, match="damaged"):
        seal.seal_of({})


def damaged_key():
    seal.key_path().write_bytes(b"short")


def unreadable_key():
    seal.key_path().unlink()
    seal.key_path().mkdir()


@pytest.mark.parametrize("spoil", [damaged_key, unreadable_key])
def test_without_a_key_a_book_is_asked_and_its_index_is_not_believed(indexed, tiny_model, monkeypatch, spoil):
    """As in a container, or where the home cannot be read: the Book is whole, and says why it is searched in full."""
    monkeypatch.setattr(kinds, "INDEX_FROM", 10)
    wanted = Session(StoredBook.open(indexed), tiny_model, memory="top-k").find("the river")
    spoil()
    session = Session(StoredBook.open(indexed), tiny_model, memory="auto")
    (note,) = session.notes
    assert str(seal.key_path()) in note
    assert note.endswith("all keys are searched")
    assert session.find("the river") == wanted
    assert str(seal.key_path()) in facts_of(StoredBook.open(indexed)).indexes[0]
    assert kinds_to_compare(StoredBook.open(indexed), "usual") == ["dense", "top-k", "int8"]
    with pytest.raises(BookError, match=r"index\.key"):
        build(indexed)
    remove_index(indexed, KIND)
    assert not indexes_in(indexed)


def test_checking_makes_no_key(indexed, tmp_path, monkeypatch):
    monkeypatch.setattr(seal, "key_path", lambda: tmp_path / "other" / "index.key")
    assert "not built by this user" in (trouble(indexed) or "")
    assert not seal.key_path().exists()


def test_an_index_of_another_book_is_stale(indexed, tiny_model, tiny_document, tmp_path):
    """Also of the same document, read to another place, or looking back further."""
    other = tmp_path / "other.book"
    for _ in read_steps(tiny_document, tiny_model, other, most=900):
        pass
    for path in indexed.glob("index-*"):
        shutil.copy2(path, other)
    assert trouble(other) == "is of other entries than the Book has now"
    with pytest.raises(BookError, match="other entries"):
        open_index(StoredBook.open(other), KIND)


def test_a_copied_book_keeps_its_index(indexed, tmp_path):
    """Files with other times and identities are read through, and are as they were."""
    copy = shutil.copytree(indexed, tmp_path / "copy.book", copy_function=shutil.copyfile)
    assert trouble(copy) is None
    assert_close(places_of(copy), places_of(indexed))
    flipped(copy / head_file(KIND, 1, 0))
    assert trouble(copy) == "is damaged"


def test_a_file_that_is_whole_is_not_read_through(indexed, monkeypatch):
    from longfocus.memory import index_files

    monkeypatch.setattr(index_files, "file_digest", lambda *_: pytest.fail("read through"))
    assert trouble(indexed) is None


def test_stopped_at_every_write(book, tiny_model, crash_points):
    """There is no index or the whole one, and the Book is what it was."""
    wanted = Session(StoredBook.open(book), tiny_model).find("the river")
    number, points = 0, True
    while points:
        number += 1
        points = crash_points.run(book, number, lambda: build(book, "sq8"))
        assert trouble(book, "sq8") == (None if not points else "is not there")
        assert Session(StoredBook.open(book), tiny_model).find("the river") == wanted
    assert number > 4 * 2
    # and the same where there was one before
    for number in range(1, 6):
        assert crash_points.run(book, number, lambda: build(book, "sq8"))
        build(book, "sq8")
        assert trouble(book, "sq8") is None


def test_no_two_at_once(book):
    going = build_index(StoredBook.open(book), KIND)
    next(going)
    with pytest.raises(BookError, match="in use"):
        build(book)
    going.close()
    build(book)


def test_where_faiss_is_missing(indexed, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    for attempt in (lambda: build(indexed), lambda: open_index(StoredBook.open(indexed), KIND)):
        with pytest.raises(RequestError, match=r"pip install 'longfocus\[search\]'"):
            attempt()


def test_a_book_without_memory_needs_no_index(tiny_model, tiny_document, tmp_path):
    for _ in read_steps(tiny_document, tiny_model, tmp_path / "b", most=20):
        pass
    with pytest.raises(BookError, match="fits the window"):
        build(tmp_path / "b")
    for kind in kinds.MEMORY_KINDS:
        assert memories_of(StoredBook.open(tmp_path / "b"), kind, 4)


def test_an_index_that_is_named_and_missing_is_built_and_told(book, tiny_model):
    with pytest.warns(UserWarning, match="is not there; it was built"):
        asked = Book.open(book, tiny_model, memory=KIND)
    assert asked.session.choice.kind == KIND
    assert len(asked.notes) == 1
    assert trouble(book) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Book.open(book, tiny_model, memory=KIND).notes == ()


def test_an_index_that_is_named_and_cannot_be_built_is_refused(book, tiny_model):
    """Never another memory in its place."""
    with FileLock(book / LOCK), pytest.raises(BookError, match="in use"):
        Session(StoredBook.open(book), tiny_model, memory=KIND)


def test_an_index_that_is_not_named_and_cannot_be_opened_is_passed_by(indexed, tiny_model, monkeypatch):
    """As where Faiss is not installed, or is of another version; told, and found exactly."""
    wanted = Session(StoredBook.open(indexed), tiny_model).find("the river")
    monkeypatch.setattr(kinds, "INDEX_FROM", 10)
    assert "found by the index" in Session(StoredBook.open(indexed), tiny_model).notes[0]
    monkeypatch.setitem(sys.modules, "faiss", None)
    session = Session(StoredBook.open(indexed), tiny_model)
    assert session.choice.kind == "top-k"
    (note,) = session.notes
    assert "was not used" in note
    assert "pip install" in note
    assert session.find("the river") == wanted


def test_a_model_that_sees_all_is_told_of_a_choice_of_few(indexed):
    (note,) = choose(StoredBook.open(indexed), "top-k", None).notes
    assert "128 entries" in note


def test_building_goes_on_where_it_was_stopped(book):
    """With the heads that are done; but not with those that were changed since, nor for other entries."""
    going = build_index(StoredBook.open(book), KIND)
    assert [next(going).done for _ in range(3)] == [0, 1, 2]
    going.close()
    assert trouble(book) == "is not there"
    assert build(book) == [2, 3, 4]
    whole = places_of(book)
    remove_index(book, KIND)
    going = build_index(StoredBook.open(book), KIND)
    for _ in range(4):
        next(going)
    going.close()
    flipped(book / head_file(KIND, 1, 0))
    assert build(book) == [2, 3, 4]
    assert_close(places_of(book), whole)
    assert not list(book.glob("index-*unfinished*"))


def test_an_index_is_not_removed_while_the_book_is_in_use(indexed):
    with FileLock(indexed / LOCK), pytest.raises(BookError, match="in use"):
        remove_index(indexed, KIND)
    assert trouble(indexed) is None


def test_which_memory_answers(indexed, monkeypatch):
    stored = StoredBook.open(indexed)
    assert choose(stored, "auto", None).kind == "dense"
    assert choose(stored, "auto", 16) == kinds.Choice("top-k")
    assert choose(stored, "int8", 16).kind == "int8"
    with pytest.raises(RequestError, match="no memory 'best'"):
        choose(stored, "best", 16)
    monkeypatch.setattr(kinds, "INDEX_FROM", 10)
    assert choose(stored, "auto", None).kind == "dense"
    assert choose(stored, "auto", 16).kind == KIND
    truncated(indexed / head_file(KIND, 1, 1))
    found = choose(stored, "auto", 16)
    assert found.kind == "top-k"
    assert "is damaged" in found.notes[0]


def test_entries_of_a_book_that_changed_make_the_index_stale(indexed):
    """A Book that was damaged is refused itself, before its index is looked at."""
    flipped(indexed / layer_files(1)[0])
    with pytest.raises(BookError, match="checksum"):
        StoredBook.open(indexed)


def test_what_finds_passages_has_a_memory_of_its_own(book, tiny_model):
    """A model that answers with all of memory, and another under it that finds by the best entries."""
    both = replace(tiny_model, habits=TRAINED, plain=tiny_model)
    session = Session(StoredBook.open(book), both)
    assert session.choice.kind == "dense"
    assert isinstance(session.state.layers[1].memory, DiskMemory)
    assert isinstance(session.finding.layers[1].memory, TopKMemory)
    assert session.find("the river") == Session(StoredBook.open(book), tiny_model).find("the river")
