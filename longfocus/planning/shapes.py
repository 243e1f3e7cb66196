"""The shape of a LLaMA-like model, as its `config.json` tells it, and how many weights follow from it.

Names of fields and what they are where a file leaves them out are transformers' own (LlamaConfig, MistralConfig,
Qwen2Config, Qwen3Config); nothing of transformers is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longfocus.errors import CheckpointError

FAMILIES = ("llama", "longllama", "mistral", "qwen2", "qwen3")
"""The values of `model_type` whose shapes are understood."""

_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_CONTEXT = {"llama": 2048, "longllama": 2048, "mistral": 131_072, "qwen2": 32_768, "qwen3": 32_768}
_KEY_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}  # the others: as many as query heads
_LARGEST = 1 << 24


@dataclass(frozen=True)
class Shape:
    """What the size and the speed of a model depend on.

    Attributes:
        layers: Transformer layers.
        hidden: Width of the states between layers.
        wide: Width inside the MLP.
        heads: Query heads of a layer.
        key_heads: Key heads, each shared by `heads / key_heads` query heads.
        head_dim: Numbers of a head.
        vocabulary: Tokens.
        context: Most tokens that it attends to as it was trained.
        tied: Whether the head's weights are the embedding's.
        biases: Biases of a layer, and weights of the norms of its heads.
        window: Most tokens that its layers attend to directly; None where that is the context.
        memory_layers: Layers that were trained to use memory.
    """

    layers: int
    hidden: int
    wide: int
    heads: int
    key_heads: int
    head_dim: int
    vocabulary: int
    context: int
    tied: bool = False
    biases: int = 0
    window: int | None = None
    memory_layers: tuple[int, ...] = ()

    @property
    def query_width(self) -> int:
        """Numbers of a token's queries in a layer."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Numbers of a token's keys (or values) in a layer."""
        return self.key_heads * self.head_dim

    @property
    def attention_weights(self) -> int:
        """Weights of a layer's four projections: queries and output, keys and values."""
        return self.hidden * (2 * self.query_width + 2 * self.key_width)

    @property
    def layer_weights(self) -> int:
        """Weights of a layer that are multiplied with each token's state."""
        return self.attention_weights + 3 * self.hidden * self.wide

    @property
    def head_weights(self) -> int:
        """Weights of the language modelling head, and as many of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights; tied ones once."""
        norms = 2 * self.hidden
        tables = (1 if self.tied else 2) * self.head_weights
        return self.layers * (self.layer_weights + norms + self.biases) + tables + self.hidden

    @property
    def longest_window(self) -> int:
        """Most tokens that may stand in its window."""
        return self.context if self.window is None else self.window

    def adapter_weights(self, rank: int, *, everywhere: bool, first_layer: int = 0) -> int:
        """Weights of a LoRA adapter (Hu et al., 2021): for each matrix, rank x (numbers it takes + numbers it gives).

        Args:
            rank: Of each matrix.
            everywhere: In the MLP as well; otherwise on the projections of attention alone.
            first_layer: The first layer that has one.
        """
        ends = 2 * (self.hidden + self.query_width) + 2 * (self.hidden + self.key_width)
        if everywhere:
            ends += 3 * (self.hidden + self.wide)
        return rank * ends * max(self.layers - first_layer, 0)


def shape_of(fields: Mapping[str, Any], source: object = "the checkpoint") -> Shape:
    """The shape that a `config.json` describes.

    Args:
        fields: Its contents.
        source: What to call the checkpoint in an error.

    Raises:
        CheckpointError: Another architecture, or fields that make no sense.
    """
    kind = fields.get("model_type")
    if kind not in FAMILIES:
        raise CheckpointError(f"{source} holds a model of architecture {kind!r}; wanted one of {', '.join(FAMILIES)}.")
    missing = [name for name in _NEEDED if fields.get(name) is None]
    if missing:
        raise CheckpointError(f"The configuration of {source} does not state {', '.join(missing)}.")
    hidden, wide, layers, heads, vocabulary = (_count(fields, name, source) for name in _NEEDED)
    context = _count(fields, "max_position_embeddings", source, _CONTEXT[kind])
    key_heads = _count(fields, "num_key_value_heads", source, _KEY_HEADS.get(kind, heads))
    head_dim = _count(fields, "head_dim", source, 128 if kind == "qwen3" else hidden // heads)
    queries, keys = heads * head_dim, key_heads * head_dim
    biases = 2 * head_dim if kind == "qwen3" or fields.get("qk_norm") else 0
    if kind == "qwen2" or fields.get("attention_bias"):
        biases += queries + 2 * keys
    if fields.get("attention_out_bias", fields.get("attention_bias") if kind != "qwen2" else False):
        biases += hidden
    if fields.get("mlp_bias"):
        biases += 2 * wide + hidden
    own = fields.get("mem_layers") or ()
    if any(type(layer) is not int or not 0 <= layer < layers for layer in own):
        raise CheckpointError(f"The configuration of {source} makes no sense: its mem_layers are {own}.")
    return Shape(
        layers=layers,
        hidden=hidden,
        wide=wide,
        heads=heads,
        key_heads=key_heads,
        head_dim=head_dim,
        vocabulary=vocabulary,
        context=context,
        tied=bool(fields.get("tie_word_embeddings", False)),
        biases=biases,
        window=_window(kind, fields, layers, context, source),
        memory_layers=tuple(sorted(set(own))),
    )


def _window(kind: str, fields: Mapping[str, Any], layers: int, context: int, source: object) -> int | None:
    """The sliding window, where one is shorter than the context, or the window that a LongLLaMA states."""
    if kind == "longllama":
        return _count(fields, "window_length", source, context) if fields.get("window_length") else None
    slides = (kind == "mistral" and "sliding_window" not in fields) or fields.get("sliding_window") is not None
    if kind in ("qwen2", "qwen3"):
        kinds = fields.get("layer_types") or []
        first = _count(fields, "max_window_layers", source, 28) if fields.get("max_window_layers") != 0 else 0
        slides = bool(fields.get("use_sliding_window")) and ("sliding_attention" in kinds if kinds else first < layers)
    elif kind != "mistral":
        slides = False
    if not slides:
        return None
    window = _count(fields, "sliding_window", source, 4096)
    return window if window < context else None


def _count(fields: Mapping[str, Any], name: str, source: object, default: int | None = None) -> int:
    value = fields.get(name)
    if value is None:
        value = default
    if type(value) is not int or not 0 < value < _LARGEST:
        raise CheckpointError(f"The configuration of {source} makes no sense: {name} is {value!r}.")
    return value
