"""A memory whose entries lie in files and are mapped, not loaded: larger than RAM, shared by processes, only read.

Shapes: G key heads, N entries, D head_dim.
"""

from pathlib import Path

import torch
from torch import Tensor

from longfocus.errors import BookError
from longfocus.model.attend import Part
from longfocus.model.memory import ChainedMemory, DenseMemory, Entries, Memory, attend_in_blocks


def map_entries(path: Path, entries: int, heads: int, dim: int, dtype: torch.dtype) -> Tensor:
    """The first `entries` entries of a file as [1, G, N, D], mapped.

    Raises:
        BookError: The file is missing or too short.
    """
    if not entries:
        return torch.empty((1, heads, 0, dim), dtype=dtype)
    try:
        # a private map: nothing done to the tensor can reach the file
        flat = torch.from_file(str(path), shared=False, size=entries * heads * dim, dtype=dtype)
    except RuntimeError:
        raise BookError(f"cannot map {path}: it is missing or too short; read the document again") from None
    return flat.view(entries, heads, dim).transpose(0, 1)[None]


class DiskMemory(Memory):
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
        return attend_in_blocks(query, self.entries(), scale)

    def entries(self) -> Entries:
        """See `Memory.entries`; mapped, nothing is read yet."""
        return Entries(self.keys, self.values, None)

    def select(self, rows: Tensor) -> "DiskMemory":
        """See `Memory.select`; one row serves all."""
        return self
