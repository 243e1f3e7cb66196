"""A memory whose entries lie in files and are mapped, not loaded: larger than RAM, shared by processes, only read.

Shapes: G key heads, N entries, D head_dim.
"""

from __future__ import annotations

import errno
import os
import warnings
from mmap import ACCESS_READ, mmap
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from longfocus.errors import READ_ANEW, BookError
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
        contents = _contents(path)
    except (OSError, ValueError) as error:  # ValueError for an empty file
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise BookError(
                f"cannot map {path}: this process may have no more address space; raise ulimit -v"
            ) from None
        raise BookError(f"cannot map {path}: it is missing or too short; {READ_ANEW}") from None
    if len(contents) < count * dtype.itemsize:
        raise BookError(f"cannot map {path}: it is missing or too short; {READ_ANEW}")
    with warnings.catch_warnings():
        # what torch warns of is wanted: nothing done to the tensor can reach the file, it ends the process instead
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(contents, dtype=dtype, count=count)


_MAPS: WeakValueDictionary[tuple[int, ...], mmap] = WeakValueDictionary()
"""What is mapped by this process, by the file and its state: once, however many sessions ask a Book."""


def _contents(path: Path) -> mmap:
    """A file, mapped to be read only: a private map would count as memory of the process, which may be limited."""
    with open(path, "rb") as file:
        facts = os.fstat(file.fileno())
        state = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        found = _MAPS.get(state)
        if found is None:
            _MAPS[state] = found = mmap(file.fileno(), 0, access=ACCESS_READ)
        return found


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
