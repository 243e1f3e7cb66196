"""What a kind of memory finds of what exact attention finds, on queries that a model really asks.

Recall is how many of the k best entries are chosen. Mass is the share of attention that goes to what is chosen, of all
that exact attention to every entry gives: an index may miss entries that hardly count, or the one that does.

Shapes: H query heads, G key heads, T queries, N entries, K chosen, D head_dim, R = H / G * T.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longfocus.memory.around import AroundMemory
from longfocus.memory.book import StoredBook
from longfocus.memory.choosing import ChoosingMemory
from longfocus.memory.held import Held, held_by
from longfocus.memory.int8 import Int8Memory
from longfocus.memory.top_k import TopKMemory
from longfocus.model.attend import Part
from longfocus.model.cache import LongLlamaCache
from longfocus.model.memory import Memory
from longfocus.model.modeling import LongLlamaModel

_AT_ONCE = 32  # queries of a key head whose scores of all entries are laid out at a time
_BLOCK = 1 << 15  # entries whose keys are laid out at a time


class ListeningMemory(AroundMemory):
    """Another memory, with every query that comes to it kept.

    Attributes:
        heard: Queries, [B, H, T, D] each.
        scale: The last factor on scores.
    """

    def __init__(self, inner: Memory) -> None:
        super().__init__(inner)
        self.heard: list[Tensor] = []
        self.scale = 1.0

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> Memory:
        """See `Memory.append`; what is longer is not listened to."""
        return self.inner.append(keys, values, keep)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`."""
        self.heard.append(query)
        self.scale = scale
        return self.inner.attend(query, scale)

    def select(self, rows: Tensor) -> Memory:
        """See `Memory.select`; it is not listened to."""
        return self.inner.select(rows)


@dataclass(frozen=True)
class Queries:
    """What a model asked its memories.

    Attributes:
        layers: Queries of each memory layer, [1, H, T, D].
        scale: Factor on scores.
    """

    layers: Mapping[int, Tensor]
    scale: float


@torch.inference_mode()
def queries_of(
    model: LongLlamaModel,
    pieces: Sequence[Tensor],
    state: LongLlamaCache,
    memories: Mapping[int, Memory],
    most: int,
) -> Queries:
    """What the tokens of some pieces of text ask.

    Args:
        model: The model.
        pieces: Token ids, [T] each, no more than fit behind `state`.
        state: What stands before each piece.
        memories: The memory of each memory layer; what `state` has in their place is not used.
        most: Most queries of a head and layer to keep; they are taken evenly from all there are.
    """
    listening = {layer: ListeningMemory(memory) for layer, memory in memories.items()}
    layers = [
        type(held)(held.keys, held.rotated, held.values, listening.get(layer))
        for layer, held in enumerate(state.layers)
    ]
    before = LongLlamaCache(layers, state.positions, state.keep)
    for piece in pieces:
        model(piece[None].to(model.device), past_key_values=before, use_cache=True, last_context_length=len(piece))
    kept = {}
    for layer, memory in listening.items():
        every = torch.cat(memory.heard, dim=2)
        step = max(every.shape[2] // most, 1)
        kept[layer] = every[:, :, step - 1 :: step][:, :, :most]
    return Queries(kept, next(iter(listening.values())).scale)


def last_tokens(book: StoredBook, most: int) -> Tensor:
    """The document's last tokens, which are in the window and so not in memory, behind the sinks; [T]."""
    sinks = book.manifest.reading.sinks
    inside = book.progress.tokens - book.progress.entries - sinks
    return torch.cat((book.ids[:sinks], book.ids[len(book.ids) - min(inside, most) :]))


@dataclass(frozen=True)
class Quality:
    """What one kind of memory makes of some queries.

    Attributes:
        kind: The kind's name.
        recall: Of the k best entries, how many are chosen; 1 where all entries count.
        mass: Share of attention to memory that falls on what is chosen, the mean over queries.
        error: How far outputs are from those of an exact memory that sees as many entries, relative to their size.
        ms: Milliseconds for one token in one layer, all heads, the median; longer where the machine is busy.
        more_bytes: What it takes besides the Book's entries: an index, or a packed copy in RAM.
    """

    kind: str
    recall: float
    mass: float
    error: float
    ms: float
    more_bytes: int


@torch.inference_mode()
def quality(
    kind: str, memories: Mapping[int, Memory], exact: Mapping[int, Memory], queries: Queries, index_bytes: int = 0
) -> Quality:
    """Compare a kind of memory with the exact entries.

    Args:
        kind: Its name.
        memories: The memory of each layer.
        exact: The same layers' entries as they are.
        queries: What is asked.
        index_bytes: Of its index, where it has one.
    """
    recalls, masses, errors, times = [], [], [], []
    for layer, query in queries.layers.items():
        memory, truth = memories[layer], exact[layer]
        k = memory.k if isinstance(memory, ChoosingMemory) else None
        like: Memory = truth if k is None else TopKMemory(truth, k)
        wanted = like.attend(query, queries.scale)[0].float()
        found = memory.attend(query, queries.scale)[0].float()
        errors.append(float((found - wanted).norm() / wanted.norm().clamp_min(1e-12)))
        recall, mass = 1.0, 1.0
        if isinstance(memory, ChoosingMemory):
            recall, mass = _recall_and_mass(memory, held_by(truth), query, queries.scale)
        recalls.append(recall)
        masses.append(mass)
        for token in range(min(query.shape[2], 16)):
            begun = time.perf_counter()
            memory.attend(query[:, :, token : token + 1], queries.scale)
            times.append(1e3 * (time.perf_counter() - begun))
    times.sort()
    more = index_bytes + sum(_copied(memory) for memory in memories.values())
    means = [sum(found) / len(found) for found in (recalls, masses, errors)]
    return Quality(kind, means[0], means[1], means[2], times[len(times) // 2], more)


def _recall_and_mass(memory: ChoosingMemory, truth: Held, query: Tensor, scale: float) -> tuple[float, float]:
    groups, dim = truth.heads, query.shape[-1]
    every = query[0].reshape(groups, -1, dim)
    hit = kept = 0.0
    for start in range(0, every.shape[1], _AT_ONCE):
        grouped = every[:, start : start + _AT_ONCE]
        chosen = memory.best(grouped, memory.held())
        shares = _scores(grouped, truth).mul_(scale).softmax(dim=-1)
        best = shares.topk(chosen.shape[-1], dim=-1).indices
        hit += float((chosen[..., None] == best[..., None, :]).any(-1).float().mean(-1).sum())
        kept += float(torch.gather(shares, 2, chosen).sum())
    count = groups * every.shape[1]
    return hit / count, kept / count


def _scores(grouped: Tensor, truth: Held) -> Tensor:
    """Scores [G, R, N] in float32, whatever the entries' dtype."""
    starts = range(0, len(truth), _BLOCK)
    blocks = (truth.keys(start, min(start + _BLOCK, len(truth)))[0].float() for start in starts)
    return torch.cat([grouped.float() @ keys.mT for keys in blocks], dim=-1)


def _copied(memory: Memory) -> int:
    inner = memory.inner if isinstance(memory, ChoosingMemory) else memory
    if isinstance(inner, Int8Memory):
        return sum(records.numel() for records in inner.records_from(0))
    return 0
