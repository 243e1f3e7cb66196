"""A model as a subject: it answers as `ask` does, and its losses are those of predicting token by token."""

import pytest
import torch

from longfocus.books import read
from longfocus.evaluation.subjects import BookSubject
from longfocus.loading.prompts import encode_text
from longfocus.reading.documents import Document
from tests.conftest import story

TEXT, FOLLOWING = story(300), " " + story(60, seed=3)


@pytest.fixture(scope="module")
def book(tiny_model, tmp_path_factory):
    return read(Document("x", TEXT, (0, len(TEXT)), ()), tiny_model, tmp_path_factory.mktemp("read") / "book")


def test_it_answers_as_ask_does(tiny_model, book):
    from longfocus import Sampling

    with BookSubject(tiny_model).read(TEXT) as opened:
        found = opened.answer("Where is the river?", 8)
    assert found == book.ask("Where is the river?", sampling=Sampling(8, repetition_penalty=1.0)).text
    assert found


@pytest.mark.parametrize("uses", ["memory", "window", "nothing"])
def test_losses_are_those_of_one_token_after_another(tiny_model, book, uses):
    subject = BookSubject(tiny_model, uses)
    with subject.read(TEXT) as opened:
        loss, tokens = opened.loss(FOLLOWING)
    ids = encode_text(tiny_model.tokenizer, FOLLOWING)
    assert tokens == len(ids) - 1 > tiny_model.model.config.stride  # more than one window
    state, plain = book.session.state, 0.0
    if uses == "window":
        from dataclasses import replace

        state = type(state)([replace(layer, memory=None) for layer in state.layers], state.positions, state.keep)
    elif uses == "nothing":
        state = None
    stride = tiny_model.model.config.stride
    with torch.inference_mode():
        for start in range(0, len(ids), stride):  # the same windows; within them, one token more each time
            piece = ids[start : start + stride]
            for stop in range(1, len(piece) + 1):
                output = tiny_model.model(
                    torch.tensor([piece[:stop]]), past_key_values=state, use_cache=True, last_context_length=stop
                )
                place = start + stop
                if place < len(ids):
                    plain -= float(output.logits[0, -1].log_softmax(-1)[ids[place]])
            state = output.past_key_values
    assert loss == pytest.approx(plain, rel=1e-4)


def test_what_answers_rest_on_matters(tiny_model):
    losses = []
    for uses in ("memory", "window", "nothing"):
        with BookSubject(tiny_model, uses).read(TEXT) as opened:
            losses.append(opened.loss(FOLLOWING)[0])
    assert len(set(losses)) == 3


def test_nothing_is_left_behind(tiny_model, tmp_path):
    with BookSubject(tiny_model, scratch=tmp_path).read(TEXT) as opened:
        assert any(tmp_path.rglob("manifest.json"))
        opened.answer("Who?", 2)
    assert not list(tmp_path.iterdir())


def test_identities_tell_subjects_apart(tiny_model):
    same, window = BookSubject(tiny_model), BookSubject(tiny_model, "window")
    assert BookSubject(tiny_model).identity == same.identity != window.identity
