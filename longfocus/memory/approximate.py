"""A memory of which each query sees its best entries as an approximate index finds them.

Exact search reads every key for every token; an index reads a small part of them. It finds most of the best entries,
and what it misses is mostly of small weight (docs/memories.md has figures).

Shapes: G key heads, R queries of a key head, N entries, K chosen, D head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from longfocus.memory.choosing import ChoosingMemory, Chosen
from longfocus.memory.faiss_kinds import build_head, faiss_library
from longfocus.memory.held import Held, held_by
from longfocus.memory.top_k import TopKMemory, best_entries
from longfocus.model.memory import Memory

_CANDIDATES = 2  # candidates an index is asked for, for each that is wanted; true scores choose among them


@dataclass(frozen=True)
class LayerIndex:
    """An approximate index over one layer's keys.

    Attributes:
        heads: Faiss's index of each key head.
        entries: How many entries they are of.
    """

    heads: tuple[Any, ...]
    entries: int

    @classmethod
    def of(cls, kind: str, memory: Memory) -> LayerIndex:
        """Build one over a memory of one row."""
        held = held_by(memory)
        return cls(tuple(build_head(kind, held, head) for head in range(held.heads)), len(held))

    @property
    def bytes(self) -> int:
        """As it lies on disk, and in RAM where it was built and not mapped."""
        return sum(len(faiss_library().serialize_index(index)) for index in self.heads)

    def search(self, grouped: Tensor, count: int) -> Tensor:
        """Entries [G, R, count] that it finds best for queries [G, R, D]; -1 where it finds no more."""
        faiss_library()  # for its number of threads, which may have changed
        queries = grouped.float().cpu().contiguous().numpy()
        found = [index.search(queries[head], count)[1] for head, index in enumerate(self.heads)]
        return torch.stack([torch.from_numpy(places) for places in found]).to(grouped.device)


class ApproximateMemory(ChoosingMemory):
    """The `k` best entries for each query and head as far as an index finds them; see `ChoosingMemory`.

    A query sees no fewer than `k`: where the index finds less, all scores are worked out for that query. So they are
    where the candidates would be all there is, and with `k` of at least N this is a dense memory.

    Args:
        inner: The memory, of one row; entries behind those of the index are none of its.
        k: How many entries a query sees.
        index: Over the entries of `inner`.
        chosen: Told what was chosen.

    Raises:
        ValueError: The index is of another number of entries.
    """

    def __init__(self, inner: Memory, k: int, index: LayerIndex, chosen: Chosen | None = None) -> None:
        super().__init__(inner, k, chosen)
        if index.entries != len(inner):
            raise ValueError(f"the index is of {index.entries} entries, the memory has {len(inner)}")
        self.index = index

    def best(self, grouped: Tensor, held: Held) -> Tensor:
        """See `ChoosingMemory.best`."""
        candidates = self.k * _CANDIDATES
        if candidates >= len(held) or held.keep is not None:
            return best_entries(grouped, held, self.k)
        found = self.index.search(grouped, candidates)
        keys = held.picked_keys(found.clamp_min(0)).to(grouped.device)
        scores = torch.einsum("grd,grkd->grk", grouped.float(), keys).masked_fill_(found < 0, float("-inf"))
        best = torch.gather(found, 2, scores.topk(self.k, dim=-1).indices)
        few = (best < 0).any(dim=-1)  # [G, R]
        if bool(few.any()):
            rows = few.any(dim=0)
            exact = best_entries(grouped[:, rows], held, self.k)
            best[:, rows] = torch.where(few[:, rows, None], exact, best[:, rows])
        return best

    def reporting(self, chosen: Chosen) -> ApproximateMemory:
        """See `ChoosingMemory.reporting`."""
        return ApproximateMemory(self.inner, self.k, self.index, chosen)

    def over(self, inner: Memory) -> TopKMemory:
        """See `ChoosingMemory.over`; found exactly, since an index does not know what is hidden."""
        return TopKMemory(inner, self.k)
