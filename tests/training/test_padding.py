"""Padding: where it stands, what is attended to, and that a model with memory does not notice it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from longfocus.errors import RequestError
from longfocus.training.examples import IGNORED, Example
from longfocus.training.padding import Collator, Padding, hide, longllama_hidden

PAD, EOS = 0, 2


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return PreTrainedTokenizerFast.from_pretrained(tiny_folder, pad_token="<|pad|>")


def row(length: int, seed: int = 0):
    """A row in which padding's id and EOS are among the real tokens."""
    ids = torch.randint(0, 400, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    ids = [PAD, EOS, *ids][:length]
    return Example.of([(ids[: length // 3], False), (ids[length // 3 :], True)]).row()


@given(length=st.integers(1, 30), missing=st.integers(0, 30), seed=st.integers(0, 9), random_left=st.booleans())
def test_padding_is_told_by_position(length, missing, seed, random_left):
    before = row(length)
    after = Padding(length + missing, PAD, random_left, seed).apply(before, index=seed)
    assert {name: len(tensor) for name, tensor in after.items()} == dict.fromkeys(before, length + missing)
    places = after["attention_mask"].nonzero()[:, 0]
    assert places.tolist() == list(range(int(places[0]), int(places[0]) + length))
    assert random_left or int(places[0]) == 0
    for name, fill in (("input_ids", PAD), ("labels", IGNORED), ("attention_mask", 0)):
        assert torch.equal(after[name][places], before[name])
        others = after["attention_mask"] == 0
        assert bool((after[name][others] == fill).all())


def test_random_padding_is_uniform_and_by_seed():
    def left(index: int, epoch: int = 0, seed: int = 0) -> int:
        mask = Padding(14, PAD, True, seed).apply(row(10), index, epoch)["attention_mask"]
        return int(mask.argmax())

    drawn = [left(index) for index in range(1000)]
    counts = [drawn.count(place) for place in range(5)]
    assert sum(counts) == 1000
    assert min(counts) > 150  # 200 expected, standard deviation 12.6
    assert drawn[:50] == [left(index) for index in range(50)]
    assert drawn[:50] != [left(index, epoch=1) for index in range(50)]
    assert drawn[:50] != [left(index, seed=1) for index in range(50)]


def test_rows_that_do_not_fit():
    with pytest.raises(RequestError, match="a row of 10 tokens does not fit in 9"):
        Padding(9, PAD).apply(row(10))
    with pytest.raises(RequestError, match="padded to 0 tokens"):
        Padding(0, PAD)


def test_which_token_stands_in_padding(tiny_folder, tokenizer):
    assert Padding.of(tokenizer, 5).token == Collator.of(tokenizer).token == tokenizer.pad_token_id
    unknown = PreTrainedTokenizerFast.from_pretrained(tiny_folder, unk_token="<|begin|>")
    assert Padding.of(unknown, 5).token == unknown.unk_token_id
    with pytest.raises(RequestError, match="neither a padding token nor an unknown token"):
        Collator.of(PreTrainedTokenizerFast.from_pretrained(tiny_folder))


def test_hiding_as_longllama(tokenizer):
    assert longllama_hidden(tokenizer, chat=False) == {PAD}
    assert longllama_hidden(tokenizer, chat=True) == {PAD, EOS}
    padded = Padding(20, PAD, True, seed=3).apply(row(12))
    for chat in (False, True):
        hidden = hide(padded, longllama_hidden(tokenizer, chat=chat))
        shown = (padded["input_ids"] != PAD) & ((padded["input_ids"] != EOS) | torch.tensor(not chat))
        assert torch.equal(hidden["attention_mask"], shown.long())
        assert torch.equal(hidden["labels"], padded["labels"])


def test_batches_of_unequal_rows():
    rows = [row(length, seed=length) for length in (3, 7, 1)]
    batch = Collator(PAD)(rows)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == dict.fromkeys(rows[0], (3, 7))
    for number, each in enumerate(rows):
        length = len(each["input_ids"])
        for name, fill in (("input_ids", PAD), ("labels", IGNORED), ("attention_mask", 0)):
            assert torch.equal(batch[name][number, :length], each[name])
            assert bool((batch[name][number, length:] == fill).all())


def test_a_model_with_memory_does_not_notice_padding(tiny_model):
    """Windows of 64 tokens; rows of several windows and of a part of one in the same batch."""
    rows = [row(length, seed=length) for length in (150, 20, 90)]
    batch = Collator(PAD)([Padding(200, PAD, True).apply(each, number) for number, each in enumerate(rows)])
    with torch.no_grad():
        together = tiny_model.model(**batch).loss
        alone = [tiny_model.model(**{name: tensor[None] for name, tensor in each.items()}).loss for each in rows]
    weights = torch.tensor([(each["labels"][1:] != IGNORED).sum() for each in rows]).float()
    assert_close(together, (torch.stack(alone) * weights).sum() / weights.sum(), rtol=0, atol=1e-4)


def test_training_with_hidden_tokens_has_a_loss(tiny_model, tokenizer):
    hidden = hide(row(100), longllama_hidden(tokenizer, chat=True))
    with torch.no_grad():
        loss = tiny_model.model(**Collator(PAD)([hidden, row(30)])).loss
    assert bool(loss.isfinite())
