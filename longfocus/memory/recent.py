"""A memory that looks back only so far: what reading uses, so that its cost stays linear in the document's length.

Shapes: B batch, G key heads, N entries, D head_dim.
"""

from __future__ import annotations

from torch import Tensor

from longfocus.model.attend import Part
from longfocus.model.memory import DenseMemory, Entries, Memory, attend_in_blocks


class RecentMemory(Memory):
    """Attends to its last `look_back` entries (None: all). Older ones may be dropped by `forgetting`."""

    def __init__(self, inner: Memory, look_back: int | None) -> None:
        self._inner = inner
        self._look_back = look_back

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, look_back: int | None) -> RecentMemory:
        """Start with these entries, [B, G, N, D] (N may be 0)."""
        return cls(DenseMemory.of(keys, values), look_back)

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return self._inner.rows

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> RecentMemory:
        """See `Memory.append`."""
        return RecentMemory(self._inner.append(keys, values, keep), self._look_back)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`; only the last entries are seen."""
        keys, values, keep = self._inner.entries()
        seen = len(self) if self._look_back is None else min(self._look_back, len(self))
        first = len(self) - seen
        last = Entries(keys[:, :, first:], values[:, :, first:], None if keep is None else keep[:, first:])
        return attend_in_blocks(query, last, scale)

    def entries(self) -> Entries:
        """See `Memory.entries`; all that are held."""
        return self._inner.entries()

    def select(self, rows: Tensor) -> RecentMemory:
        """See `Memory.select`."""
        return RecentMemory(self._inner.select(rows), self._look_back)

    def forgetting(self) -> RecentMemory:
        """Without the entries that it does not look at any more."""
        if self._look_back is None or len(self) <= self._look_back:
            return self
        keys, values, _ = self._inner.entries()
        first = len(self) - self._look_back
        return RecentMemory.of(keys[:, :, first:].clone(), values[:, :, first:].clone(), self._look_back)
