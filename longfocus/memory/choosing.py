"""A memory of which each query sees only some entries, those that are chosen for it.

How they are chosen is what the kinds differ in: by all scores (`top_k`), or by an index (`approximate`). The softmax is
over the true scores of what was chosen.

Shapes: B batch, H query heads, G key heads, T queries, N entries, K chosen, D head_dim, R = B * H / G * T.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from longfocus.memory.around import AroundMemory
from longfocus.memory.held import Held, PartwiseMemory, held_by
from longfocus.model.attend import Part
from longfocus.model.memory import ChainedMemory, DenseMemory, Memory

Chosen = Callable[[Tensor, Tensor], None]
"""Told which entries [G, B * H / G, T, K] the queries chose and their shares of attention, likewise."""

_SCORES = 1 << 26  # most scores held at a time


class ChoosingMemory(AroundMemory, PartwiseMemory):
    """The `k` entries that are chosen for each query and head, of a memory of one row.

    Args:
        inner: The memory.
        k: How many entries a query sees.
        chosen: Told what was chosen, after window and memory were joined.
    """

    def __init__(self, inner: Memory, k: int, chosen: Chosen | None = None) -> None:
        super().__init__(inner)
        self.k = k
        self._chosen = chosen
        self._last: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def best(self, grouped: Tensor, held: Held) -> Tensor:
        """Choose min(k, N) entries [G, R, K] for queries [G, R, D]."""

    @abstractmethod
    def reporting(self, chosen: Chosen) -> ChoosingMemory:
        """The same memory, telling `chosen` what was chosen."""

    @abstractmethod
    def over(self, inner: Memory) -> ChoosingMemory:
        """As many entries of another memory, such as this one's with some hidden."""

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> ChainedMemory:
        """See `Memory.append`; what comes behind is seen whole."""
        dtype = self.held().keys(0, 0).dtype
        return ChainedMemory(self, DenseMemory.of(keys.to(dtype), values.to(dtype), keep), dtype)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`; only what is chosen counts."""
        held = self.held()
        batch, heads, queries, dim = query.shape
        groups, count = held.heads, len(held)
        if not count or not queries:
            self._last = None
            return torch.zeros_like(query), query.new_full(query.shape[:3], float("-inf"), dtype=torch.float32)
        grouped = query.reshape(batch, groups, -1, dim).transpose(0, 1).reshape(groups, -1, dim)
        step = max(_SCORES // (groups * count), 1)
        found = [self.best(grouped[:, start : start + step], held) for start in range(0, grouped.shape[1], step)]
        chosen = torch.cat(found, dim=1)  # [G, R, K]
        # the scores of what was chosen are worked out anew, in full precision
        scores = torch.einsum("grd,grkd->grk", grouped.float(), held.picked_keys(chosen).to(query.device)) * scale
        if held.keep is not None:
            scores = scores.masked_fill(~held.keep[0][chosen].to(scores.device), float("-inf"))
        lse = scores.logsumexp(dim=-1)
        weights = torch.exp(scores - lse.clamp_min(torch.finfo(torch.float32).min)[..., None])
        output = torch.einsum("grk,grkd->grd", weights, held.picked_values(chosen).to(query.device))
        self._last = (chosen, scores) if self._chosen is not None else None
        shape = (groups, batch, heads // groups, queries)
        output = output.view(*shape, dim).transpose(0, 1).reshape(query.shape).to(query.dtype)
        return output, lse.view(shape).transpose(0, 1).reshape(batch, heads, queries)

    def attended(self, query: Tensor, scale: float, lse: Tensor) -> None:
        """See `Memory.attended`."""
        if self._chosen is None or self._last is None:
            return
        chosen, scores = self._last
        groups = chosen.shape[0]
        batch, heads, queries = lse.shape
        grouped = lse.view(batch, groups, heads // groups, queries).transpose(0, 1).reshape(groups, -1, 1)
        shape = (groups, -1, queries, chosen.shape[-1])
        self._chosen(chosen.view(shape), torch.exp(scores - grouped).view(shape))

    def held(self) -> Held:
        """See `PartwiseMemory.held`; all of them."""
        return held_by(self.inner)

    def select(self, rows: Tensor) -> Memory:
        """See `Memory.select`; one row serves all."""
        return self
