"""A memory in a layer; the contract of memories by themselves is in tests/contract/test_memories.py."""

import pytest
import torch
from torch.testing import assert_close

from longfocus.model.cache import LongLlamaCache
from longfocus.model.memory import ChainedMemory, DenseMemory


class Told(ChainedMemory):
    """Keeps what it was told."""

    def attended(self, query, scale, lse):
        self.told = (query, scale, lse)


@pytest.mark.parametrize("rope", ["default", "yarn"])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_memory_is_told_how_much_it_was_attended_to(tiny, some_ids, rope, rows):
    """With what it is told it can say each entry's share of attention, as output_attentions has it."""
    parameters = {"rope_type": rope, "rope_theta": 1e4}
    if rope == "yarn":
        parameters |= {"factor": 4.0, "original_max_position_embeddings": 4}
    model = tiny(mem_layers=[1], rope_parameters=parameters)
    draw = torch.Generator().manual_seed(0)
    memory = Told(DenseMemory.of(*(torch.randn((1, 2, 30, 8), generator=draw) for _ in range(2))))
    state = LongLlamaCache.of_memories({1: memory}, 3)
    ids = some_ids(rows, 6)
    with torch.no_grad():
        model(ids, past_key_values=state)
        expected = model(ids, past_key_values=state, output_attentions=True).attentions[1][..., 6:]
    query, scale, lse = memory.told
    keys = memory.entries().keys.repeat_interleave(2, 1)
    assert_close(torch.exp(query @ keys.mT * scale - lse[..., None]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layers", [[0], [1, 2], [0, 1, 2]])
def test_memory_in_any_set_of_layers(tiny, some_ids, layers):
    """Only those hold one, each its own, and each has a say."""
    model = tiny(mem_layers=layers)
    state = model(some_ids(1, 50), use_cache=False).past_key_values
    assert [layer for layer, held in enumerate(state.layers) if held.memory is not None] == layers
    ids = some_ids(1, 4, seed=1)
    expected = model(ids, past_key_values=state).logits
    for layer in layers:
        memories = {other: state.layers[other].memory for other in layers if other != layer}
        without = model(ids, past_key_values=LongLlamaCache.of_memories(memories, 3)).logits
        assert (without - expected).abs().max() > 1e-3
