"""Prose behind a long memory: what is trained is what a Book, read so far, would be gone on with."""

import pytest
import torch
import torch.nn.functional as F

from longfocus.errors import RequestError
from longfocus.loading.load import load
from longfocus.memory.book import StoredBook
from longfocus.reading.documents import Document
from longfocus.reading.reader import read_steps
from longfocus.training.lessons import RecallLesson, with_lora
from longfocus.training.long_prose import LongProse, Shelf
from tests.conftest import write_tiny_model

WINDOW, SINKS = 32, 4


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Two layers, with memory in the first one, whose entries depend on nothing before them."""
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny") / "model", num_hidden_layers=2)
    return load(folder, mem_layers=[0], window=WINDOW, dtype="float32")


def read(loaded, text, folder):
    for _ in read_steps(Document("a book", text, (0, len(text))), loaded, folder, framed=False):
        pass
    return StoredBook.open(folder)


@pytest.fixture(scope="module")
def books(loaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("books")
    texts = (" ".join(f"{word}{number}" for number in range(150)) for word in ("ship", "lamp"))
    return [read(loaded, text, folder / str(number)) for number, text in enumerate(texts)]


@pytest.fixture(scope="module")
def shelf(books):
    return Shelf(books)


def prose(shelf, loaded, **changes):
    given = {"batches": 300, "rows": 1, "longest": 10**6, "seed": 3} | changes
    return LongProse(shelf, loaded.model.config.stride, **given)


def test_a_passage_is_predicted_as_behind_a_book_read_so_far(loaded, books, shelf, tmp_path):
    """Where the passage begins at a border of the Book's windows, and memory reaches back to the first token."""
    stride = loaded.model.config.stride
    batch = next(
        batch
        for batch in prose(shelf, loaded)
        if (own := batch["seen"][0, 0])[1] == SINKS
        and own[2] > SINKS + stride
        and (own[2] - SINKS) % stride == 0
        and batch["seen"][0, 1, 1] == batch["seen"][0, 1, 2]
    )
    book, _, fresh = batch["seen"][0, 0].tolist()
    place = fresh - SINKS + 3 * stride
    ids = books[book].ids
    assert torch.equal(batch["asked"][0], ids[place : place + stride])
    so_far = read(loaded, books[book].text[: int(books[book].ends[place - 1])], tmp_path / "so far")
    assert torch.equal(so_far.ids, ids[:place])
    with torch.inference_mode():
        state = so_far.state(so_far.memories(), torch.float32)
        logits = loaded.model(batch["asked"], past_key_values=state, use_cache=True, last_context_length=stride).logits
        wanted = F.cross_entropy(logits[0, :-1], batch["asked"][0, 1:])
    student = with_lora(load(loaded.folder, mem_layers=[0], window=WINDOW, dtype="float32").model, 4, ["q_proj"])
    lesson = RecallLesson(student, reads=False, shelf=shelf).train()
    figures = lesson(**batch)
    assert float(figures["loss"].detach()) == pytest.approx(float(wanted), rel=1e-4)
    figures["loss"].backward()
    assert all(parameter.grad is not None for parameter in student.parameters() if parameter.requires_grad)
    assert not lesson.carried(), "the bank is for records"
    far = float(lesson(**batch | {"seen": batch["seen"][:, 1:]})["loss"].detach())
    assert far != pytest.approx(float(wanted), rel=1e-4), "memory makes a difference"


def test_a_shelf_gives_what_stands_in_memory(books, shelf):
    found = shelf.entries(torch.tensor([[1, 10, 30], [0, 50, 50], [0, SINKS, 6]]))
    assert found.keys() == books[0].memories().keys()
    for layer, both in found.items():
        held = [book.memories()[layer].entries() for book in books]
        for which, tensor in enumerate(both):
            assert torch.equal(tensor[:, :, :20], held[1][which][:, :, 10 - SINKS : 30 - SINKS])
            assert torch.equal(tensor[:, :, 20:], held[0][which][:, :, :2])


def test_memory_is_of_what_came_before_and_of_other_books(loaded, books, shelf):
    stride, others = loaded.model.config.stride, 0
    for batch in prose(shelf, loaded, rows=3, batches=60, longest=4000):
        assert batch["documents"].shape == (3, 3 * stride)
        assert batch["asked"].shape == (3, stride)
        for document, asked, (own, other) in zip(batch["documents"], batch["asked"], batch["seen"], strict=True):
            book, first, fresh = own.tolist()
            ids = books[book].ids
            assert SINKS <= first <= fresh
            assert torch.equal(document[SINKS:], ids[fresh : fresh + 3 * stride - SINKS])
            assert torch.equal(document[:SINKS], ids[:SINKS])
            assert torch.equal(asked, ids[fresh + 3 * stride - SINKS :][:stride])
            which, begun, ended = other.tolist()
            assert begun <= ended <= len(books[which].ids) - 3 * stride
            assert which != book or begun == ended
            others += ended > begun
    assert 20 < others < 120


def test_a_batch_depends_on_its_number_and_the_seed(loaded, shelf):
    def same(one, other):
        return all(torch.equal(one[name], other[name]) for name in one)

    assert same(prose(shelf, loaded)[7], prose(shelf, loaded, batches=9)[7])
    assert not same(prose(shelf, loaded)[7], prose(shelf, loaded)[8])
    assert not same(prose(shelf, loaded)[7], prose(shelf, loaded, seed=4)[7])
    with pytest.raises(IndexError, match="300 of 300"):
        prose(shelf, loaded)[300]


def test_what_cannot_be_done(loaded, tmp_path):
    with pytest.raises(RequestError, match="no books"):
        Shelf([])
    short = read(loaded, "one two three", tmp_path / "short")
    with pytest.raises(RequestError, match=f"no book has the {4 * loaded.model.config.stride} tokens"):
        prose(Shelf([short]), loaded)
