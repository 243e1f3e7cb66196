"""A Book: a document that one model has read, opened from its folder without reading it again.

Knows the text, which characters each entry of memory stands for, and the state from which any number of questions can
start. How it is written is in `writer`, how questions are asked is elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from longfocus.errors import BookError
from longfocus.memory.disk import DiskMemory, map_entries
from longfocus.memory.layout import (
    TEXT,
    TOKENS,
    Manifest,
    Progress,
    Reading,
    layer_files,
    parse_manifest,
    parse_progress,
    read_bytes,
    window_file,
)
from longfocus.memory.sections import section_at
from longfocus.memory.verify import check_files
from longfocus.memory.writer import reading_difference
from longfocus.model.cache import LayerState, LongLlamaCache
from longfocus.model.growing import GrowingTensor
from longfocus.model.memory import Memory

_LARGEST = 4 * 2**30


@dataclass(frozen=True)
class StoredBook:
    """An opened Book folder; nothing in it changes any more.

    Attributes:
        folder: Where it lies.
        manifest: What was read, by which model, with which settings.
        progress: How far reading has come.
        text: The document's text.
        ids: Tokens in reading order, [tokens], the prompt's opening included.
        starts: First character of `text` that each token stands for, [tokens]; -1 in the prompt's opening.
        ends: One past its last character; -1 likewise.
    """

    folder: Path
    manifest: Manifest
    progress: Progress
    text: str
    ids: Tensor
    starts: Tensor
    ends: Tensor

    @classmethod
    def open(cls, folder: str | Path, *, complete: bool = True) -> StoredBook:
        """Open a Book and check that its files are what its records say.

        Args:
            folder: Where it lies.
            complete: Whether a Book that was not read to its end is refused.

        Raises:
            BookError: No Book, a damaged one, or one that was not read to its end.
        """
        folder = Path(folder)
        manifest = parse_manifest(folder)
        progress = parse_progress(folder, manifest)
        if complete and progress.tokens < manifest.tokens:
            raise BookError(
                f"{folder} was read to token {progress.tokens} of {manifest.tokens}; "
                "`longfocus read` with the same document goes on from there"
            )
        check_files(folder, manifest, progress)
        try:
            tokens = load(read_bytes(folder, TOKENS, _LARGEST))
            ids, starts, ends = (tokens[name].long() for name in ("ids", "starts", "ends"))
            text = read_bytes(folder, TEXT, _LARGEST).decode("utf-8", "surrogatepass")
        except (SafetensorError, KeyError, ValueError):
            raise BookError(f"{folder / TOKENS} or {TEXT} is damaged; read the document again") from None
        if not ids.shape == starts.shape == ends.shape == (manifest.tokens,) or int(ends.max()) > len(text):
            raise BookError(f"{folder / TOKENS} does not fit the manifest; read the document again")
        if manifest.spans[-1][1] > len(text):
            raise BookError(f"{folder / TEXT} does not fit the manifest; read the document again")
        return cls(folder, manifest, progress, text, ids, starts, ends)

    def check_reader(self, reading: Reading) -> None:
        """Refuse a model other than the one that read the Book.

        Raises:
            BookError: Says what differs.
        """
        difference = reading_difference(self.manifest.reading, reading)
        if difference:
            raise BookError(
                f"{self.folder} was {difference}; load that model, or read the document again with this one"
            )

    def memories(self) -> dict[int, Memory]:
        """The memory of each memory layer, mapped from the files."""
        reading = self.manifest.reading
        dtype = getattr(torch, reading.dtype)
        memories: dict[int, Memory] = {}
        for layer in reading.memory_layers:
            keys, values = (
                map_entries(self.folder / name, self.progress.entries, reading.key_heads, reading.head_dim, dtype)
                for name in layer_files(layer)
            )
            memories[layer] = DiskMemory(keys, values)
        return memories

    def state(self, memories: dict[int, Memory], dtype: torch.dtype) -> LongLlamaCache:
        """The model's state after reading, with these memories; `dtype` is the model's."""
        layers, positions = load_window(self.folder, self.manifest, self.progress, memories, dtype)
        return LongLlamaCache(layers, positions)

    def place(self, position: int) -> dict[str, str]:
        """Chapter and page of a character of the text, those that are known."""
        found = {kind: section_at(self.manifest.sections, kind, position) for kind in ("chapter", "page")}
        return {kind: label for kind, label in found.items() if label is not None}


def load_window(
    folder: Path, manifest: Manifest, progress: Progress, memories: dict[int, Memory], dtype: torch.dtype
) -> tuple[list[LayerState], Tensor | None]:
    """Each layer's state as reading left it, with these memories, and the positions in the window, [1, S].

    Raises:
        BookError: The window file is damaged.
    """
    layers = manifest.reading.layers
    if not progress.step:
        return [LayerState(memory=memories.get(layer)) for layer in range(layers)], None
    name = window_file(progress.step)
    contents = read_bytes(folder, name, _LARGEST)
    if sha256(contents).hexdigest() != progress.window_sha256:
        raise BookError(f"{folder / name} was changed after it was written; read the document again")
    try:
        held = load(contents)
        keys, values, positions = (held[part] for part in ("keys", "values", "positions"))
    except (SafetensorError, KeyError):
        raise BookError(f"{folder / name} is damaged; read the document again") from None
    reading = manifest.reading
    held_tokens = progress.tokens - progress.entries if reading.memory_layers else positions.numel()
    shape = (layers, reading.key_heads, held_tokens, reading.head_dim)
    if positions.shape != (1, held_tokens) or positions.dtype != torch.long or not keys.shape == values.shape == shape:
        raise BookError(f"{folder / name} does not fit the manifest; read the document again")
    if not positions.shape[-1]:
        return [LayerState(memory=memories.get(layer)) for layer in range(layers)], None
    states = [
        LayerState(
            GrowingTensor.of(keys[layer : layer + 1].to(dtype), 2),
            None,
            GrowingTensor.of(values[layer : layer + 1].to(dtype), 2),
            memories.get(layer),
        )
        for layer in range(layers)
    ]
    return states, positions


def pack_window(state: LongLlamaCache, like: Tensor) -> dict[str, Tensor]:
    """What is in the window of a state of one row, as `load_window` reads it; `like` [1, G, 0, D] where it is empty."""
    if state.positions is None:
        empty = like.new_empty((len(state.layers), like.shape[1], 0, like.shape[3]))
        return {"keys": empty, "values": empty.clone(), "positions": torch.empty((1, 0), dtype=torch.long)}
    keys = torch.cat([layer.keys.tensor for layer in state.layers if layer.keys is not None])
    values = torch.cat([layer.values.tensor for layer in state.layers if layer.values is not None])
    return {"keys": keys, "values": values, "positions": state.positions.clone()}
