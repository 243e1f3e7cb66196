"""A memory of which each query sees only its best entries, found exactly.

A model that was not trained to use memory spreads its attention over thousands of entries that all seem equally far
away; the few best ones are what it can use. Keys are read once per call, values only of what was chosen.

Shapes: B batch, H query heads, G key heads, T queries, N entries, K chosen, D head_dim, R = B * H / G * T.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from longfocus.model.attend import Part
from longfocus.model.memory import ChainedMemory, DenseMemory, Entries, Memory

Chosen = Callable[[Tensor, Tensor], None]
"""Told which entries [G, B * H / G, T, K] the queries chose and their shares of attention, likewise."""

_SCORES = 1 << 26  # most scores held at a time
_BLOCK = 64  # entries of which only the best counts at first
_FEW_HEADS = 8  # up to so many key heads one product for all of them is quicker than one for each


class TopKMemory(Memory):
    """The `k` best entries for each query and head, of a memory of one row.

    Args:
        inner: The memory.
        k: How many entries a query sees.
        chosen: Told what was chosen, after window and memory were joined.
    """

    def __init__(self, inner: Memory, k: int, chosen: Chosen | None = None) -> None:
        self.inner = inner
        self.k = k
        self._chosen = chosen
        self._last: tuple[Tensor, Tensor] | None = None

    def reporting(self, chosen: Chosen) -> TopKMemory:
        """The same memory, telling `chosen` what was chosen."""
        return TopKMemory(self.inner, self.k, chosen)

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return self.inner.rows

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> ChainedMemory:
        """See `Memory.append`; what comes behind is seen whole."""
        dtype = self.entries().keys.dtype
        return ChainedMemory(self, DenseMemory.of(keys.to(dtype), values.to(dtype), keep), dtype)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`; only the best entries count."""
        keys, values, keep = self.entries()
        batch, heads, queries, dim = query.shape
        groups, held = keys.shape[1], keys.shape[2]
        if not held or not queries:
            self._last = None
            return torch.zeros_like(query), query.new_full(query.shape[:3], float("-inf"), dtype=torch.float32)
        grouped = query.reshape(batch, groups, -1, dim).transpose(0, 1).reshape(groups, -1, dim)
        step = max(_SCORES // (groups * held), 1)
        found = [self._best(grouped[:, start : start + step], keys, keep) for start in range(0, grouped.shape[1], step)]
        chosen = torch.cat(found, dim=1)  # [G, R, K]
        head = torch.arange(groups, device=chosen.device)[:, None, None]
        # the scores of what was chosen are worked out anew, in full precision
        picked = keys[0][head, chosen].to(query.device).float()
        scores = torch.einsum("grd,grkd->grk", grouped.float(), picked) * scale
        if keep is not None:
            scores = scores.masked_fill(~keep[0][chosen].to(scores.device), float("-inf"))
        lse = scores.logsumexp(dim=-1)
        weights = torch.exp(scores - lse.clamp_min(torch.finfo(torch.float32).min)[..., None])
        output = torch.einsum("grk,grkd->grd", weights, values[0][head, chosen].to(query.device).float())
        self._last = (chosen, scores) if self._chosen is not None else None
        shape = (groups, batch, heads // groups, queries)
        output = output.view(*shape, dim).transpose(0, 1).reshape(query.shape).to(query.dtype)
        return output, lse.view(shape).transpose(0, 1).reshape(batch, heads, queries)

    def _best(self, grouped: Tensor, keys: Tensor, keep: Tensor | None) -> Tensor:
        """The best entries [G, R, K] for queries [G, R, D]."""
        groups, rows, _ = grouped.shape
        scores = _scores(grouped.to(keys), keys[0])  # [N, G * R]
        if keep is not None:
            scores = scores.masked_fill(~keep[0, :, None], float("-inf"))
        held, columns = scores.shape
        k = min(self.k, held)
        if held < 4 * k * _BLOCK:
            return scores.t().float().topk(k, dim=-1).indices.view(groups, rows, k)
        # the k best entries lie in the k blocks with the best entries
        whole = held // _BLOCK * _BLOCK
        blocks = scores[:whole].view(-1, _BLOCK, columns)
        best = _block_maxima(blocks).t().float().topk(k, dim=-1).indices  # [G * R, K]
        column = torch.arange(columns, device=best.device)[:, None]
        inside = blocks.permute(2, 0, 1)[column, best].flatten(1)
        places = (best[..., None] * _BLOCK + torch.arange(_BLOCK, device=best.device)).flatten(1)
        tail = torch.arange(whole, held, device=best.device).expand(columns, -1)
        candidates = torch.cat((inside, scores[whole:].t()), dim=-1).float().topk(k, dim=-1).indices
        return torch.gather(torch.cat((places, tail), dim=-1), 1, candidates).view(groups, rows, k)

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

    def entries(self) -> Entries:
        """See `Memory.entries`; all of them."""
        return self.inner.entries()

    def select(self, rows: Tensor) -> Memory:
        """See `Memory.select`; one row serves all."""
        return self


def _scores(grouped: Tensor, keys: Tensor) -> Tensor:
    """Products [N, G * R] of queries [G, R, D] with keys [G, N, D], in the keys' dtype."""
    groups, rows, dim = grouped.shape
    if groups == 1 or groups > _FEW_HEADS or not keys.transpose(0, 1).is_contiguous():
        return torch.matmul(keys, grouped.transpose(1, 2)).transpose(0, 1).reshape(-1, groups * rows)
    # on disk the heads of an entry lie together: as one product, with queries that are zero at other heads' places,
    # the keys are read in order and only once
    spread = torch.block_diag(*grouped.transpose(1, 2))  # [G * D, G * R]
    return torch.matmul(keys.transpose(0, 1).reshape(-1, groups * dim), spread)


def _block_maxima(blocks: Tensor) -> Tensor:
    """Largest score [blocks, columns] of each block, [blocks, _BLOCK, columns]; halving keeps every step contiguous."""
    while blocks.shape[1] > 1:
        half = blocks.shape[1] // 2
        blocks = torch.maximum(blocks[:, :half], blocks[:, half:])
    return blocks[:, 0]
