"""What a memory layer may attend to besides its window.

A memory takes what left the window (`append`) and lets queries attend to it (`attend`); the layer then joins that with
its window as one softmax. Keys are kept un-rotated, which is rotation to position 0: a memory is free of positions.
Memories are values: appending returns a grown memory and leaves the old one as it was.

Shapes: B batch, H query heads, G key heads, T queries, N entries, D head_dim.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from .attend import Part, attend, merge
from .growing import GrowingTensor

BLOCK = 2048
"""Entries converted at a time where the memory's dtype or device is not the query's; small enough for a CPU's cache."""
AT_ONCE = 16
"""Blocks whose outputs are held before they are joined."""


class Entries(NamedTuple):
    """Entries of a memory laid out as tensors; `keep` is None where all may be seen."""

    keys: Tensor  # [B or 1, G, N, D], un-rotated
    values: Tensor  # [B or 1, G, N, D]
    keep: Tensor | None  # [B or 1, N], bool


class Memory(ABC):
    """What one layer may attend to besides its window."""

    @abstractmethod
    def __len__(self) -> int:
        """Entries per row, padding included."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """Rows held; one row serves a batch of any size."""

    def counted(self) -> int | Tensor:
        """Entries per row without padding: one number for all rows, or one for each, [B]."""
        return len(self)

    @abstractmethod
    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> Memory:
        """This memory with entries behind it: keys and values [B, G, N, D], keep [B, N] or None for all."""

    @abstractmethod
    def attend(self, query: Tensor, scale: float) -> Part:
        """Attend to every entry: `query` [B, H, T, D] to an output [B, H, T, D] and log-sum-exp [B, H, T]."""

    @abstractmethod
    def entries(self) -> Entries:
        """All entries as tensors, for training and for looking at attention."""

    @abstractmethod
    def select(self, rows: Tensor) -> Memory:
        """The memory of a batch made of these rows (indices [B'], repeats allowed)."""

    def beside(self, keys: Tensor, values: Tensor) -> Memory:
        """The memory beside a window whose new tokens have these keys (un-rotated) and values, [B, G, T, D].

        Only a memory that is made of the batch itself, as in cross-batch training, cares.
        """
        return self

    def attended(self, query: Tensor, scale: float, lse: Tensor) -> None:
        """Told after window and memory were joined, with the log-sum-exp [B, H, T] over both.

        The share of an entry with score s is then exp(s - lse). Only a memory that keeps account of attention cares.
        """


class DenseMemory(Memory):
    """Every entry, in the main memory of the model's device."""

    def __init__(self, keys: GrowingTensor, values: GrowingTensor, keep: GrowingTensor | None) -> None:
        self._keys = keys
        self._values = values
        self._keep = keep

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, keep: Tensor | None = None) -> DenseMemory:
        """A memory of these entries: keys and values [B, G, N, D], keep [B, N] bool or None for all."""
        kept = None if keep is None else GrowingTensor.of(keep, 1)
        return cls(GrowingTensor.of(keys, 2), GrowingTensor.of(values, 2), kept)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return self._keys.tensor.shape[0]

    def counted(self) -> int | Tensor:
        """See `Memory.counted`."""
        return len(self) if self._keep is None else self._keep.tensor.sum(dim=1)

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> Memory:
        """See `Memory.append`; what comes is cast to the dtype of what is there. One row goes on to serve many."""
        old = self._keys.tensor
        if old.shape[0] != keys.shape[0]:
            if old.shape[0] != 1:
                raise ValueError(f"the memory has {old.shape[0]} rows, but {keys.shape[0]} rows are to be appended")
            return ChainedMemory(self, dtype=old.dtype).append(keys, values, keep)
        kept = self._keep
        if kept is not None or keep is not None:
            if kept is None:
                kept = GrowingTensor.of(old.new_ones((old.shape[0], len(self)), dtype=torch.bool), 1)
            kept = kept.extended(keep if keep is not None else keys.new_ones(keys.shape[::2][:2], dtype=torch.bool))
        return DenseMemory(self._keys.extended(keys.to(old.dtype)), self._values.extended(values.to(old.dtype)), kept)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`."""
        return attend_in_blocks(query, self.entries(), scale)

    def entries(self) -> Entries:
        """See `Memory.entries`; views, nothing is copied."""
        return Entries(self._keys.tensor, self._values.tensor, None if self._keep is None else self._keep.tensor)

    def select(self, rows: Tensor) -> RowsMemory:
        """See `Memory.select`; nothing is copied."""
        return RowsMemory(self, rows)


class RowsMemory(Memory):
    """Rows of a memory in another order, some of them several times: what beam search makes of one at each step.

    Args:
        inner: The memory; it is not copied.
        owners: Which of its rows each row here is, [B].
    """

    def __init__(self, inner: DenseMemory, owners: Tensor) -> None:
        self.inner = inner
        self.owners = owners.cpu()

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return len(self.owners)

    def counted(self) -> int | Tensor:
        """See `Memory.counted`."""
        counts = self.inner.counted()
        return counts if isinstance(counts, int) else counts[self.owners.to(counts.device)]

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> ChainedMemory:
        """See `Memory.append`; the rows part from each other behind what they share."""
        return ChainedMemory(self, dtype=self.inner.entries().keys.dtype).append(keys, values, keep)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`; the queries of all rows that are one row of the memory read it together."""
        keys, values, keep = self.inner.entries()
        output = torch.empty_like(query)
        lse = query.new_empty(query.shape[:3], dtype=torch.float32)
        owners = self.owners.expand(query.shape[0])  # one row serves a batch of any size
        for owner in owners.unique().tolist():
            here = (owners == owner).nonzero()[:, 0].to(query.device)
            row = slice(owner, owner + 1)
            part = Entries(keys[row], values[row], None if keep is None else keep[row])
            output[here], lse[here] = attend_in_blocks(query[here], part, scale)
        return output, lse

    def entries(self) -> Entries:
        """See `Memory.entries`; copied into the order of the rows."""
        keys, values, keep = self.inner.entries()
        rows = self.owners.to(keys.device)
        return Entries(keys[rows], values[rows], None if keep is None else keep[rows])

    def select(self, rows: Tensor) -> RowsMemory:
        """See `Memory.select`; nothing is copied."""
        return RowsMemory(self.inner, self.owners[rows.cpu()])


class ChainedMemory(Memory):
    """A memory that is only read, shared by many, with one of its own behind it that grows.

    A read book is the first; what a conversation adds is the second. The first may have one row for a batch of many.
    """

    def __init__(self, first: Memory, second: Memory | None = None, dtype: torch.dtype | None = None) -> None:
        self.first = first
        self.second = second
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.first) + (len(self.second) if self.second is not None else 0)

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return max(self.first.rows, self.second.rows if self.second is not None else 1)

    def counted(self) -> int | Tensor:
        """See `Memory.counted`."""
        return self.first.counted() + (self.second.counted() if self.second is not None else 0)

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> ChainedMemory:
        """See `Memory.append`; the first memory is left alone."""
        if self.second is not None:
            return ChainedMemory(self.first, self.second.append(keys, values, keep), self.dtype)
        if self.first.rows not in (1, keys.shape[0]):
            raise ValueError(f"the memory has {self.first.rows} rows, but {keys.shape[0]} rows are to be appended")
        dtype = self.dtype or keys.dtype
        return ChainedMemory(self.first, DenseMemory.of(keys.to(dtype), values.to(dtype), keep), self.dtype)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`."""
        parts = [self.first.attend(query, scale)]
        if self.second is not None and len(self.second):
            parts.append(self.second.attend(query, scale))
        return merge(parts)

    def attended(self, query: Tensor, scale: float, lse: Tensor) -> None:
        """See `Memory.attended`; both parts are told."""
        self.first.attended(query, scale, lse)
        if self.second is not None:
            self.second.attended(query, scale, lse)

    def entries(self) -> Entries:
        """See `Memory.entries`; both parts are copied into one."""
        first = self.first.entries()
        if self.second is None:
            return first
        second = self.second.entries()
        rows = self.rows
        keep = None
        if first.keep is not None or second.keep is not None:
            keep = torch.cat([_keep_of(part).expand(rows, -1) for part in (first, second)], dim=1)
        keys = [part.keys.to(second.keys).expand(rows, -1, -1, -1) for part in (first, second)]
        values = [part.values.to(second.values).expand(rows, -1, -1, -1) for part in (first, second)]
        return Entries(torch.cat(keys, dim=2), torch.cat(values, dim=2), keep)

    def select(self, rows: Tensor) -> ChainedMemory:
        """See `Memory.select`; a first memory of one row serves every row as it is."""
        first = self.first if self.first.rows == 1 else self.first.select(rows)
        second = self.second
        if second is not None and second.rows > 1:
            second = second.select(rows)
        return ChainedMemory(first, second, self.dtype)


def _keep_of(entries: Entries) -> Tensor:
    if entries.keep is not None:
        return entries.keep
    return torch.ones(entries.keys.shape[::2][:2], dtype=torch.bool, device=entries.keys.device)


def attend_in_blocks(query: Tensor, entries: Entries, scale: float, block: int = BLOCK) -> Part:
    """Attend to entries that may be of another dtype or on another device than `query`, a block at a time."""
    keys, values, keep = entries
    mask = None if keep is None else keep[:, None, None, :]
    if not keys.shape[2]:
        return torch.zeros_like(query), query.new_full(query.shape[:3], float("-inf"), dtype=torch.float32)
    if keys.dtype == query.dtype and keys.device == query.device:
        return attend(query, keys, values, scale=scale, keep=mask)
    parts = []
    for start in range(0, keys.shape[2], block):
        here = slice(start, start + block)
        parts.append(
            attend(
                query,
                keys[:, :, here].to(query),
                values[:, :, here].to(query),
                scale=scale,
                keep=None if mask is None else mask[..., here],
            )
        )
        if len(parts) == AT_ONCE:
            parts = [merge(parts)]
    return merge(parts)
