"""The `config.json` of any LLaMA-family checkpoint as a configuration of ours.

LLaMA, Mistral, Qwen2 and Qwen3 are one architecture with a few differences (biases, norms of queries and keys, a
sliding window, ways to scale rotary positions), and `LongLlamaConfig` has a field for each. transformers' own
configuration classes fill in what a file leaves out and know every old spelling; this module says what their fields
mean for our model, and refuses in one line what our model would compute differently. It reads no weights, runs no
code of a checkpoint, and chooses no memory: that is `defaults`.
"""

import dataclasses
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from longfocus.errors import CheckpointError
from longfocus.model.config import LongLlamaConfig
from longfocus.model.rope import RotaryEmbedding

FAMILIES: dict[str, type[PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "longllama": LongLlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}
"""The values of `model_type` that can be loaded, with the class that knows the defaults of each."""

ROPE_KINDS = ("default", "dynamic", "linear", "llama3", "longrope", "yarn")
"""The ways of scaling rotary positions that our model computes."""

# Notes on how a checkpoint was made, saved or last used; none changes what a token's hidden state is.
_NOTES = frozenset(
    {
        "architectures",
        "chunk_size_feed_forward",
        "dtype",
        "id2label",
        "is_encoder_decoder",
        "label2id",
        "output_hidden_states",
        "problem_type",
        "return_dict",
        "transformers_version",
        "use_cache",
    }
)
# Read by every class though not listed among its fields: old spellings, and a width of heads that Qwen2 may state.
_UNLISTED = frozenset(
    {"head_dim", "original_max_position_embeddings", "partial_rotary_factor", "rope_scaling", "rope_theta"}
)
_OURS = frozenset(field.name for field in dataclasses.fields(LongLlamaConfig)) - _NOTES
# What wrong types and impossible numbers lead to, in transformers' classes, in ours and in the rotary arithmetic.
_NONSENSE = (StrictDataclassError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def to_longllama(config: Mapping[str, Any] | PreTrainedConfig, source: object = "the checkpoint") -> LongLlamaConfig:
    """Return our configuration for the checkpoint that `config` describes.

    Args:
        config: What is in `config.json`, or a configuration of transformers.
        source: What to call the checkpoint in an error, usually its folder.

    Returns:
        A configuration whose model computes what the checkpoint's own would. A LongLLaMA keeps its memory fields.
        Any other has no memory layers, and its `window_length` is its sliding window where it has one shorter than
        its context: that window may be made shorter, never longer.

    Raises:
        CheckpointError: The checkpoint is of another architecture, or its configuration makes no sense.
    """
    fields = config.to_dict() if isinstance(config, PreTrainedConfig) else config
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise CheckpointError(
            f"{source} holds a model of architecture {kind!r}; wanted one of {', '.join(sorted(FAMILIES))}."
        )
    _refuse_variants(fields, source)
    read = FAMILIES[kind]
    known = ({field.name for field in dataclasses.fields(read)} - _NOTES) | _UNLISTED
    try:
        # A copy, because transformers writes into the dictionaries that it is given.
        family = read(**{name: deepcopy(value) for name, value in fields.items() if name in known})
        values = {name: getattr(family, name) for name in _OURS if hasattr(family, name)}
        values |= _differences(kind, family, source)
        values["rope_parameters"] = _rope(family, source)
        values["pad_token_id"] = _inside_vocabulary(family.pad_token_id, values["vocab_size"])
        made = LongLlamaConfig(**values)
        RotaryEmbedding(made)  # some of the numbers of a scaling are only looked at when it is computed
    except CheckpointError:
        raise
    except _NONSENSE as error:
        raise CheckpointError(f"The configuration of {source} makes no sense: {_one_line(error)}") from error
    return made


def has_own_memory(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a LongLLaMA, which says itself how its memory is used."""
    return config.get("model_type") == LongLlamaConfig.model_type


def _differences(kind: str, family: Any, source: object) -> dict[str, Any]:
    """What sets a family apart from LLaMA, in our fields."""
    if kind == "mistral":
        return _windowed(family, family.sliding_window)
    if kind in ("qwen2", "qwen3"):
        kinds = set(family.layer_types)
        if foreign := kinds - {"full_attention", "sliding_attention"}:
            raise CheckpointError(f"{source} has layers of kind {min(foreign)!r}; wanted full or sliding attention.")
        values = _windowed(family, family.sliding_window if "sliding_attention" in kinds else None)
        if kind == "qwen2":
            return {**values, "attention_bias": True, "attention_out_bias": False}
        return {**values, "qk_norm": True}
    return {}


def _windowed(family: Any, sliding: int | None) -> dict[str, Any]:
    """Our window for layers of which each token sees the last `sliding` tokens, itself included.

    Some of Qwen's layers slide and some do not; our window is one for all layers, so the shorter one counts.
    """
    return {"window_length": sliding} if sliding is not None and sliding < family.max_position_embeddings else {}


def _rope(family: Any, source: object) -> dict[str, Any]:
    """The rotary parameters in the spelling of today, one set for all layers."""
    parameters = dict(family.rope_parameters)
    if "rope_type" not in parameters:  # one set for each kind of layer
        sets = [value for value in parameters.values() if isinstance(value, dict)]
        if not sets or any(value != sets[0] for value in sets):
            raise CheckpointError(f"{source} rotates the positions of some layers differently; wanted one way for all.")
        parameters = dict(sets[0])
    parameters.pop("type", None)  # the old name of rope_type, which has been filled in from it
    kind, theta = parameters["rope_type"], parameters.get("rope_theta")
    if kind not in ROPE_KINDS:
        raise CheckpointError(f"{source} scales rotary positions by {kind!r}; wanted one of {', '.join(ROPE_KINDS)}.")
    if parameters.pop("partial_rotary_factor", 1.0) not in (None, 1.0):
        raise CheckpointError(f"{source} rotates a part of each head only; wanted a model that rotates all of it.")
    if isinstance(theta, bool) or not isinstance(theta, int | float) or theta <= 0:
        raise CheckpointError(f"{source} has the rotary base {theta!r}; wanted a positive number.")
    return parameters


def _refuse_variants(fields: Mapping[str, Any], source: object) -> None:
    """Refuse what bears a family's name but computes something else, or is stored in a form that we do not read."""
    if quantised := fields.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, Mapping) else None
        raise CheckpointError(
            f"{source} has quantised weights ({method or 'of an unnamed kind'}); "
            "name the original checkpoint, or a GGUF file of it."
        )
    if any(isinstance(count := fields.get(name), int) and count > 1 for name in _EXPERTS):
        raise CheckpointError(f"{source} is a mixture of experts; wanted a model whose every layer has one MLP.")
    if fields.get("is_encoder_decoder") or fields.get("is_causal") is False:
        raise CheckpointError(f"{source} is an encoder; wanted a model that predicts the next token.")
    if fields.get("per_layer_config"):
        raise CheckpointError(f"{source} has layers of different shapes; wanted a model whose layers are alike.")


def _inside_vocabulary(token: int | None, size: int) -> int | None:
    """The padding id, or None where it names no row of the embeddings (-1 in some Llama 3 configurations)."""
    return token if token is not None and 0 <= token < size else None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
