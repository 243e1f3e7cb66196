"""What a GGUF file says about itself, read and checked before any weight is.

The `gguf` package parses the file. This module answers in our terms: is it a whole GGUF file, of an architecture
that we run, with only tensors that our models have? Everything it refuses is one `CheckpointError` line. It does
not read weights (transformers does), nor the vocabulary.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longfocus.errors import CheckpointError

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""The values of `general.architecture` that are LLaMA-family; Mistral and its kin are stored as "llama"."""

# Without one of these, transformers falls back on a default that belongs to some other model, or (for
# `head_count_kv`) quietly leaves the rows of the query and key weights in llama.cpp's order.
_REQUIRED = (
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
)

_ROPE_FACTORS = "rope_freqs.weight"
_TENSOR = re.compile(
    r"(token_embd|output_norm|output)\.weight"
    r"|blk\.\d+\.(attn_norm|attn_q|attn_k|attn_v|attn_output|ffn_norm|ffn_gate|ffn_up|ffn_down)\.weight"
)
_EXTRA_TENSOR = {
    "llama": re.compile(r"(?!)"),
    "qwen2": re.compile(r"blk\.\d+\.attn_[qkv]\.bias"),
    "qwen3": re.compile(r"blk\.\d+\.attn_[qk]_norm\.weight"),
}


@dataclass(frozen=True)
class GgufHeader:
    """The metadata of one GGUF file."""

    path: Path
    architecture: str
    values: Mapping[str, object]
    """Every key that holds a single value (the arrays, such as the vocabulary, are left in the file)."""
    token_count: int
    rope_factors: npt.NDArray[np.float32] | None
    """What each rotation frequency is divided by: how llama.cpp stores Llama 3's long-context scaling."""

    def get(self, key: str) -> object:
        """The value under the architecture's own prefix, e.g. `get("context_length")`; None when absent."""
        return self.values.get(f"{self.architecture}.{key}")

    def tokenizer(self, key: str) -> object:
        """The value of `tokenizer.ggml.<key>`; None when absent."""
        return self.values.get(f"tokenizer.ggml.{key}")


def read_header(path: Path) -> GgufHeader:
    """Read and check the metadata of the GGUF file at `path`."""
    from gguf import GGUFReader, GGUFValueType

    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise CheckpointError(f"Cannot read the GGUF file {path}: {error.strerror or error}.") from error
    if magic != b"GGUF":
        raise CheckpointError(f"{path} is not a GGUF file: it does not start with the letters GGUF.")
    try:
        # The reader touches every tensor's extent, so a file cut short in its weights is noticed here too.
        reader = GGUFReader(path)
        values = {
            name: field.contents()
            for name, field in reader.fields.items()
            if field.types and field.types[0] != GGUFValueType.ARRAY
        }
        tokens = reader.get_field("tokenizer.ggml.tokens")
        shapes = {tensor.name: tensor for tensor in reader.tensors}
        factors = shapes.get(_ROPE_FACTORS)
        rope_factors = None if factors is None else np.array(factors.data, dtype=np.float32).reshape(-1)
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as GGUF ({reason}): it is cut short or damaged, fetch it again."
        ) from error

    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} holds a model of architecture {architecture!r}; wanted one of {', '.join(ARCHITECTURES)}."
        )
    parts = values.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise CheckpointError(f"{path} is one of {parts} parts; join them with llama.cpp's `llama-gguf-split --merge`.")
    missing = [key for key in _REQUIRED if f"{architecture}.{key}" not in values]
    if tokens is None:
        missing.append("tokenizer.ggml.tokens")
    if tokens is None or missing:
        raise CheckpointError(f"{path} does not state {', '.join(missing)}, without which it cannot be converted.")
    rows = int(shapes["token_embd.weight"].shape[-1]) if "token_embd.weight" in shapes else 0
    if rows != len(tokens.data):
        raise CheckpointError(f"{path} is inconsistent: it has {len(tokens.data)} tokens but {rows} rows for them.")
    foreign = sorted(
        name
        for name in shapes
        if name != _ROPE_FACTORS and not _TENSOR.fullmatch(name) and not _EXTRA_TENSOR[architecture].fullmatch(name)
    )
    if foreign:
        # transformers would drop them without a word, and the model would be another one.
        raise CheckpointError(
            f"{path} holds {len(foreign)} tensors that a plain {architecture} model has not, such as {foreign[0]!r}: "
            "mixtures of experts and other variants cannot be converted."
        )
    return GgufHeader(path, architecture, values, len(tokens.data), rope_factors)
