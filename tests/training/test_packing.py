"""Packing: the rows of a plain implementation, for any documents, on any number of processes, from any place on.

Compatibility test 20: rows jk..jk+k-1 concatenate to the stream; targets cross the borders of windows; a
beginning-of-sequence token is no target, an end-of-sequence token is one; a row goes on with its document.
"""

import json
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.errors import RequestError
from longfocus.training.crossbatch import CrossBatch
from longfocus.training.documents import ListedDocuments, TrainingDocument
from longfocus.training.mixture import Mixture
from longfocus.training.packing import PackedDataset, Packing
from longfocus.training.sources import Source

BOS, EOS, FIRST = 1, 2, 3

lengths_of_documents = st.lists(st.integers(0, 14), min_size=1, max_size=14)


def text_of(number, length):
    """Other tokens in each document; the mark of a beginning is one of them, where it marks nothing."""
    return "".join(chr(BOS if place == 2 else FIRST + 20 * number + place) for place in range(length))


def encode(text):
    return [BOS, *map(ord, text), EOS]


def source_of(lengths, name="some", seed=None, epochs=1):
    documents = [TrainingDocument(text_of(number, length), str(number)) for number, length in enumerate(lengths)]
    return Source(name, ListedDocuments(documents), encode, seed=seed, epochs=epochs)


def mixture_of(lengths, epochs=1):
    parts = {"a": lengths, "b": [*lengths[::-1], 3]}
    sources = [source_of(part, name, 0, epochs) for name, part in parts.items()]
    return Mixture(sources, {"a": 2, "b": 1}, seed=0)


def dataset_of(stream, packing, **process):
    return PackedDataset(stream, packing, bos_token_id=BOS, **process)


def plain(documents, packing):
    """Inputs, labels and numbers of documents, made from lists of (token, number, whether it is a target)."""
    documents, batches = iter(enumerate(documents)), []
    each = packing.rows // packing.streams * packing.length
    queues = [[] for _ in range(packing.streams)]
    while True:
        for queue in queues:
            while len(queue) < each + 1:
                number, document = next(documents, (None, None))
                if document is None:
                    return batches
                tokens = document.tokens.tolist()
                queue += [(token, number, place > 0) for place, token in enumerate(tokens)]
        flat = [queue[: each + 1] for queue in queues]
        inputs = [token for part in flat for token, _, _ in part[:-1]]
        labels = [token if target else -100 for part in flat for token, _, target in part[1:]]
        numbers = [number for part in flat for _, number, _ in part[:-1]]
        batches.append(
            {
                name: torch.tensor(values).reshape(packing.rows, packing.length)
                for name, values in (("input_ids", inputs), ("labels", labels), ("document_ids", numbers))
            }
        )
        queues = [queue[each:] for queue in queues]


def same(one, other):
    return len(one) == len(other) and all(
        left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
        for left, right in zip(one, other, strict=True)
    )


@st.composite
def packings(draw):
    name = draw(st.sampled_from(["linear", "doc_aware", "doc_aware_k1", "doc_aware_k2", "doc_aware_k3"]))
    k = int(name[-1]) if name[-1].isdigit() else 1
    return Packing.named(name, k * draw(st.integers(1, 3)), draw(st.integers(1, 6)))


@settings(deadline=None)
@given(lengths_of_documents, packings(), st.sampled_from([None, 0]))
def test_batches_are_those_of_a_plain_implementation(lengths, packing, seed):
    found = list(dataset_of(source_of(lengths, seed=seed, epochs=2), packing))
    assert same(found, plain(source_of(lengths, seed=seed, epochs=2), packing))
    for batch in found:
        assert all(tensor.shape == (packing.rows, packing.length) for tensor in batch.values())
        assert all(tensor.dtype == torch.int64 for tensor in batch.values())


@settings(deadline=None)
@given(lengths_of_documents, packings())
def test_the_rows_of_a_stream_one_after_the_other_are_whole_documents(lengths, packing):
    """Nothing is lost or repeated: streams hold each document once and whole, but for what is left over at the end."""
    dataset = dataset_of(source_of(lengths, epochs=2), packing)
    found = list(dataset)
    documents = [document.tokens.tolist() for document in source_of(lengths, epochs=2)]
    each, seen, tokens = packing.rows // packing.streams, set(), 0
    for stream in range(packing.streams):
        rows = slice(stream * each, stream * each + each)
        flat = [(token, number) for batch in found for token, number in zip(
            batch["input_ids"][rows].flatten().tolist(), batch["document_ids"][rows].flatten().tolist(), strict=True
        )]  # fmt: skip
        numbers = list(dict.fromkeys(number for _, number in flat))
        assert numbers == sorted(numbers)
        assert not seen & set(numbers)
        seen |= set(numbers)
        joined = [token for number in numbers for token in documents[number]]
        assert joined[: len(flat)] == [token for token, _ in flat]
        tokens += len(flat)
    assert tokens + dataset.left_over == dataset.taken()["some"].tokens


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, packings(), st.booleans())
def test_going_on_from_every_batch_loses_and_repeats_nothing(lengths, packing, mixed):
    def made():
        return dataset_of(mixture_of(lengths) if mixed else source_of(lengths, seed=0, epochs=2), packing)

    whole, first = [], made()
    states = [first.state_dict()]
    for batch in first:
        whole.append(batch)
        states.append(json.loads(json.dumps(first.state_dict())))
    assert list(first) == []
    ended = (first.left_over, first.taken())
    for place, state in enumerate(states):  # each state leads to the next, by the batch between them
        other = made()
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert same([next(iter(other))] if place < len(whole) else list(other), whole[place : place + 1])
        assert place == len(whole) or other.state_dict() == states[place + 1]
    assert (other.left_over, other.taken()) == ended


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, packings(), st.integers(2, 3), st.data())
def test_processes_together_see_what_one_would(lengths, packing, world, data):
    packing = Packing(packing.rows * world, packing.length, 1 if packing.streams == 1 and packing.pack == 1 else
                      packing.streams * world, packing.pack)  # fmt: skip
    whole = list(dataset_of(mixture_of(lengths), packing))
    shares = [dataset_of(mixture_of(lengths), packing, rank=rank, world_size=world) for rank in range(world)]
    before = data.draw(st.integers(0, len(whole)))
    loops = [iter(share) for share in shares]
    found = [[next(loop) for loop in loops] for _ in range(before)]
    states = [share.state_dict() for share in shares]
    assert all(state == states[0] for state in states)
    # another number of processes goes on
    after = dataset_of(mixture_of(lengths), packing)
    after.load_state_dict(states[-1])
    together = [{name: torch.cat([part[name] for part in parts]) for name in parts[0]} for parts in found]
    assert same(together + list(after), whole)


def test_what_the_pipelines_of_longllama_are():
    """By hand: documents of 6, 4 and 8 tokens in rows of 2."""
    documents = [encode(text_of(number, length)) for number, length in enumerate([4, 2, 6, 30, 30])]
    flat = [token for document in documents for token in document]

    def first_rows(name):
        batch = next(iter(dataset_of(source_of([4, 2, 6, 30, 30]), Packing.named(name, 4, 2))))
        return batch["input_ids"].tolist(), batch["labels"].tolist()

    inputs, labels = first_rows("linear")
    assert list(chain(*inputs)) == flat[:8]
    assert list(chain(*labels)) == [*flat[1:6], -100, *flat[7:9]]  # the first of the second document is no target
    inputs, labels = first_rows("doc_aware")
    assert inputs == [document[:2] for document in documents[:4]]
    assert labels == [document[1:3] for document in documents[:4]]
    inputs, labels = first_rows("doc_aware_k2")
    assert list(chain(*inputs)) == documents[0][:4] + documents[1][:4]
    # a stream of four tokens that all are taken needs one more, so the second document is followed by the third
    assert list(chain(*labels)) == [*documents[0][1:5], *documents[1][1:4], -100]


@pytest.mark.parametrize("name", ["linear", "doc_aware", "doc_aware_k2"])
def test_a_target_is_the_next_token_across_the_borders_of_windows_and_batches(name):
    packing = Packing.named(name, 4, 4)
    found = list(dataset_of(source_of([60, 70, 80, 90]), packing))
    each = packing.rows // packing.streams
    for stream in range(packing.streams):
        rows = slice(stream * each, stream * each + each)
        inputs = torch.cat([batch["input_ids"][rows].flatten() for batch in found])
        labels = torch.cat([batch["labels"][rows].flatten() for batch in found])
        numbers = torch.cat([batch["document_ids"][rows].flatten() for batch in found])
        borders = numbers[1:] != numbers[:-1]
        assert torch.equal(labels[:-1][~borders], inputs[1:][~borders])
        assert bool((labels[:-1][borders] == -100).all())
        assert bool((inputs[:-1][borders] == EOS).all())
        ends = inputs == EOS
        assert torch.equal(labels[:-1][ends[1:]], inputs[1:][ends[1:]])  # an end is a target
        assert int((labels == BOS).sum()) > 0  # the same token inside a document is one too


def test_without_a_mark_of_the_beginning_every_token_is_a_target():
    source = Source("some", ListedDocuments([TrainingDocument("abcdefg", "0")]), lambda text: [*map(ord, text), EOS],
                    seed=None, epochs=3)  # fmt: skip
    batches = list(PackedDataset(source, Packing.linear(1, 4), bos_token_id=None))
    labels = torch.cat([batch["labels"].flatten() for batch in batches])
    assert labels.tolist() == [*b"bcdefg", EOS, *b"abcdefg", EOS, *b"abcde"]


def test_a_batch_is_not_changed_by_the_next():
    dataset = dataset_of(source_of([200]), Packing.linear(2, 8))
    loop = iter(dataset)
    first = next(loop)
    before = {name: tensor.clone() for name, tensor in first.items()}
    first["input_ids"].fill_(0)
    assert not bool((next(loop)["input_ids"] == 0).any())
    first["input_ids"].copy_(before["input_ids"])
    assert same([first], [before])


@pytest.mark.parametrize("name", ["linear", "doc_aware", "doc_aware_k4"])
def test_cross_batch_attention_takes_the_same_packs(name):
    packing = Packing.named(name, 8, 4)
    assert len(CrossBatch(3, True, packing.pack).seen(packing.rows)) == 8
    assert packing.pack == (4 if name == "doc_aware_k4" else 1)


def test_a_state_is_small_however_long_the_documents_are():
    sizes = []
    for length in (1_000, 100_000):
        documents = ListedDocuments([TrainingDocument("x" * length, str(number)) for number in range(6)])
        dataset = dataset_of(Source("some", documents, encode, seed=0), Packing.doc_aware_k(4, 8, 2))
        next(iter(dataset))
        sizes.append(len(json.dumps(dataset.state_dict())))
    assert max(sizes) < 600


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"packing": Packing.linear(2, 4)}, "packing was .* and is "),
        ({"lengths": [40, 41]}, "1 of 'some' had 42 tokens and has 43"),
        ({"lengths": [40]}, "Document 1 of 'some' is wanted from 'some', which has 1"),
        ({"seed": 1}, "seed was None and is 1"),
    ],
)
def test_a_state_of_another_run_is_refused_and_changes_nothing(change, message):
    def made(lengths=(40, 40), packing=None, seed=None):
        return dataset_of(source_of(lengths, seed=seed), packing or Packing.doc_aware(2, 4))

    first = made()
    next(iter(first))
    other = made(**change)
    before = other.state_dict()
    with pytest.raises(RequestError, match=message):
        other.load_state_dict(first.state_dict())
    assert other.state_dict() == before


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Packing.named("doc_aware_k0", 4, 2), "no packing 'doc_aware_k0'"),
        (lambda: Packing.named("documents", 4, 2), "wanted linear, doc_aware, or doc_aware_k4"),
        (lambda: Packing.named("doc_aware_k3", 4, 2), "4 rows cannot be made of packs of 3"),
        (lambda: Packing.doc_aware_k(4, 2, 0), "packs of 0"),
        (lambda: Packing.linear(0, 2), "0 rows of 2 tokens"),
        (lambda: dataset_of(None, Packing.doc_aware_k(4, 2, 4), world_size=2), "cannot be shared by 2 processes"),
        (lambda: dataset_of(None, Packing.linear(4, 2), rank=2, world_size=2), "Process 2 of 2"),
    ],
)
def test_batches_that_make_no_sense(made, message):
    with pytest.raises(RequestError, match=message):
        made()
