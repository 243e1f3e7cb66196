"""The shape of a model by what a user calls it, without loading it, fetching it, or importing torch.

What is on this machine under that name comes first, as in `whereabouts`: a folder, a GGUF file, the default model in
the cache, the hub's own cache. A checkpoint that is not here has the shape that is known of it by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longfocus.errors import CheckpointError
from longfocus.loading.cache import models_dir
from longfocus.loading.catalogue import MODEL_TABLE
from longfocus.loading.default_model import DEFAULT_MODEL
from longfocus.planning.known_shapes import SHAPES
from longfocus.planning.shapes import Shape, shape_of
from longfocus.planning.ways import Way, usual_way, way_of

_CONFIG, _NOTE = "config.json", "memory.json"
_ADAPTERS = Path(__file__).parent.parent / "adapters"
_PROFILES = Path(__file__).parent.parent / "profiles"
_PROFILED = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "wide": "intermediate_size",
    "heads": "num_attention_heads",
    "key_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocabulary": "vocab_size",
    "context": "max_position_embeddings",
}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_GGUF_FIELDS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
}


@dataclass(frozen=True)
class FoundShape:
    """A shape with where it comes from.

    Attributes:
        name: What to call the model.
        shape: Its shape.
        source: The file that it was read from, or "known by name".
        memory: Fields of memory that an adapter, or the checkpoint itself, was trained with; None for none.
        habits: How it then reads and asks; empty where the checkpoint itself was trained.
        rope_theta: Base of its rotations, which tells generations of one shape apart; None where it is not known.
    """

    name: str
    shape: Shape
    source: str
    memory: Mapping[str, Any] | None = None
    habits: Mapping[str, Any] | None = None
    rope_theta: float | None = None


def way_with_memory(
    found: FoundShape,
    memory_layers: Sequence[int] | None = None,
    window: int | None = None,
    *,
    adapter: bool = True,
) -> Way:
    """How `longfocus read` and `longfocus ask` use a model, as `longfocus.load` sets it up.

    As it was trained, or its adapter was; else by the profile that comes with the package for models of its shape; else
    as any other. What `longfocus probe` found on this machine is not looked for, since that needs the weights.

    Args:
        found: The model.
        memory_layers: In place of its own; an adapter that was trained with others is then left out.
        window: In place of its own.
        adapter: Whether the adapter that comes with it is used.

    Raises:
        RequestError: Layers that it has not, or a window that does not fit.
    """
    trained = found.memory if adapter or not found.habits else None
    other = memory_layers is not None and trained is not None and list(memory_layers) != trained.get("mem_layers")
    if trained is not None and not (other and found.habits):
        asked = {"mem_layers": memory_layers, "window_length": window}
        fields = {**trained, **{name: value for name, value in asked.items() if value is not None}}
        return way_of(found.shape, fields, found.habits or {})
    profile = _shipped_profile(found)
    if profile is None or (found.memory is not None and not found.habits):
        return usual_way(found.shape, memory_layers=memory_layers, window=window)
    size = window or min(profile["window"], found.shape.longest_window)
    staying = size * (profile["overlap"] + profile["sinks"]) // profile["window"]
    layers = profile["memory_layers"] if memory_layers is None else memory_layers
    way = usual_way(found.shape, memory_layers=layers, window=size, staying=staying)
    return replace(way, top_k=profile["top_k"])


def _shipped_profile(found: FoundShape) -> dict[str, Any] | None:
    """The profile that comes with the package for models of this shape."""
    for path in sorted(_PROFILES.glob("*.json")):
        profile = _read_json(path)
        known = profile["of"]["shape"]
        theta = found.rope_theta in (None, known["rope_theta"])
        if theta and all(getattr(found.shape, ours) == known[theirs] for ours, theirs in _PROFILED.items()):
            return profile
    return None


def find_shape(name: str | Path | None) -> FoundShape:
    """The shape of the model called `name`; None for the default model.

    Raises:
        CheckpointError: There is none of that name here, and none is known, or its configuration makes no sense.
    """
    if name is None or str(name) == DEFAULT_MODEL:
        folder = models_dir() / DEFAULT_MODEL
        here = (folder / _CONFIG).is_file()
        found = _of_folder(folder, DEFAULT_MODEL) if here else FoundShape(DEFAULT_MODEL, SHAPES[DEFAULT_MODEL], _KNOWN)
        return _with_note(found, _ADAPTERS / DEFAULT_MODEL / _NOTE)
    path = Path(name).expanduser()
    if path.is_dir():
        return _of_folder(path, str(path))
    if path.suffix.lower() == ".gguf":
        return _of_gguf(path)
    if path.exists():
        raise CheckpointError(f"{path} is a file; wanted a folder with a model, or a .gguf file.")
    called, _, revision = str(name).partition("@")
    repos = {entry.name: entry.repo for entry in MODEL_TABLE}
    repo = repos.get(called, called)
    cached = _in_hub_cache(repo, revision or None) if _HUB_NAME.fullmatch(repo) else None
    if cached is not None:
        return _of_folder(cached, str(name))
    known = called if called in SHAPES else next((short for short, long in repos.items() if long == called), None)
    if known is None:
        raise CheckpointError(
            f"There is no model {str(name)!r} on this machine, and nothing is fetched for a plan; wanted a folder with "
            f"a config.json, a .gguf file, or one of {', '.join(SHAPES)}."
        )
    return FoundShape(known, SHAPES[known], _KNOWN)


_KNOWN = "known by name"


def _of_folder(folder: Path, name: str) -> FoundShape:
    path = folder / _CONFIG
    fields = _read_json(path)
    found = FoundShape(name, shape_of(fields, folder), str(path), rope_theta=_theta(fields))
    if fields.get("mem_layers"):
        return replace(found, memory=fields, habits={})
    return _with_note(found, folder / _NOTE)


def _theta(fields: Mapping[str, Any]) -> float | None:
    inner = fields.get("rope_parameters")
    told = inner.get("rope_theta") if isinstance(inner, dict) else fields.get("rope_theta")
    return float(told) if isinstance(told, int | float) else None


def _with_note(found: FoundShape, path: Path) -> FoundShape:
    """With the memory that the note of an adapter tells, if there is one."""
    if not path.is_file():
        return found
    note = _read_json(path)
    memory, habits = note.get("memory"), note.get("habits")
    if not isinstance(memory, dict) or not isinstance(habits, dict):
        raise CheckpointError(f"{path} is damaged: it tells of no memory.")
    return replace(found, memory=memory, habits=habits)


def _of_gguf(path: Path) -> FoundShape:
    from gguf import GGUFReader

    from longfocus.loading.gguf_header import read_header

    header = read_header(path)
    fields = {ours: header.get(theirs) for ours, theirs in _GGUF_FIELDS.items()}
    fields |= {"model_type": header.architecture, "vocab_size": header.token_count}
    fields["tie_word_embeddings"] = all(tensor.name != "output.weight" for tensor in GGUFReader(path).tensors)
    return FoundShape(str(path), shape_of(fields, path), str(path))


def _in_hub_cache(repo: str, revision: str | None) -> Path | None:
    """The folder of the hub's cache with this checkpoint's configuration."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, _CONFIG, revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} holds no model: it has no {path.name}.") from None
    except (OSError, ValueError):
        raise CheckpointError(f"{path} cannot be read as JSON: it is damaged.") from None
    if not isinstance(read, dict):
        raise CheckpointError(f"{path} holds a {type(read).__name__}; wanted fields by name.")
    return read
