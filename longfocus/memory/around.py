"""A memory around another one, of which one thing is different."""

from __future__ import annotations

from torch import Tensor

from longfocus.model.memory import Entries, Memory


class AroundMemory(Memory):
    """Holds what another memory holds; subclasses say what they do differently.

    Attributes:
        inner: The other memory.
    """

    def __init__(self, inner: Memory) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return self.inner.rows

    def counted(self) -> int | Tensor:
        """See `Memory.counted`; all, also where some are seen: the best of many are better than those of few."""
        return self.inner.counted()

    def entries(self) -> Entries:
        """See `Memory.entries`; all of them."""
        return self.inner.entries()
