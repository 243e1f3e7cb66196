"""A Book: a document that one model has read, opened from its folder without reading it again.

Knows the text, which characters each entry of memory stands for, and the state from which any number of questions can
start. How it is written is in `writer`, how questions are asked is elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from longfocus.errors import READ_ANEW, BookError
from longfocus.memory.disk import DiskMemory, PackedDiskMemory, map_entries, map_records
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
)
from longfocus.memory.sections import section_at
from longfocus.memory.verify import check_files
from longfocus.memory.window import load_centres, load_whole
from longfocus.memory.writer import reading_difference
from longfocus.model.cache import LongLlamaCache
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
            raise BookError(f"{folder / TOKENS} or {TEXT} is damaged; {READ_ANEW}") from None
        if not ids.shape == starts.shape == ends.shape == (manifest.tokens,):
            raise BookError(f"{folder / TOKENS} does not fit the manifest; {READ_ANEW}")
        if not (int(starts.min()) >= -1 and bool((starts <= ends).all()) and int(ends.max()) <= len(text)):
            raise BookError(f"{folder / TOKENS} does not fit the manifest; {READ_ANEW}")
        if manifest.spans[-1][1] > len(text):
            raise BookError(f"{folder / TEXT} does not fit the manifest; {READ_ANEW}")
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
        if reading.packed:
            return self._packed_memories()
        dtype = getattr(torch, reading.dtype)
        memories: dict[int, Memory] = {}
        for layer in reading.memory_layers:
            keys, values = (
                map_entries(self.folder / name, self.progress.entries, reading.key_heads, reading.head_dim, dtype)
                for name in layer_files(layer)
            )
            memories[layer] = DiskMemory(keys, values)
        return memories

    def _packed_memories(self) -> dict[int, Memory]:
        reading, count = self.manifest.reading, self.progress.entries
        centres = load_centres(self.folder, self.manifest, self.progress)
        nothing = torch.zeros((reading.key_heads, reading.head_dim))
        memories: dict[int, Memory] = {}
        for layer in reading.memory_layers:
            keys, values = (
                map_records(self.folder / name, count, reading.key_heads, reading.head_dim)
                for name in layer_files(layer)
            )
            memories[layer] = PackedDiskMemory.of(keys, values, reading.key_heads, centres.get(layer, nothing))
        return memories

    def state(self, memories: dict[int, Memory], dtype: torch.dtype) -> LongLlamaCache:
        """The model's state after reading, with these memories; `dtype` is the model's."""
        return load_whole(self.folder, self.manifest, self.progress, memories, dtype)

    def place(self, position: int) -> dict[str, str]:
        """Chapter and page of a character of the text, those that are known."""
        found = {kind: section_at(self.manifest.sections, kind, position) for kind in ("chapter", "page")}
        return {kind: label for kind, label in found.items() if label is not None}
