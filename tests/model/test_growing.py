"""Tensors that grow at the end."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.model.growing import GrowingTensor

MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def piece(length, value):
    return torch.full((2, length, 3), float(value))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 40), st.sampled_from(list(MODES))), max_size=25))
def test_every_version_keeps_its_contents(steps):
    """Each step extends one of the versions there are, in one of the modes; all of them are compared at the end."""
    start = piece(3, -1)
    versions = [(GrowingTensor.of(start, 1), start.clone())]
    for number, (which, length, mode) in enumerate(steps):
        grown, contents = versions[which % len(versions)]
        with MODES[mode]():
            longer = grown.extended(piece(length, number))
        versions.append((longer, torch.cat((contents, piece(length, number)), dim=1)))
    for grown, contents in versions:
        assert len(grown) == contents.shape[1]
        assert torch.equal(grown.tensor, contents)
    assert torch.equal(start, piece(3, -1))


@pytest.mark.parametrize("mode", ["no_grad", "inference"])
def test_growing_copies_seldom(mode):
    """The newest version is extended in place: over 2000 steps the storage moves a handful of times."""
    places = set()
    with MODES[mode]():
        grown = GrowingTensor.of(piece(1, 0), 1)
        for number in range(2000):
            grown = grown.extended(piece(1, number))
            places.add(grown.tensor.data_ptr())
    assert len(grown) == 2001
    assert len(places) < 15


def test_gradients_flow_through_growth():
    first, second = piece(2, 1).requires_grad_(), piece(3, 2).requires_grad_()
    grown = GrowingTensor.of(first, 1).extended(second)
    (grown.tensor * torch.arange(5.0)[None, :, None]).sum().backward()
    assert first.grad[0, :, 0].tolist() == [0, 1]
    assert second.grad[0, :, 0].tolist() == [2, 3, 4]


def test_growth_leaves_what_backward_needs():
    """A version that took part in a computation may be extended, and extended again, before backward runs."""
    weight = torch.ones(1, 1, 3, requires_grad=True)
    grown, outputs = GrowingTensor.of(piece(2, 1), 1), []
    for number in range(4):
        outputs.append((grown.tensor * weight).sum())
        grown = grown.extended(piece(2, number))
    sum(outputs).backward()
    assert weight.grad[0, 0].tolist() == [4.0 + 4 + 8 + 16] * 3


def test_what_is_added_takes_the_dtype_of_what_is_there():
    with torch.no_grad():
        grown = GrowingTensor.of(piece(2, 1).bfloat16(), 1).extended(piece(2, 1.0001))
    assert grown.tensor.dtype == torch.bfloat16
    assert grown.tensor.unique().tolist() == [1.0]
