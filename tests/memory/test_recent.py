"""A memory that looks back only so far."""

import pytest
import torch
from torch.testing import assert_close

from longfocus.memory.recent import RecentMemory
from longfocus.model.memory import DenseMemory

SCALE = 0.4
pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("look_back", [1, 4, 11, 12, 100, None])
def test_only_the_last_entries_are_seen(some, some_entries, look_back, masked, dtype):
    keys, values = (tensor.to(dtype) for tensor in some_entries(2, 2, 12))
    query = some(2, 4, 3, 8)
    keep = torch.arange(12)[None].expand(2, -1) % 3 != 0 if masked else None
    memory = RecentMemory.of(keys[:, :, :5], values[:, :, :5], look_back)
    memory = memory.append(keys[:, :, 5:], values[:, :, 5:], None if keep is None else keep[:, 5:])
    assert len(memory) == 12
    first = 0 if look_back is None else max(12 - look_back, 0)
    if masked:
        keep = torch.cat((torch.ones((2, 5), dtype=torch.bool), keep[:, 5:]), 1)
    wanted = DenseMemory.of(keys[:, :, first:], values[:, :, first:], None if keep is None else keep[:, first:])
    for found, expected in zip(memory.attend(query, SCALE), wanted.attend(query, SCALE), strict=True):
        assert_close(found, expected, rtol=0, atol=1e-6)


def test_looking_back_at_nothing(some, some_entries):
    memory = RecentMemory.of(*some_entries(1, 2, 12), 0)
    output, lse = memory.attend(some(3, 4, 2, 8), SCALE)
    assert not output.any()
    assert (lse == float("-inf")).all()
    assert len(memory) == 12
    assert len(memory.forgetting()) == 0


@pytest.mark.parametrize(("look_back", "left"), [(0, 0), (5, 5), (12, 12), (20, 12), (None, 12)])
def test_forgetting_changes_nothing_that_is_seen(some, some_entries, look_back, left):
    query = some(1, 4, 3, 8)
    memory = RecentMemory.of(*some_entries(1, 2, 12), look_back)
    shorter = memory.forgetting()
    assert (len(memory), len(shorter)) == (12, left)
    new = some(1, 2, 3, 8, seed=3)
    for before, after in ((memory, shorter), (memory.append(new, new, None), shorter.append(new, new, None))):
        for found, expected in zip(after.attend(query, SCALE), before.attend(query, SCALE), strict=True):
            assert torch.equal(found, expected)
