"""A checkpoint made to take longer inputs by full attention: its positions, its adapters, its optimizer.

The defaults are the recipe of Anima 100K (lyogavin, 2023), which took LLaMA 2 7B from 4,096 to 131,072 positions:
positions divided by 32, LoRA of rank 32 in every linear layer, an 8-bit AdamW, one sequence at a time.

Three ways to stretch rotary positions are there. All are transformers' own; what is set here is which numbers they
need, as those differ in ways that go unnoticed. A factor is the new length over the trained one, at least 1.
"""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LlamaConfig

from longfocus.errors import RequestError

if TYPE_CHECKING:
    from peft import LoraConfig

RECIPE: dict[str, Any] = {
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.0,
    "max_grad_norm": 0.3,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "max_steps": 1000,
    "bf16": True,
    "activation_checkpointing": True,
}
"""Anima's settings, as arguments of transformers' TrainingArguments; `optim` is what `eight_bit_adamw` says."""


def position_interpolation(config: LlamaConfig, length: int) -> LlamaConfig:
    """Divide positions by a factor, so that all fall where trained ones were (Chen et al., 2023). Needs tuning.

    Args:
        config: A configuration without scaled positions; it is left as it is.
        length: The tokens that are to fit.

    Returns:
        A configuration whose factor is a whole number, with `max_position_embeddings` that many times as large.

    Raises:
        RequestError: The configuration's positions are scaled already, or the length is none.
    """
    trained = _trained_length(config, length)
    factor = math.ceil(length / trained)
    return _with_rope(config, trained * factor, rope_type="linear", factor=float(factor))


def yarn(config: LlamaConfig, length: int) -> LlamaConfig:
    """Stretch slow rotations only, and sharpen attention a little (Peng et al., "YaRN", 2023). Needs little tuning.

    Arguments, result and errors are those of `position_interpolation`.
    """
    trained = _trained_length(config, length)
    factor = math.ceil(length / trained)
    return _with_rope(
        config,
        trained * factor,
        rope_type="yarn",
        factor=float(factor),
        original_max_position_embeddings=trained,  # else taken to be the new length, and nothing would be stretched
    )


def dynamic_ntk(config: LlamaConfig, length: int) -> LlamaConfig:
    """Raise the base of the rotation as an input grows beyond the trained length; works without tuning.

    Arguments and errors are those of `position_interpolation`. The configuration returned keeps
    `max_position_embeddings`: the rotation compares an input with it, so with the new length nothing would happen.
    """
    trained = _trained_length(config, length)
    return _with_rope(config, trained, rope_type="dynamic", factor=float(math.ceil(length / trained)))


EXTENSIONS: dict[str, Callable[[LlamaConfig, int], LlamaConfig]] = {
    "linear": position_interpolation,
    "dynamic": dynamic_ntk,
    "yarn": yarn,
}
"""The ways to stretch positions, by transformers' names for them."""


def _trained_length(config: LlamaConfig, length: int) -> int:
    rope = config.rope_parameters or {}
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise RequestError(f"The model's positions are scaled already ({kind}). Extend the model it was made from.")
    if length < 1:
        raise RequestError(f"A length of {length} tokens was asked for; it must be 1 or more.")
    return int(config.max_position_embeddings)


def _with_rope(config: LlamaConfig, positions: int, **rope: Any) -> LlamaConfig:
    extended = copy.deepcopy(config)
    extended.rope_parameters = {**(config.rope_parameters or {}), **rope}
    extended.max_position_embeddings = positions
    return extended


def lora(rank: int = 32, alpha: int = 16, **settings: Any) -> LoraConfig:
    """Adapters in every linear layer but the head, as Anima has them; for `peft.get_peft_model`.

    Args:
        rank: Rank of each adapter.
        alpha: An adapter's output counts alpha / rank times.
        **settings: Other fields of peft's `LoraConfig`, in place of Anima's.

    Raises:
        RequestError: peft is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise RequestError("Adapters need the package peft. Install it: pip install peft.")
    from peft import LoraConfig

    anima: dict[str, Any] = {"lora_dropout": 0.0, "bias": "none", "target_modules": "all-linear"}
    return LoraConfig(r=rank, lora_alpha=alpha, task_type="CAUSAL_LM", **{**anima, **settings})


def eight_bit_adamw() -> str:
    """The name under which transformers' TrainingArguments know AdamW with states of 8 bits on this machine.

    It saves 6 bytes for each trained weight. That matters when a whole model is tuned and hardly with adapters, for
    which the plain `adamw_torch` does; states of fewer than 4,096 numbers keep 32 bits in any case. On a CPU it takes
    2 to 3 times as long as the plain one, and there are no pages to move.

    Raises:
        RequestError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RequestError(
            "AdamW with states of 8 bits needs the package bitsandbytes. Install it (pip install bitsandbytes; no CUDA "
            'is needed), or use optim="adamw_torch".'
        )
    return "paged_adamw_8bit" if torch.cuda.is_available() else "adamw_8bit"


def without_mask(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs for which transformers' LLaMA builds no mask of T x T: those of sequences without padding.

    A mask takes a byte for each pair of tokens, 10 GB at 100,000, and rules the fast kernels out. With
    `attn_implementation="sdpa"` transformers builds one where the attention mask hides a token and where `position_ids`
    do not count up one by one, which it takes for several sequences in a row; with "eager" always, and scores as well.

    Args:
        inputs: What a model's `forward` takes.

    Returns:
        The same without `attention_mask`.

    Raises:
        RequestError: The attention mask hides tokens, or positions do not count up one by one.
    """
    mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
    if isinstance(mask, Tensor) and not bool((mask != 0).all()):
        raise RequestError(
            "Full attention over a long input wants sequences without padding, and the attention mask hides "
            f"{int((mask == 0).sum())} tokens. Use one sequence a batch, or rows of one length."
        )
    if isinstance(positions, Tensor) and bool((positions.diff(dim=-1) != 1).any()):
        raise RequestError(
            "Full attention over a long input wants one sequence a row, and position_ids do not count up one by one."
        )
    return {name: value for name, value in inputs.items() if name != "attention_mask"}
