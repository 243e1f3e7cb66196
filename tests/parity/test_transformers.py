"""Within one window ours computes what transformers' own models of the LLaMA family compute with the same weights.

The kinds of rotary embedding are compared in tests/model/test_rope.py.
"""

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from longfocus.model.config import LongLlamaConfig
from longfocus.model.modeling import LongLlamaForCausalLM

WINDOW = 48
SHAPE = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": WINDOW,
    "initializer_range": 0.2,
    "eos_token_id": None,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}, {}),
    "llama with biases": (
        LlamaConfig,
        LlamaForCausalLM,
        {"attention_bias": True, "mlp_bias": True},
        {"attention_bias": True, "mlp_bias": True},
    ),
    "llama with one key head": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 1}, {"num_key_value_heads": 1}),
    "llama without shared heads": (
        LlamaConfig,
        LlamaForCausalLM,
        {"num_key_value_heads": 6},
        {"num_key_value_heads": None},
    ),
    "llama with wide heads": (LlamaConfig, LlamaForCausalLM, {"head_dim": 12}, {"head_dim": 12}),
    "llama, tied": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}, {"tie_word_embeddings": True}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": WINDOW, "head_dim": 8}, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}, {"attention_bias": True, "attention_out_bias": False}),
    "qwen2, tied": (
        Qwen2Config,
        Qwen2ForCausalLM,
        {"tie_word_embeddings": True},
        {"attention_bias": True, "attention_out_bias": False, "tie_word_embeddings": True},
    ),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}, {"head_dim": 16, "qk_norm": True}),
    "qwen3 with biases": (
        Qwen3Config,
        Qwen3ForCausalLM,
        {"head_dim": 16, "attention_bias": True},
        {"head_dim": 16, "qk_norm": True, "attention_bias": True},
    ),
}


def shake(model):
    """Give the weights that start as ones and zeros (norms, biases) other values, so that a lost one shows."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("norm.weight", "bias")):
                weight.add_(torch.randn_like(weight), alpha=0.3)


def both(family):
    """Theirs and ours with the same weights."""
    their_config, their_class, their_fields, our_fields = FAMILIES[family]
    rope = {"rope_type": "default", "rope_theta": 1e4}
    torch.manual_seed(7)
    theirs = their_class(their_config(**{**SHAPE, "rope_parameters": dict(rope), **their_fields})).eval()
    shake(theirs)
    ours = LongLlamaForCausalLM(
        LongLlamaConfig(
            **{
                **SHAPE,
                "rope_parameters": dict(rope),
                "last_context_length": WINDOW,
                "mem_layers": [1],
                **our_fields,
            }
        )
    ).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def some_ids(rows, length, seed=0):
    return torch.randint(1, SHAPE["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [1, 13, WINDOW])
def test_families(family, length):
    theirs, ours = both(family)
    ids = some_ids(2, length)
    expected = theirs(ids).logits
    assert_close(ours(ids).logits, expected, rtol=0, atol=2e-5)
    with torch.no_grad():
        assert_close(ours(ids).logits, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(side):
    """A batch in one window, with the positions that transformers' generate gives."""
    theirs, ours = both("qwen3")
    ids = some_ids(3, 20)
    mask = torch.ones_like(ids)
    for row, padding in enumerate((0, 3, 17)):
        mask[row, slice(None, padding) if side == "left" else slice(20 - padding, None)] = 0
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    expected = theirs(ids, attention_mask=mask, position_ids=positions).logits
    for found in (
        ours(ids, attention_mask=mask, position_ids=positions).logits,
        ours(ids, attention_mask=mask).logits,
    ):
        assert_close(found[mask.bool()], expected[mask.bool()], rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_greedy(family):
    theirs, ours = both(family)
    ids = some_ids(2, 9)
    given = {"do_sample": False, "max_new_tokens": WINDOW - 9}
    assert torch.equal(ours.generate(ids, **given), theirs.generate(ids, **given))


def test_greedy_with_padding():
    theirs, ours = both("llama")
    ids = some_ids(3, 12)
    mask = torch.ones_like(ids)
    mask[0, :4], mask[2, :11] = 0, 0
    given = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 30}
    assert torch.equal(ours.generate(ids, **given), theirs.generate(ids, **given))


def test_beams_and_samples():
    theirs, ours = both("llama")
    ids = some_ids(2, 9)
    beams = {"do_sample": False, "num_beams": 4, "num_return_sequences": 2, "max_new_tokens": 30}
    assert torch.equal(ours.generate(ids, **beams), theirs.generate(ids, **beams))
    sampled = []
    for model in (ours, theirs):
        torch.manual_seed(11)
        sampled.append(model.generate(ids, do_sample=True, top_k=20, temperature=0.9, max_new_tokens=30))
    assert torch.equal(*sampled)


@pytest.mark.parametrize("family", ["llama", "llama with biases", "qwen2", "qwen3"])
def test_gradients(family):
    theirs, ours = both(family)
    ids = some_ids(2, 20)
    losses = [model(ids, labels=ids).loss for model in (theirs, ours)]
    assert_close(losses[1], losses[0], rtol=0, atol=1e-5)
    for loss in losses:
        loss.backward()
    expected = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        assert_close(weight.grad, expected[name].grad, rtol=1e-4, atol=1e-5, msg=name)
