"""Sources: every document once an epoch, in an order of the seed, and exactly on from any place."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.errors import RequestError
from longfocus.training.documents import ListedDocuments, TrainingDocument
from longfocus.training.sources import DocumentEncoder, Source, Taken

BOS, EOS = 1, 2


def encode(text):
    return [BOS, *(3 + ord(sign) for sign in text), EOS]


def documents_of(lengths):
    return ListedDocuments(TrainingDocument("x" * length, f"d{n}") for n, length in enumerate(lengths))


def source_of(lengths, **changes):
    return Source("some", documents_of(lengths), encode, **{"seed": 0, "epochs": 1, **changes})


def ids(documents):
    return [document.id for document in documents]


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 3), st.integers(1, 3))
def test_each_epoch_has_every_document_once(count, seed, epochs):
    found = ids(source_of([3] * count, seed=seed, epochs=epochs))
    assert len(found) == count * epochs
    for epoch in range(epochs):
        assert sorted(found[epoch * count : (epoch + 1) * count]) == sorted(f"d{n}" for n in range(count))


def test_the_order_is_the_seeds_and_another_in_each_epoch():
    orders = {}
    for seed in (0, 1):
        found = ids(source_of([3] * 30, seed=seed, epochs=2))
        assert found == ids(source_of([3] * 30, seed=seed, epochs=2))
        orders[seed, 0], orders[seed, 1] = found[:30], found[30:]
    assert len({tuple(order) for order in orders.values()}) == 4
    assert ids(source_of([3] * 30, seed=None, epochs=2)) == [f"d{n}" for n in range(30)] * 2


def test_a_source_without_epochs_goes_on_and_on():
    source = source_of([3] * 4, epochs=None)
    assert len({next(source).id for _ in range(8)}) == 4
    assert len([next(source) for _ in range(1000)]) == 1000


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 2))
def test_short_documents_are_passed_over_and_counted(lengths, shortest, epochs):
    long = sum(length + 2 >= shortest for length in lengths)
    source = source_of(lengths, shortest=shortest, epochs=epochs)
    if not long:
        with pytest.raises(RequestError, match=f"No document of 'some' has {shortest} tokens"):
            next(source)
        return
    found = list(source)
    assert sorted(len(document.tokens) for document in found) == sorted(
        length + 2 for length in lengths * epochs if length + 2 >= shortest
    )
    tokens = sum(len(document.tokens) for document in found)
    assert source.taken() == {"some": Taken(long * epochs, tokens, (len(lengths) - long) * epochs)}


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(0, 2), st.data())
def test_going_on_from_any_place_loses_and_repeats_nothing(lengths, seed, data):
    settings = {"seed": seed, "epochs": 2, "shortest": 2}
    whole = ids(source_of(lengths, **settings))
    before = data.draw(st.integers(0, len(whole)))
    first = source_of(lengths, **settings)
    found = [next(first).id for _ in range(before)]
    second = source_of(lengths, **settings)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.taken() == first.taken()
    assert found + ids(second) == whole
    assert ids(second) == []


def test_documents_come_again_by_their_number():
    source = source_of([3, 4, 5])
    for document in list(source):
        again = source.again(document.source, document.index)
        assert again.id == document.id
        assert torch.equal(again.tokens, document.tokens)
    for name, number in (("other", 0), ("some", 3), ("some", -1)):
        with pytest.raises(RequestError, match=f"Document {number} of '{name}' is wanted from 'some', which has 3"):
            source.again(name, number)


@pytest.mark.parametrize(
    ("change", "message"), [({"seed": 1}, "seed was 0 and is 1"), ({"lengths": [3] * 5}, "of was 4 and is 5")]
)
def test_a_state_of_other_data_is_refused(change, message):
    state = source_of([3] * 4).state_dict()
    with pytest.raises(RequestError, match=message):
        source_of(**{"lengths": [3] * 4, **change}).load_state_dict(state)


@pytest.mark.parametrize(
    ("lengths", "changes", "message"),
    [
        ([], {}, "'some' has no documents"),
        ([1], {"epochs": 0}, "0 epochs; wanted 1 or more"),
        ([1], {"shortest": 0}, "0 tokens; wanted 1 or more"),
        ([1], {"seed": -1}, "seed of 'some' is -1"),
    ],
)
def test_numbers_that_make_no_sense(lengths, changes, message):
    with pytest.raises(RequestError, match=message):
        source_of(lengths, **changes)


def test_an_encoder_marks_documents_and_takes_no_marks_from_their_text(tiny_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    encode = DocumentEncoder.of(tokenizer)
    found = encode("river <|end|> stone")
    assert (found[0], found[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(found[1:-1])
    assert tokenizer.decode(found[1:-1]) == "river <|end|> stone"
    assert DocumentEncoder(tokenizer, None, 7)("") == [7]
    tokenizer.eos_token = None
    with pytest.raises(RequestError, match="no end-of-sequence token"):
        DocumentEncoder.of(tokenizer)
