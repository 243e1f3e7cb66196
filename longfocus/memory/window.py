"""What a Book holds of a model's state besides its memory: the window, and what upper layers have yet to run over.

window-N.safetensors    "keys", "values" [layers run, key heads, S, head_dim] and "positions" [1, S] of the window;
while reading goes on, "upper_keys" and "upper_values" [other layers, key heads, sinks,
head_dim] of the first tokens in the layers that are left for later; where entries are packed (`int8`),
"centres" [memory layers, key heads, head_dim], which packed keys miss

late-M.safetensors      "states" [1, T, hidden size]: what the first of those takes of the window at token M
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from longfocus.errors import READ_ANEW, BookError
from longfocus.memory.late import LateState, Waiting
from longfocus.memory.layout import Manifest, Progress, checksum, late_file, read_bytes, window_file
from longfocus.model.cache import LayerState, LongLlamaCache
from longfocus.model.growing import GrowingTensor
from longfocus.model.memory import Memory

_LARGEST = 4 * 2**30


def pack_state(state: LateState, lower: int, like: Tensor) -> dict[str, Tensor]:
    """What stands in the windows, as `load_state` reads it.

    Args:
        state: In the middle of a document.
        lower: How many layers were run; the others wait.
        like: [1, G, 0, D], an empty tensor of the right kind.
    """
    keys, values = _stacked(state.lower, range(lower), like)
    upper_keys, upper_values = _stacked(state.upper, range(lower, len(state.upper.layers)), like)
    return {
        "keys": keys,
        "values": values,
        "positions": _positions(state.lower),
        "upper_keys": upper_keys,
        "upper_values": upper_values,
    }


def pack_whole(state: LongLlamaCache, like: Tensor) -> dict[str, Tensor]:
    """The window of all layers at the end of a document, as `load_whole` reads it."""
    keys, values = _stacked(state, range(len(state.layers)), like)
    return {"keys": keys, "values": values, "positions": _positions(state)}


def load_whole(
    folder: Path, manifest: Manifest, progress: Progress, memories: Mapping[int, Memory], dtype: torch.dtype
) -> LongLlamaCache:
    """The state at the end of a document, with these memories; `dtype` is the model's.

    Raises:
        BookError: The window file is damaged.
    """
    return _window(folder, manifest, progress, manifest.reading.layers, memories, dtype)[0]


def load_state(
    folder: Path, manifest: Manifest, progress: Progress, memories: Mapping[int, Memory], dtype: torch.dtype
) -> LateState:
    """The state in the middle of a document, with these memories; `dtype` is the model's.

    Raises:
        BookError: A file is damaged.
    """
    reading = manifest.reading
    if not progress.step:
        empty = LongLlamaCache.of_memories({}, reading.layers)
        return LateState(0, LongLlamaCache.of_memories(dict(memories), reading.layers), empty, ())
    lower, held = _window(folder, manifest, progress, reading.lower, memories, dtype)
    upper = LongLlamaCache.of_memories({}, reading.layers)
    above = reading.layers - reading.lower
    try:
        keys, values = held["upper_keys"], held["upper_values"]
        sinks = keys.shape[2] if above else 0
        if not keys.shape == values.shape == (above, reading.key_heads, sinks, reading.head_dim):
            raise KeyError
        if sinks:
            first = range(reading.lower, reading.layers)
            upper = LongLlamaCache(_layers(keys, values, first, {}, dtype, reading.layers), torch.arange(sinks)[None])
        waiting = tuple(_waiting(folder, start, progress, dtype) for start in progress.late)
    except (SafetensorError, KeyError, IndexError):
        raise BookError(f"{folder} does not fit its manifest; {READ_ANEW}") from None
    return LateState(progress.tokens, lower, upper, waiting)


def load_centres(folder: Path, manifest: Manifest, progress: Progress) -> dict[int, Tensor]:
    """What the packed keys of each memory layer miss, [G, D]; nothing before the first entry.

    Raises:
        BookError: The window file is damaged.
    """
    reading, name = manifest.reading, window_file(progress.step)
    if not progress.entries:
        return {}
    try:
        centres = load(_checked(folder, name, progress))["centres"]
    except (SafetensorError, KeyError):
        raise BookError(f"{folder / name} is damaged; {READ_ANEW}") from None
    shape = (len(reading.memory_layers), reading.key_heads, reading.head_dim)
    if centres.shape != shape or centres.dtype != torch.float32 or not bool(centres.isfinite().all()):
        raise BookError(f"{folder / name} does not fit the manifest; {READ_ANEW}")
    return dict(zip(reading.memory_layers, centres, strict=True))


def pack_centres(centres: list[Tensor | None]) -> dict[str, Tensor]:
    """What goes into the window file for `load_centres`; nothing where there is nothing, or not yet."""
    known = [centre for centre in centres if centre is not None]
    return {"centres": torch.stack(known)} if known else {}


def _waiting(folder: Path, start: int, progress: Progress, dtype: torch.dtype) -> Waiting:
    states = load(_checked(folder, late_file(start), progress))["states"]
    following = [other for other in progress.late if other > start]
    tokens = (min(following) if following else progress.tokens) - start
    if states.dim() != 3 or states.shape[:2] != (1, tokens) or not states.is_floating_point():
        raise KeyError
    return Waiting(start, states.to(dtype))


def _window(
    folder: Path,
    manifest: Manifest,
    progress: Progress,
    layers: int,
    memories: Mapping[int, Memory],
    dtype: torch.dtype,
) -> tuple[LongLlamaCache, dict[str, Tensor]]:
    """The state of the first `layers` layers, and all that the window file holds."""
    reading = manifest.reading
    name = window_file(progress.step)
    try:
        held: dict[str, Tensor] = load(_checked(folder, name, progress))
        keys, values, positions = (held[part] for part in ("keys", "values", "positions"))
    except (SafetensorError, KeyError):
        raise BookError(f"{folder / name} is damaged; {READ_ANEW}") from None
    tokens = progress.tokens - progress.entries if reading.memory_layers else positions.numel()
    shape = (layers, reading.key_heads, tokens, reading.head_dim)
    if positions.shape != (1, tokens) or positions.dtype != torch.long or not keys.shape == values.shape == shape:
        raise BookError(f"{folder / name} does not fit the manifest; {READ_ANEW}")
    if not tokens:
        return LongLlamaCache.of_memories(dict(memories), reading.layers), held
    return LongLlamaCache(_layers(keys, values, range(layers), memories, dtype, reading.layers), positions), held


def _layers(
    keys: Tensor, values: Tensor, which: range, memories: Mapping[int, Memory], dtype: torch.dtype, layers: int
) -> list[LayerState]:
    """States of `layers` layers; those in `which` have these keys and values [len(which), G, S, D]."""
    states = [LayerState(memory=memories.get(layer)) for layer in range(layers)]
    for row, layer in enumerate(which):
        held = [GrowingTensor.of(tensor[row : row + 1].to(dtype), 2) for tensor in (keys, values)]
        states[layer] = LayerState(held[0], None, held[1], memories.get(layer))
    return states


def _checked(folder: Path, name: str, progress: Progress) -> bytes:
    contents = read_bytes(folder, name, _LARGEST)
    if checksum(contents) != progress.state_files.get(name):
        raise BookError(f"{folder / name} was changed after it was written; {READ_ANEW}")
    return contents


def _stacked(state: LongLlamaCache, layers: range, like: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [layers, G, S, D] in the window of these layers."""
    held = [state.layers[layer] for layer in layers]
    keys = [layer.keys.tensor for layer in held if layer.keys is not None]
    values = [layer.values.tensor for layer in held if layer.values is not None]
    if not keys:
        empty = like.new_empty((len(layers), like.shape[1], 0, like.shape[3]))
        return empty, empty.clone()
    return torch.cat(keys), torch.cat(values)


def _positions(state: LongLlamaCache) -> Tensor:
    return torch.empty((1, 0), dtype=torch.long) if state.positions is None else state.positions.clone()
