"""A memory of which each query sees only its best entries, found exactly.

A model that was not trained to use memory spreads its attention over thousands of entries that all seem equally far
away; the few best ones are what it can use. Keys are read once per call, values only of what was chosen.

Shapes: G key heads, R queries of a key head, N entries, K chosen, D head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longfocus.memory.choosing import ChoosingMemory, Chosen
from longfocus.memory.held import Held
from longfocus.model.memory import Memory

_BLOCK = 64  # entries of which only the best counts at first


class TopKMemory(ChoosingMemory):
    """The `k` best entries for each query and head; see `ChoosingMemory`."""

    def best(self, grouped: Tensor, held: Held) -> Tensor:
        """See `ChoosingMemory.best`; by all scores."""
        return best_entries(grouped, held, self.k)

    def reporting(self, chosen: Chosen) -> TopKMemory:
        """See `ChoosingMemory.reporting`."""
        return TopKMemory(self.inner, self.k, chosen)

    def over(self, inner: Memory) -> TopKMemory:
        """See `ChoosingMemory.over`."""
        return TopKMemory(inner, self.k)


def best_entries(grouped: Tensor, held: Held, k: int) -> Tensor:
    """The `k` best entries [G, R, K], or all where there are fewer, for queries [G, R, D]."""
    groups, rows, _ = grouped.shape
    scores = held.scores(grouped)  # [N, G * R]
    if held.keep is not None:
        scores = scores.masked_fill(~held.keep[0, :, None], float("-inf"))
    count, columns = scores.shape
    k = min(k, count)
    if count < 4 * k * _BLOCK:
        return scores.t().float().topk(k, dim=-1).indices.view(groups, rows, k)
    # the k best entries lie in the k blocks with the best entries
    whole = count // _BLOCK * _BLOCK
    blocks = scores[:whole].view(-1, _BLOCK, columns)
    best = _block_maxima(blocks).t().float().topk(k, dim=-1).indices  # [G * R, K]
    column = torch.arange(columns, device=best.device)[:, None]
    inside = blocks.permute(2, 0, 1)[column, best].flatten(1)
    places = (best[..., None] * _BLOCK + torch.arange(_BLOCK, device=best.device)).flatten(1)
    tail = torch.arange(whole, count, device=best.device).expand(columns, -1)
    candidates = torch.cat((inside, scores[whole:].t()), dim=-1).float().topk(k, dim=-1).indices
    return torch.gather(torch.cat((places, tail), dim=-1), 1, candidates).view(groups, rows, k)


def _block_maxima(blocks: Tensor) -> Tensor:
    """Largest score [blocks, columns] of each block, [blocks, _BLOCK, columns]; halving keeps every step contiguous."""
    while blocks.shape[1] > 1:
        half = blocks.shape[1] // 2
        blocks = torch.maximum(blocks[:, :half], blocks[:, half:])
    return blocks[:, 0]
