"""A loaded model as a folder that others can use: with our code beside it, or as the plain model it was.

`save` keeps the memory: plain transformers loads the folder with `trust_remote_code=True`, without Longfocus.
`to_llama` leaves it out: weights under the same names with a LLaMA, Qwen2 or Qwen3 configuration, for any program
that knows those. A folder appears whole or not at all, and what is there is never overwritten.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from longfocus.errors import CheckpointError
from longfocus.loading.cache import build_once
from longfocus.loading.load import LoadedModel, quiet
from longfocus.model.modeling import LongLlamaForCausalLM
from longfocus.model.registration import register

_PLAIN = (
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "rope_parameters",
    "vocab_size",
)


def save(loaded: LoadedModel, folder: Path | str) -> None:
    """Write weights, tokenizer and our model code into the new folder `folder`.

    Raises:
        CheckpointError: The folder has something in it, or cannot be written.
    """
    register()

    def fill(target: Path) -> None:
        loaded.model.save_pretrained(str(target))
        loaded.tokenizer.save_pretrained(str(target))

    _write(folder, fill)


def to_llama(loaded: LoadedModel, folder: Path | str) -> None:
    """Write the model without its memory into the new folder `folder`, as the kind of model it was made from.

    What was a Mistral is written as the LLaMA that computes the same within its sliding window.

    Raises:
        CheckpointError: The folder has something in it, or cannot be written.
    """
    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):  # only its shape is needed, the weights are put in its place
        plain = auto.from_config(plain_config(loaded.model), dtype=loaded.model.dtype)
    plain.load_state_dict(loaded.model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = loaded.model.generation_config

    def fill(target: Path) -> None:
        plain.save_pretrained(str(target))
        loaded.tokenizer.save_pretrained(str(target))

    _write(folder, fill)


def plain_config(model: LongLlamaForCausalLM) -> PreTrainedConfig:
    """The configuration of the family that has what `model` has."""
    config: Any = model.config
    fields = {name: getattr(config, name) for name in _PLAIN}
    # Some files hold a head of its own although their configuration ties it to the embeddings; the files count.
    fields["tie_word_embeddings"] = model.lm_head.weight is model.model.embed_tokens.weight
    if config.qk_norm:
        return Qwen3Config(**fields, attention_bias=config.attention_bias)
    if config.attention_bias and config.attention_out_bias is False:
        return Qwen2Config(**fields)
    return LlamaConfig(**fields, attention_bias=config.attention_bias, mlp_bias=config.mlp_bias)


def _write(folder: Path | str, fill: Callable[[Path], None]) -> None:
    target = Path(folder).expanduser().absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise CheckpointError(f"{target} exists already; name a new folder for the model.")
    try:
        with quiet():
            build_once(target, fill, is_complete=lambda made: made.is_dir() and any(made.iterdir()))
    except OSError as error:
        raise CheckpointError(f"Cannot write the model to {target}: {error.strerror or error}.") from error
