"""A memory whose entries lie in files and are mapped, not loaded: larger than RAM, shared by processes, only read.

Shapes: G key heads, N entries, D head_dim.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from longfocus.errors import BookError
from longfocus.memory.held import Held, PartwiseMemory, PlainHeld
from longfocus.memory.int8 import STEP_BYTES, Int8Memory
from longfocus.model.attend import Part
from longfocus.model.memory import ChainedMemory, DenseMemory, Entries


def map_entries(path: Path, entries: int, heads: int, dim: int, dtype: torch.dtype) -> Tensor:
    """The first `entries` entries of a file as [1, G, N, D], mapped.

    Raises:
        BookError: The file is missing or too short.
    """
    return _mapped(path, entries * heads * dim, dtype).view(entries, heads, dim).transpose(0, 1)[None]


def map_records(path: Path, entries: int, heads: int, dim: int) -> Tensor:
    """The first `entries` records of a file of packed entries, [1, N, G * (D + 2)] in int8, mapped.

    Raises:
        BookError: The file is missing or too short.
    """
    size = heads * (dim + STEP_BYTES)
    return _mapped(path, entries * size, torch.int8).view(1, entries, size)


def _mapped(path: Path, count: int, dtype: torch.dtype) -> Tensor:
    if not count:
        return torch.empty((0,), dtype=dtype)
    try:
        # a private map: nothing done to the tensor can reach the file
        return torch.from_file(str(path), shared=False, size=count, dtype=dtype)
    except RuntimeError:
        raise BookError(f"cannot map {path}: it is missing or too short; read the document again") from None


class DiskMemory(PartwiseMemory):
    """One layer's entries in two files; one row, which serves a batch of any size."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = keys
        self.values = values

    def __len__(self) -> int:
        return self.keys.shape[2]

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return 1

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> ChainedMemory:
        """See `Memory.append`; the files stay as they are, what comes goes behind them in RAM."""
        behind = DenseMemory.of(keys.to(self.keys.dtype), values.to(self.values.dtype), keep)
        return ChainedMemory(self, behind, self.keys.dtype)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`."""
        return self.held().attend(query, scale)

    def held(self) -> PlainHeld:
        """See `PartwiseMemory.held`."""
        return PlainHeld(self.entries())

    def entries(self) -> Entries:
        """See `Memory.entries`; mapped, nothing is read yet."""
        return Entries(self.keys, self.values, None)

    def select(self, rows: Tensor) -> DiskMemory:
        """See `Memory.select`; one row serves all."""
        return self


class PackedDiskMemory(PartwiseMemory):
    """One layer's entries in two files of records, a byte a number (`int8`); one row, for a batch of any size."""

    def __init__(self, packed: Int8Memory) -> None:
        self._packed = packed

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, heads: int, centre: Tensor) -> PackedDiskMemory:
        """Mapped records of keys and values, [1, N, G * (D + 2)], and what the keys miss, [G, D]."""
        return cls(Int8Memory.of_records(keys, values, heads, centre))

    def __len__(self) -> int:
        return len(self._packed)

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return 1

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> ChainedMemory:
        """See `Memory.append`; the files stay as they are, what comes goes behind them in RAM, as it is."""
        return ChainedMemory(self, DenseMemory.of(keys, values, keep))

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`; a block is unpacked at a time."""
        return self._packed.attend(query, scale)

    def held(self) -> Held:
        """See `PartwiseMemory.held`."""
        return self._packed.held()

    def entries(self) -> Entries:
        """See `Memory.entries`; all are unpacked, into float32."""
        return self._packed.entries()

    def select(self, rows: Tensor) -> PackedDiskMemory:
        """See `Memory.select`; one row serves all."""
        return self
