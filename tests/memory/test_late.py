"""Leaving the upper layers for later changes nothing: the state is, bit for bit, that of running all of them."""

import pytest
import torch

from longfocus.memory.late import LateState, lower_layers, read_window, tokens_that_matter, whole_state
from longfocus.model.cache import LongLlamaCache
from longfocus.model.config import LongLlamaConfig
from longfocus.model.memory import DenseMemory
from longfocus.model.modeling import LongLlamaModel
from longfocus.model.spill import spill_between


def model_of(layers: int, mem_layers: list[int], window: int, overlap: int, sinks: int) -> LongLlamaModel:
    torch.manual_seed(layers + window)
    config = LongLlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        mem_layers=mem_layers,
        mem_dtype="float32",
        window_length=window,
        window_overlap=overlap,
        sink_tokens=sinks,
        initializer_range=0.3,  # so that every token matters to every other
    )
    return LongLlamaModel(config).eval()


def read_whole(model: LongLlamaModel, ids: torch.Tensor) -> LongLlamaCache:
    config = model.config
    state = LongLlamaCache.of_memories({}, config.num_hidden_layers)
    for piece in ids.split(config.stride, dim=1):
        state = model(piece, past_key_values=state, use_cache=True, last_context_length=config.stride).past_key_values
        state = spill_between(state, config)
    return state


def read_late(model: LongLlamaModel, ids: torch.Tensor) -> LateState:
    state = LateState.start(model.config)
    for piece in ids.split(model.config.stride, dim=1):
        state = read_window(model, piece, state)
    return state


def assert_same(one: LongLlamaCache, other: LongLlamaCache, config: LongLlamaConfig) -> None:
    assert one.window == other.window
    assert one.memory_length == other.memory_length
    for index, (mine, theirs) in enumerate(zip(one.layers, other.layers, strict=True)):
        for name in ("keys", "values"):
            first, second = getattr(mine, name), getattr(theirs, name)
            assert (first is None) == (second is None), (index, name)
            assert first is None or torch.equal(first.tensor, second.tensor), (index, name)
        assert (mine.memory is None) == (theirs.memory is None)
        if mine.memory is not None:
            assert torch.equal(mine.memory.entries().values, theirs.memory.entries().values)


SHAPES = {
    "as the default model": (6, [2, 3], 32, 12, 4),
    "one memory layer, five above": (7, [1], 24, 8, 2),
    "memory at the bottom": (5, [0], 16, 6, 1),
    "memory at the top": (4, [1, 3], 32, 12, 4),
    "no overlap": (6, [1], 16, 0, 3),
    "no sinks": (6, [1], 16, 8, 0),
    "neither": (6, [1], 16, 0, 0),
    "overlap far longer than the stride": (6, [2], 32, 26, 2),
    "more sinks than fit one stride": (6, [2], 16, 3, 9),
    "no memory at all": (3, [], 32, 12, 4),
}


@pytest.mark.parametrize("tokens", [1, 9, 33, 250, 401])
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_the_state_is_that_of_running_everything(shape, tokens):
    model = model_of(*SHAPES[shape])
    ids = torch.randint(0, 50, (1, tokens), generator=torch.Generator().manual_seed(tokens))
    late = read_late(model, ids)
    assert late.tokens == tokens
    assert_same(whole_state(model, late), read_whole(model, ids), model.config)


@torch.inference_mode()
def test_a_batch_is_its_rows():
    model = model_of(6, [2, 3], 32, 12, 4)
    ids = torch.randint(0, 50, (3, 150), generator=torch.Generator().manual_seed(5))
    batch = whole_state(model, read_late(model, ids))
    for row in range(3):
        alone = whole_state(model, read_late(model, ids[row : row + 1]))
        for mine, theirs in zip(batch.layers, alone.layers, strict=True):
            torch.testing.assert_close(mine.keys.tensor[row : row + 1], theirs.keys.tensor)


@torch.inference_mode()
def test_one_window_less_is_not_enough():
    """That the number of windows that wait is needed, not merely enough, shows that the test above can fail."""
    model = model_of(7, [1], 24, 8, 2)
    ids = torch.randint(0, 50, (1, 14 * 20), generator=torch.Generator().manual_seed(3))
    late = read_late(model, ids)
    fewer = LateState(late.tokens, late.lower, late.upper, late.waiting[3:])
    whole = whole_state(model, late)
    assert not torch.equal(whole_state(model, fewer).layers[-1].keys.tensor, whole.layers[-1].keys.tensor)


@torch.inference_mode()
def test_upper_layers_run_over_the_last_windows_only():
    model = model_of(6, [2, 3], 32, 12, 4)
    runs = dict.fromkeys(range(6), 0)
    for index, layer in enumerate(model.layers):
        layer.register_forward_hook(lambda *_, index=index: runs.update({index: runs[index] + 1}))
    windows, stride = 60, model.config.stride
    ids = torch.randint(0, 50, (1, windows * stride), generator=torch.Generator().manual_seed(1))
    late = read_late(model, ids)
    matter = -(-tokens_that_matter(model.config) // stride)
    assert len(late.waiting) == matter
    assert sum(window.states.shape[1] for window in late.waiting) >= tokens_that_matter(model.config)
    whole_state(model, late)
    assert runs == {**dict.fromkeys(range(4), windows), **dict.fromkeys((4, 5), 1 + matter)}  # 1 for the sinks


@torch.inference_mode()
def test_a_state_stays_valid():
    """Two ways to go on from one state do not disturb each other."""
    model = model_of(6, [2, 3], 32, 12, 4)
    ids = torch.randint(0, 50, (2, 1, 16), generator=torch.Generator().manual_seed(1))
    begun = read_late(model, ids[0])
    ways = [read_window(model, ids[which], begun) for which in (0, 1)]
    read_window(model, ids[0], ways[1])
    for which in (0, 1):
        fresh = read_late(model, torch.cat((ids[0], ids[which]), dim=1))
        assert_same(whole_state(model, ways[which]), whole_state(model, fresh), model.config)


def test_memory_given_is_gone_on_with():
    model = model_of(4, [1], 16, 4, 2)
    empty = torch.empty((1, 2, 0, 8))
    start = LateState.start(model.config, {1: DenseMemory.of(empty, empty.clone())})
    with torch.inference_mode():
        state = read_window(model, torch.arange(10)[None], start)
    assert state.lower.memory_length == 10 - 2 - 4
    assert len(lower_layers(model.config)) == 2
