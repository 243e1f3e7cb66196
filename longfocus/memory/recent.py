"""A memory that looks back only so far: what reading uses, so that its cost stays linear in the document's length.

Shapes: B batch, G key heads, N entries, D head_dim.
"""

from __future__ import annotations

from torch import Tensor

from longfocus.memory.around import AroundMemory
from longfocus.memory.held import held_by
from longfocus.memory.int8 import Int8Memory
from longfocus.model.attend import Part
from longfocus.model.memory import DenseMemory, Memory


class RecentMemory(AroundMemory):
    """Attends to its last `look_back` entries (None: all). Older ones may be dropped by `forgetting`."""

    def __init__(self, inner: Memory, look_back: int | None) -> None:
        super().__init__(inner)
        self._look_back = look_back

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, look_back: int | None) -> RecentMemory:
        """Start with these entries, [B, G, N, D] (N may be 0)."""
        return cls(DenseMemory.of(keys, values), look_back)

    def counted(self) -> int | Tensor:
        """See `Memory.counted`; those it looks at."""
        keep = held_by(self.inner).keep
        return len(self) - self._first if keep is None else keep[:, self._first :].sum(dim=1)

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> RecentMemory:
        """See `Memory.append`."""
        return RecentMemory(self.inner.append(keys, values, keep), self._look_back)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`; only the last entries are seen."""
        return held_by(self.inner).attend(query, scale, self._first)

    @property
    def _first(self) -> int:
        """The first entry that is looked at."""
        return 0 if self._look_back is None else max(len(self) - self._look_back, 0)

    def select(self, rows: Tensor) -> RecentMemory:
        """See `Memory.select`."""
        return RecentMemory(self.inner.select(rows), self._look_back)

    def forgetting(self) -> RecentMemory:
        """Without the entries that it does not look at any more."""
        if self._look_back is None or len(self) <= self._look_back:
            return self
        first = len(self) - self._look_back
        if isinstance(self.inner, Int8Memory):
            return RecentMemory(self.inner.from_entry(first), self._look_back)
        keys, values, _ = self.inner.entries()
        return RecentMemory.of(keys[:, :, first:].clone(), values[:, :, first:].clone(), self._look_back)

    @property
    def centre(self) -> Tensor | None:
        """What packed keys miss, [G, D]; None where entries are not packed, or before the first."""
        return self.inner.centre if isinstance(self.inner, Int8Memory) else None

    def written_from(self, first: int) -> tuple[Tensor, Tensor]:
        """What a Book keeps of the entries from `first` on: keys and values [G, N, D], or records [1, N, G * (D + 2)].

        Only of a memory of one row.
        """
        if isinstance(self.inner, Int8Memory):
            return self.inner.records_from(first)
        keys, values, _ = self.inner.entries()
        return keys[0, :, first:], values[0, :, first:]
