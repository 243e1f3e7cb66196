"""Reading: a document goes through a model window by window, and what leaves the window becomes a Book.

After every window the Book is valid on disk, so reading can be stopped at any moment and goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save

from longfocus.errors import READ_ANEW, BookError
from longfocus.loading.load import LoadedModel
from longfocus.memory.disk import map_entries, map_records
from longfocus.memory.int8 import Int8Memory
from longfocus.memory.late import LateState, read_window, whole_state
from longfocus.memory.layout import Manifest, Progress, Reading, layer_files
from longfocus.memory.recent import RecentMemory
from longfocus.memory.window import load_centres, load_state, pack_centres, pack_state, pack_whole
from longfocus.memory.writer import BookWriter
from longfocus.model.cache import LongLlamaCache
from longfocus.model.config import LongLlamaConfig
from longfocus.model.memory import Memory
from longfocus.model.modeling import LongLlamaModel
from longfocus.planning.ahead import Ahead
from longfocus.reading.ahead import check_disk, look_ahead
from longfocus.reading.documents import Document
from longfocus.reading.tokens import hash_of, tokenize


@dataclass(frozen=True)
class ReadProgress:
    """How far reading has come.

    Attributes:
        tokens: Tokens read so far, those of an earlier run included.
        total: Tokens to read.
        seconds: Time spent reading, earlier runs included.
        resumed: Tokens that an earlier run had read.
        speed: Tokens per second in this run; 0 before its first window.
        left_out: Characters cut out of the middle of the document, or None.
        ahead: What all of it was expected to take.
    """

    tokens: int
    total: int
    seconds: float
    resumed: int
    speed: float
    left_out: tuple[int, int] | None
    ahead: Ahead

    @property
    def seconds_left(self) -> float | None:
        """Expected; None while unknown."""
        return (self.total - self.tokens) / self.speed if self.speed else None


def read_steps(
    document: Document,
    loaded: LoadedModel,
    folder: str | Path,
    *,
    look_back: int | Literal["usual"] | None = "usual",
    most: int | None = None,
    framed: bool = True,
    packed: bool = False,
) -> Iterator[ReadProgress]:
    """Read a document into a Book, or go on where an earlier run stopped.

    Yields before the first window and after each.

    Args:
        document: What to read.
        loaded: The model that reads; of one with an adapter that does not read, the model without it.
        folder: The Book's folder; made if it is not there.
        look_back: How many of the last entries of memory the memory layers look at while reading; None for all,
            0 for none, "usual" for what suits the model. It bounds the cost of reading, not what can be asked about.
        most: Most tokens of the document to read; the middle of a longer one is left out. None reads all of it.
        framed: Whether the opening of the model's prompt stands before the document, for questions to follow. Without
            it, a text is read as it stands, to be gone on with.
        packed: Whether keys and values are kept in one byte a number (`longfocus.memory.int8`): half the disk.

    Raises:
        BookError: The folder holds something else, is in use, or cannot be written to.
        DocumentError: The document has no text.
        RequestError: `most` is too small, or no Book is kept in the model's `mem_dtype`.
    """
    loaded = loaded.reader
    depth = loaded.habits.look_back if look_back == "usual" else look_back
    tokens = tokenize(document, loaded.tokenizer, most, framed=framed)
    manifest = Manifest(
        title=document.title,
        text_sha256=document.sha256,
        tokens_sha256=hash_of(save(tokens.tensors())),
        tokens=len(tokens.ids),
        opening=tokens.opening,
        spans=tokens.spans,
        sections=document.sections,
        reading=Reading.by(loaded.name, loaded.fingerprint, loaded.model.config, depth, packed),
        versions={name: version(name) for name in ("longfocus", "torch", "transformers")},
    )
    ahead = look_ahead(loaded, manifest.reading, manifest.tokens)
    check_disk(ahead, Path(folder))
    with BookWriter.open(Path(folder), manifest, document.text, tokens.tensors()) as writer:
        start = writer.progress
        total = manifest.tokens
        begun = time.perf_counter()
        yield ReadProgress(start.tokens, total, start.seconds, start.tokens, 0.0, tokens.left_out, ahead)
        for progress in _read_on(tokens.ids, loaded, writer, begun):
            seconds = progress.seconds - start.seconds
            speed = (progress.tokens - start.tokens) / seconds if seconds else 0.0
            yield ReadProgress(progress.tokens, total, progress.seconds, start.tokens, speed, tokens.left_out, ahead)
        writer.finish()


def _read_on(ids: torch.Tensor, loaded: LoadedModel, writer: BookWriter, begun: float) -> Iterator[Progress]:
    model: LongLlamaModel = loaded.model.model
    config, reading = model.config, writer.manifest.reading
    if writer.progress.tokens == len(ids):
        return
    before = writer.progress.seconds
    nothing = torch.empty((1, reading.key_heads, 0, reading.head_dim), dtype=model.dtype)
    state = _state(writer, config, model.dtype)
    while state.tokens < len(ids):
        held = state.lower.memory_length
        # inference mode must not reach over a yield into the caller's code
        with torch.inference_mode():
            piece = ids[None, state.tokens : state.tokens + config.stride].to(model.device)
            state = read_window(model, piece, state)
            entries, centres = {}, []
            for layer in reading.memory_layers:
                memory = state.lower.layers[layer].memory
                assert isinstance(memory, RecentMemory)
                entries[layer] = memory.written_from(held)
                centres.append(memory.centre)
            if state.tokens < len(ids):
                window = pack_state(state, reading.lower, nothing)
                late = {waiting.start: waiting.states for waiting in state.waiting}
            else:
                window, late = pack_whole(whole_state(model, state), nothing), {}
            window.update(pack_centres(centres))
            spent = before + time.perf_counter() - begun
            progress = writer.append(entries, window, late, state.tokens, spent)
            state = replace(state, lower=_forgetting(state.lower))
        yield progress


def _state(writer: BookWriter, config: LongLlamaConfig, dtype: torch.dtype) -> LateState:
    """The state to read on from, with as much memory as reading looks back at."""
    reading, progress = writer.manifest.reading, writer.progress
    centres = load_centres(writer.folder, writer.manifest, progress) if reading.packed else {}
    seen = progress.entries if reading.look_back is None else min(reading.look_back, progress.entries)
    memories: dict[int, Memory] = {}
    first = progress.entries - seen
    for layer in reading.memory_layers:
        paths = [writer.folder / name for name in layer_files(layer)]
        shape = (progress.entries, reading.key_heads, reading.head_dim)
        if reading.packed:
            keys, values = (map_records(path, *shape)[:, first:].clone() for path in paths)
            inner = Int8Memory.of_records(keys, values, reading.key_heads, centres.get(layer))
            memories[layer] = RecentMemory(inner, reading.look_back)
            continue
        keys, values = (map_entries(path, *shape, getattr(torch, reading.dtype)) for path in paths)
        memories[layer] = RecentMemory.of(keys[:, :, first:].clone(), values[:, :, first:].clone(), reading.look_back)
    state = load_state(writer.folder, writer.manifest, progress, memories, dtype)
    if any(waiting.states.shape[-1] != config.hidden_size for waiting in state.waiting):
        raise BookError(f"{writer.folder} does not fit the model; {READ_ANEW}")
    return state


def _forgetting(state: LongLlamaCache) -> LongLlamaCache:
    layers = [
        replace(layer, memory=layer.memory.forgetting()) if isinstance(layer.memory, RecentMemory) else layer
        for layer in state.layers
    ]
    return LongLlamaCache(layers, state.positions, state.keep, state.seen)
