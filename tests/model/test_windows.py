"""Cutting an input in windows, and laying their outputs out again."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longfocus.model.windows import cut, cut_lengths, put_back


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40))
def test_lengths(length, last, stride):
    *before, final = cut_lengths(length, last, stride)
    assert sum(before) + final == length
    assert final == min(length, last)
    assert all(size == stride for size in before[:-1])
    assert all(1 <= size <= stride for size in before)


@pytest.mark.parametrize("last", [0, -3])
def test_a_last_window_of_nothing(last):
    with pytest.raises(ValueError, match="last_context_length"):
        cut_lengths(10, last, 4)


def test_an_input_of_nothing(tiny, some_ids):
    with pytest.raises(ValueError, match="no tokens"):
        list(cut(0, None, 4, 4))
    model = tiny()
    state = model(some_ids(1, 4)).past_key_values
    for past in (None, state):
        with pytest.raises(ValueError, match="no tokens"):
            model(some_ids(1, 0), past_key_values=past)


MASKS = st.integers(1, 40).flatmap(
    lambda length: st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=1, max_size=4)
)


@given(st.one_of(st.none(), MASKS), st.integers(1, 12), st.integers(1, 12))
def test_each_row_is_cut_by_its_own_tokens(rows, last, stride):
    """In its own order, in the lengths that it would have alone, with the last windows in step; and put back again."""
    keep = None if rows is None else torch.tensor(rows)
    batch, length = (2, 30) if keep is None else keep.shape
    tensor = torch.arange(batch * length).view(batch, length)
    pieces = list(cut(length, keep, last, stride))
    assert [piece.final for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    for row in range(batch):
        lengths, tokens = [], []
        for piece in pieces:
            taken = piece.take(tensor)[row]
            if piece.keep is not None:
                inside = piece.keep[row]
                assert inside.tolist() == sorted(inside.tolist()), "tokens stand at the right"
                taken = taken[inside]
            lengths.append(len(taken))
            tokens += taken.tolist()
        expected = tensor[row] if keep is None else tensor[row, keep[row]]
        assert tokens == expected.tolist()
        assert [size for size in lengths[:-1] if size] + lengths[-1:] == cut_lengths(len(tokens), last, stride)
    for extra in ((), (3,)):  # with further dimensions, as hidden states have
        wide = tensor.view(batch, length, *[1] * len(extra)).expand(batch, length, *extra)
        whole = put_back([(piece, piece.take(wide)) for piece in pieces], length)
        inside = torch.ones_like(tensor, dtype=torch.bool) if keep is None else keep
        assert torch.equal(whole[inside], wide[inside])
        assert not whole[~inside].any()
