"""Rotary embedding: every kind gives what transformers' own LLaMA gives, and what only ours has to hold."""

import pytest
import torch
from torch.testing import assert_close
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from longfocus.model.rope import RotaryEmbedding, rotate

KINDS = {
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8},
    "longrope": {
        "rope_type": "longrope",
        "factor": 2.0,
        "original_max_position_embeddings": 8,
        "short_factor": [1.0, 1.2, 1.4, 1.6],
        "long_factor": [2.0, 3.0, 4.0, 5.0],
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}


ROPES = {
    **KINDS,
    "default": {"rope_type": "default"},
    "theta": {"rope_type": "default", "rope_theta": 1e6},
    "yarn with attention_factor": {**KINDS["yarn"], "attention_factor": 1.7},
}
WINDOW = 48


def model_of(tiny, rope, length):
    """A model that was made for `length` positions, in one window."""
    parameters = {"rope_theta": 1e4, **ROPES[rope]}
    fields = {"max_position_embeddings": length, "window_length": WINDOW, "last_context_length": WINDOW}
    return tiny(rope_parameters=parameters, initializer_range=0.2, **fields)


def rotary_of(tiny_config, kind, **fields):
    return RotaryEmbedding(tiny_config(rope_parameters={"rope_theta": 1e4, **KINDS[kind]}, **fields))


def test_every_kind_of_transformers_is_here():
    """A kind that they add is to be compared with theirs (`proportional` rotates a part of each head; Gemma's)."""
    assert set(ROPE_INIT_FUNCTIONS) - {"proportional"} == set(KINDS)


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("length", [6, 30, WINDOW])
def test_kinds_equal_those_of_transformers(tiny, llama_of, some_ids, rope, length):
    ours, ids = model_of(tiny, rope, WINDOW), some_ids(2, length)
    expected = llama_of(ours)(ids).logits
    assert_close(ours(ids).logits, expected, rtol=0, atol=2e-5)
    with torch.no_grad():
        assert_close(ours(ids).logits, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("rope", [name for name in ROPES if name not in ("default", "dynamic")])
def test_kinds_differ(tiny, some_ids, rope):
    """Else the comparison above would say little."""
    ids = some_ids(1, WINDOW)
    plain, scaled = (model_of(tiny, name, WINDOW)(ids).logits for name in ("default", rope))
    assert (plain - scaled).abs().max() > 0.05


def test_dynamic_rope_beyond_its_length(tiny, llama_of, some_ids):
    """With a window longer than max_position_embeddings the frequencies follow the length, for a call and its like."""
    ours = model_of(tiny, "dynamic", WINDOW // 2)
    theirs = llama_of(ours)
    long, short = some_ids(1, WINDOW), some_ids(1, 20)
    for ids in (long, short, long):
        assert_close(ours(ids).logits, theirs(ids).logits, rtol=0, atol=2e-5)
    fixed = model_of(tiny, "default", WINDOW // 2)
    assert (ours(long).logits - fixed(long).logits).abs().max() > 0.05


def test_rotation_turns_pairs(tiny_config):
    """Dimension i with i + D / 2, by position times frequency; lengths and relative angles are kept."""
    rotary = RotaryEmbedding(tiny_config(rope_parameters={"rope_type": "default", "rope_theta": 100.0}))
    cosines, sines = rotary(torch.tensor([[0, 1, 7]]), torch.float32)
    states = torch.randn(1, 2, 3, 8)
    turned = rotate(states, cosines, sines)
    assert_close(turned[:, :, 0], states[:, :, 0])
    for place, position in enumerate((0, 1, 7)):
        for low in range(4):
            angle = torch.tensor(position * 100.0 ** (-low / 4))
            turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos())).view(2, 2)
            expected = turn @ states[0, 0, place, [low, low + 4]]
            assert_close(turned[0, 0, place, [low, low + 4]], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_frequencies_of_their_own(tiny_config, kind):
    """A short row beside a long one is rotated as it is alone."""
    rotary = rotary_of(tiny_config, kind)
    positions = torch.stack((torch.arange(30), torch.arange(30).clamp_max(4)))
    for both, long, short in zip(
        rotary(positions, torch.float32),
        rotary(positions[:1], torch.float32),
        rotary(positions[1:], torch.float32),
        strict=True,
    ):
        assert torch.equal(both[:1], long)
        assert torch.equal(both[1:], short)
    assert rotary.depends_on_length == (kind in ("dynamic", "longrope"))
    at_four = [rotary(given, torch.float32)[0][:, 0, 4] for given in (positions[:1], positions[1:])]
    assert torch.equal(*at_four) != rotary.depends_on_length


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_nothing_is_remembered_between_calls(tiny, some_ids, kind):
    """A long input does not change what a short one gives."""
    model = tiny(rope_parameters={"rope_theta": 1e4, **KINDS[kind]}, window_length=32)
    short, long = some_ids(1, 6), some_ids(1, 32, seed=1)
    before = model(short).logits
    model(long, last_context_length=32)
    assert torch.equal(model(short).logits, before)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_token_by_token_is_one_call(tiny, some_ids, kind):
    """When the window passes the length where frequencies change, its earlier keys are rotated anew.

    In one layer: in a second, keys are made of what earlier tokens saw with the frequencies of their time.
    """
    fields = {"num_hidden_layers": 1, "mem_layers": [0], "window_length": 32, "last_context_length": 32}
    model = tiny(rope_parameters={"rope_theta": 1e4, **KINDS[kind]}, **fields)
    ids = some_ids(1, 30)
    with torch.no_grad():
        for length in range(6, 30):
            state = model(ids[:, : length - 1]).past_key_values
            step = model(ids[:, length - 1 : length], past_key_values=state).logits
            assert_close(step[:, -1], model(ids[:, :length]).logits[:, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["yarn", "longrope"])
def test_memory_keys_are_scaled_like_keys_at_position_zero(tiny, some_ids, kind):
    """YaRN and LongRoPE scale rotated keys: a token in memory counts as much as one at the window's start."""
    model = tiny(mem_layers=[0, 1, 2], rope_parameters={"rope_theta": 1e4, **KINDS[kind]})
    assert model.model.rotary.attention_scaling > 1.01
    with torch.no_grad():
        state = model(some_ids(1, 1), use_cache=False).past_key_values
        after = model(some_ids(1, 1, seed=1), past_key_values=state).logits
        positions = torch.tensor([[0, 0]])
        once = model(torch.cat((some_ids(1, 1), some_ids(1, 1, seed=1)), dim=1), position_ids=positions).logits
    assert_close(after[:, -1], once[:, -1], rtol=0, atol=1e-5)


def test_first_used_without_gradients_then_with(tiny, some_ids):
    """Frequencies made in inference mode may be used in training."""
    model = tiny()
    with torch.inference_mode():
        model(some_ids(1, 5))
    ids = some_ids(1, 20)
    model(ids, labels=ids).loss.backward()
    assert model.model.embed_tokens.weight.grad.any()
