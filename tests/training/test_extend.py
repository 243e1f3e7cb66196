"""Extending a checkpoint: rotations that equal their definitions, adapters, names of optimizers, and no masks."""

import importlib.util
import math

import pytest
import torch
from peft import get_peft_model
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.training_args import OptimizerNames

from longfocus.errors import RequestError
from longfocus.training.extend import (
    EXTENSIONS,
    RECIPE,
    dynamic_ntk,
    eight_bit_adamw,
    lora,
    position_interpolation,
    without_mask,
    yarn,
)
from longfocus.training.losses import compute_loss

FIELDS = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
}


def tables(config, length):
    """Cosines and sines [length, head_dim]."""
    positions = torch.arange(length)[None]
    cosines, sines = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
    return cosines[0], sines[0]


def angles(length, theta, dim=16):
    exponents = torch.arange(0, dim, 2).double() / dim
    return torch.arange(length).double()[:, None] * (theta**-exponents).repeat(2)


def test_interpolation_divides_positions():
    config = LlamaConfig(**FIELDS)
    extended = position_interpolation(config, 1000)
    assert extended.max_position_embeddings == 1024
    assert_close(tables(extended, 1000)[0].double(), (angles(1000, 5000.0) / 16).cos(), rtol=0, atol=1e-4)
    assert_close(tables(extended, 1000)[0][::16], tables(config, 63)[0], rtol=0, atol=1e-5)


def test_animas_factor():
    config = LlamaConfig(**{**FIELDS, "max_position_embeddings": 4096})
    extended = position_interpolation(config, 131_072)
    assert extended.rope_parameters["factor"] == 32.0
    assert extended.rope_parameters["rope_theta"] == 5000.0


def test_dynamic_ntk_raises_the_base_with_the_length():
    config = LlamaConfig(**FIELDS)
    extended = dynamic_ntk(config, 1000)
    assert_close(tables(extended, 64), tables(config, 64))
    for length in (65, 640):
        base = 5000.0 * (16 * length / 64 - 15) ** (16 / 14)
        assert_close(tables(extended, length)[0].double(), angles(length, base).cos(), rtol=0, atol=1e-4)


def test_yarn_stretches_slow_rotations_only():
    config = LlamaConfig(**FIELDS)
    extended = yarn(config, 1000)
    assert extended.max_position_embeddings == 1024
    sharper = 0.1 * math.log(16) + 1
    before, after = LlamaRotaryEmbedding(config).inv_freq, LlamaRotaryEmbedding(extended).inv_freq
    assert_close(after[0], before[0])
    assert_close(after[-1], before[-1] / 16)
    assert (after.diff() < 0).all()
    assert_close(tables(extended, 1)[0], torch.full((1, 16), sharper))


@pytest.mark.parametrize("extend", EXTENSIONS.values(), ids=EXTENSIONS)
def test_an_extended_model_can_be_saved_trained_and_loaded(extend, tmp_path):
    config = LlamaConfig(**FIELDS)
    torch.manual_seed(0)
    model = LlamaForCausalLM(extend(config, 200))
    assert config.rope_parameters == FIELDS["rope_parameters"]
    assert config.max_position_embeddings == 64
    ids = torch.randint(3, 61, (1, 200))
    compute_loss(model, {"input_ids": ids, "labels": ids}).backward()
    model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    assert_close(again(ids).logits, model.eval()(ids).logits)


@pytest.mark.parametrize("extend", EXTENSIONS.values(), ids=EXTENSIONS)
def test_refused_extensions(extend):
    config = LlamaConfig(**FIELDS)
    with pytest.raises(RequestError, match="scaled already"):
        extend(extend(config, 1000), 2000)
    with pytest.raises(RequestError, match="length of 0"):
        extend(config, 0)


def test_adapters_are_in_every_linear_layer_but_the_head():
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**FIELDS)), lora())
    trained = {name.split(".lora_")[0] for name, weight in model.named_parameters() if weight.requires_grad}
    names = {name.rsplit(".", 1)[1] for name in trained}
    assert names == {f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")}
    assert len(trained) == 2 * 7
    assert model.get_submodule(next(iter(trained))).scaling == {"default": 0.5}
    assert lora(8, 8, lora_dropout=0.1, target_modules=["q_proj"]).lora_dropout == 0.1


def test_recipe_is_one_that_transformers_take(tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True, optim="adamw_8bit", **RECIPE)
    assert arguments.activation_checkpointing
    assert (arguments.learning_rate, arguments.max_grad_norm) == (1e-4, 0.3)


@pytest.mark.parametrize(
    ("found", "gpu", "expected"), [(True, True, "paged_adamw_8bit"), (True, False, "adamw_8bit"), (False, True, None)]
)
def test_optimizer_of_8_bits(found, gpu, expected, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: found or None if name == "bitsandbytes" else find(name, *a)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    if expected is None:
        with pytest.raises(RequestError, match="pip install bitsandbytes"):
            eight_bit_adamw()
    else:
        assert eight_bit_adamw() == expected
        assert expected in set(OptimizerNames)


class Largest(TorchDispatchMode):
    """The most numbers in one tensor."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


LENGTH = 1500


@pytest.mark.parametrize(
    ("changes", "builds"),
    [
        ({}, False),
        ({"attention_mask": torch.ones(1, LENGTH, dtype=torch.long)}, False),
        ({"position_ids": torch.arange(LENGTH)[None]}, False),
        ({"attention_mask": torch.arange(LENGTH)[None].clamp(max=1)}, True),
        ({"position_ids": torch.arange(LENGTH)[None] % 1000}, True),
    ],
    ids=["bare", "full mask", "positions", "padding", "two sequences"],
)
def test_what_builds_a_mask_and_what_does_not(changes, builds):
    """Of T x T numbers, in a training step; and `without_mask` refuses what builds one."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**FIELDS, attn_implementation="sdpa")).train()
    model.activation_checkpointing_enable()
    ids = torch.randint(3, 61, (1, LENGTH))
    inputs = {"input_ids": ids, "labels": ids, **changes}
    with Largest() as largest:
        compute_loss(model, inputs).backward()
    assert (largest.numbers >= LENGTH**2) == builds
    if builds:
        with pytest.raises(RequestError, match="Full attention over a long input"):
            without_mask(inputs)
    else:
        assert without_mask(inputs).keys() == inputs.keys() - {"attention_mask"}


def test_eager_attention_builds_scores():
    model = LlamaForCausalLM(LlamaConfig(**FIELDS, attn_implementation="eager"))
    with Largest() as largest, torch.no_grad():
        model(torch.zeros(1, LENGTH, dtype=torch.long))
    assert largest.numbers >= LENGTH**2
