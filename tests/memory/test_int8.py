"""Entries in one byte a number: how far they are off, and Books that are packed."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from longfocus.asking.session import Session
from longfocus.errors import BookError
from longfocus.memory.book import StoredBook
from longfocus.memory.int8 import Int8Memory, centre_of, pack, unpack
from longfocus.memory.layout import MANIFEST, PROGRESS, layer_files
from longfocus.memory.writer import BookWriter
from longfocus.model.memory import DenseMemory
from longfocus.reading.reader import read_steps

pytestmark = pytest.mark.usefixtures("without_gradients")
SCALE = 0.3


@settings(max_examples=60, deadline=None)
@given(
    heads=st.integers(1, 5),
    count=st.integers(0, 7),
    dim=st.sampled_from([2, 6, 64]),
    size=st.sampled_from([0.0, 1e-3, 1.0, 300.0, 1e6]),
    centred=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_number_is_off_by_a_bounded_part_of_its_step(some, heads, count, dim, size, centred, seed):
    entries = some(1, heads, count, dim, seed=seed) * size + size
    centre = centre_of(entries) if centred else None
    codes, steps = unpack(pack(entries, centre), heads)
    found = (codes * steps[..., None]).transpose(1, 2)
    rest = entries if centre is None else entries - centre[:, None]
    step = rest.abs().amax(-1, keepdim=True) / 127
    # below the smallest step that float16 has, numbers are off by at most that
    assert bool(((found - rest).abs() <= 0.57 * step + 127 * 2**-24).all())


def test_a_packed_record_has_half_the_bytes(some):
    """And two more for each head, which is 66 instead of 128 for heads of 64 numbers."""
    assert pack(some(1, 3, 5, 64)).shape == (1, 5, 3 * (64 + 2))


def test_what_keys_share_costs_no_precision(some):
    """Keys far from zero, close to each other: attention as of float32 to a thousandth."""
    keys, values = some(1, 2, 300, 8, seed=1) + 50, some(1, 2, 300, 8, seed=2)
    query = some(1, 4, 3, 8, seed=3)
    found = Int8Memory.of(keys, values).attend(query, SCALE)
    wanted = DenseMemory.of(keys, values).attend(query, SCALE)
    assert_close(found[0], wanted[0], rtol=0, atol=0.03)
    assert_close(found[1], wanted[1], rtol=0, atol=0.03)


def test_blocks_are_unpacked_one_at_a_time(some, monkeypatch):
    """Never all of a memory, whoever asks."""
    from longfocus.memory import int8
    from longfocus.memory.int8 import BLOCK
    from longfocus.memory.top_k import TopKMemory

    memory = Int8Memory.of(some(1, 2, 3 * BLOCK, 8, seed=1), some(1, 2, 3 * BLOCK, 8, seed=2))
    unpacked = []
    monkeypatch.setattr(
        int8, "unpack", lambda records, heads: unpacked.append(records.shape[-2]) or unpack(records, heads)
    )
    monkeypatch.setattr(Int8Memory, "entries", lambda _: pytest.fail("all were unpacked"))
    memory.attend(some(1, 4, 2, 8), SCALE)
    TopKMemory(memory, 5).attend(some(1, 4, 2, 8), SCALE)
    assert len(unpacked) > 6
    assert max(unpacked) == BLOCK


@pytest.fixture(scope="module")
def packed_folder(tiny_model, tiny_document, tmp_path_factory):
    """The document read by the small model into a packed Book; memory is looked at while reading."""
    folder = tmp_path_factory.mktemp("packed") / "story.book"
    for _ in read_steps(tiny_document, tiny_model, folder, look_back=None, packed=True):
        pass
    return folder


@pytest.fixture(scope="module")
def plain_folder(tiny_model, tiny_document, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "story.book"
    for _ in read_steps(tiny_document, tiny_model, folder, look_back=None):
        pass
    return folder


def test_a_packed_book_holds_what_was_read(packed_folder, plain_folder):
    """Up to rounding, and up to what rounding does to what is read after."""
    packed, plain = StoredBook.open(packed_folder), StoredBook.open(plain_folder)
    assert packed.manifest.reading.dtype == "int8"
    assert packed.progress.entries == plain.progress.entries
    for layer in (1, 2):
        for found, wanted in zip(packed.memories()[layer].entries(), plain.memories()[layer].entries(), strict=True):
            if wanted is not None:
                off = (found - wanted.float()).abs().amax() / wanted.float().abs().amax()
                assert off < 0.02


def test_a_packed_book_is_half_on_disk(packed_folder, plain_folder):
    for name in (*layer_files(1), *layer_files(2)):
        ratio = (packed_folder / name).stat().st_size / (plain_folder / name).stat().st_size
        assert ratio == (16 + 2) / 32  # heads of 16 numbers


def test_a_packed_book_answers_as_the_plain_one(packed_folder, plain_folder, tiny_model):
    for question in ("Who saw the river?", "What is a lamp?"):
        answers = [
            Session(StoredBook.open(folder), tiny_model, top_k=8).find(question, 3)
            for folder in (packed_folder, plain_folder)
        ]
        assert [each.start for each in answers[0]] == [each.start for each in answers[1]]


def test_reading_on_gives_the_same_bytes(packed_folder, tiny_model, tiny_document, tmp_path):
    """Stopped after each of some windows: what reading looks back at is rounded as what is on disk."""
    folder = tmp_path / "story.book"
    options = {"look_back": None, "packed": True}
    for windows in (1, 2, 3, 7, None):
        steps = read_steps(tiny_document, tiny_model, folder, **options)
        for number, _ in enumerate(steps):
            if number == windows:
                break
        steps.close()
    for name in (*layer_files(1), *layer_files(2)):
        assert (folder / name).read_bytes() == (packed_folder / name).read_bytes()


def test_looking_back_at_little_keeps_the_centre(tiny_model, tiny_document, tmp_path):
    """What keys miss is the same from the first window to the last, though the first entries are forgotten."""
    for _ in read_steps(tiny_document, tiny_model, tmp_path / "a.book", look_back=0, packed=True):
        pass
    for _ in read_steps(tiny_document, tiny_model, tmp_path / "b.book", look_back=0):
        pass
    packed, plain = (StoredBook.open(tmp_path / name).memories()[2].entries().keys[0] for name in ("a.book", "b.book"))
    spread = (plain.float() - plain.float().mean(1, keepdim=True)).abs().amax()
    assert (packed - plain.float()).abs().amax() < 2 * spread / 127


def test_going_on_in_another_dtype_is_refused(packed_folder, plain_folder, tiny_model, tiny_document):
    for folder, packed in ((packed_folder, False), (plain_folder, True)):
        with pytest.raises(BookError, match="with dtype"):
            next(read_steps(tiny_document, tiny_model, folder, look_back=None, packed=packed))


def test_only_a_packed_book_needs_the_newer_format(packed_folder, plain_folder):
    formats = [json.loads((folder / MANIFEST).read_text())["format"] for folder in (packed_folder, plain_folder)]
    assert formats == [3, 2]


def damaged(folder, tmp_path, name, change):
    book = tmp_path / "damaged.book"
    shutil.copytree(folder, book)
    record = json.loads((book / name).read_text())
    change(record)
    (book / name).write_text(json.dumps(record))
    with pytest.raises(BookError) as refused:
        StoredBook.open(book).memories()
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_records_that_make_no_sense(packed_folder, plain_folder, tmp_path):
    assert MANIFEST in damaged(packed_folder, tmp_path / "1", MANIFEST, lambda record: record.update(format=2))
    packed = {"dtype": "int8"}
    line = damaged(plain_folder, tmp_path / "2", MANIFEST, lambda r: (r.update(format=3), r["reading"].update(packed)))
    assert "checksum" in line
    odd = {"head_dim": 17, "key_heads": 1}
    assert MANIFEST in damaged(packed_folder, tmp_path / "3", MANIFEST, lambda record: record["reading"].update(odd))


def test_a_window_without_the_centre_is_refused(packed_folder, plain_folder, tmp_path):
    """The window of the plain Book in the packed one's folder, with its checksum."""
    book = tmp_path / "story.book"
    shutil.copytree(packed_folder, book)
    (window,) = plain_folder.glob("window-*")
    shutil.copy(window, book)
    record = json.loads((book / PROGRESS).read_text())
    record["state_files"] = json.loads((plain_folder / PROGRESS).read_text())["state_files"]
    (book / PROGRESS).write_text(json.dumps(record))
    with pytest.raises(BookError, match=window.name):
        StoredBook.open(book).memories()


class Torn:
    """A file of which the process is stopped in the midst of a write."""

    def __init__(self, file, points):
        self._file, self._points = file, points

    def write(self, data):
        self._file.write(data[: len(data) // 2])
        self._points.passed()
        self._file.write(data[len(data) // 2 :])

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_stopped_at_every_write(tiny_model, tiny_document, tmp_path, crash_points, monkeypatch):
    """What is there is valid or not begun, and is gone on with to the same bytes."""
    real = BookWriter._file

    def read(folder):
        for _ in read_steps(tiny_document, tiny_model, folder, look_back=None, packed=True, most=90):
            pass

    read(tmp_path / "whole")
    number, points = 0, True
    while points:
        number += 1
        folder = tmp_path / str(number)
        monkeypatch.setattr(BookWriter, "_file", lambda self, name: Torn(real(self, name), crash_points))
        points = crash_points.run(folder, number, lambda folder=folder: read(folder))
        monkeypatch.setattr(BookWriter, "_file", real)
        if (folder / MANIFEST).exists():
            StoredBook.open(folder, complete=False).memories()
        read(folder)
        for name in (*layer_files(1), *layer_files(2)):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        StoredBook.open(folder)
        shutil.rmtree(folder)
    assert number > 30
