"""Keeping account of which entries of a Book get attention, while the model works as usual.

A watched memory attends exactly as the memory in it does. After each joint softmax it adds up the share of attention
that every entry got; that reads the keys once more but needs no extra pass of the model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longfocus.memory.top_k import Chosen, TopKMemory
from longfocus.model.attend import Part, weigh
from longfocus.model.memory import ChainedMemory, Entries, Memory

_BLOCK = 1 << 22  # most shares of attention worked out at a time


class AttentionAccount:
    """Attention that the tokens of a document got, summed over layers, heads and queries.

    Attributes:
        question: By the question's tokens, [tokens] in float32.
        answer: By what chose the answer's tokens, [tokens]. The first one is chosen at the question's end.
        window_counts: Whether tokens at the document's end that are in the window are counted too; true for as long
            as they stand where they stood.
    """

    def __init__(self, tokens: int) -> None:
        self.question = torch.zeros(tokens)
        self.answer = torch.zeros(tokens)
        self.window_counts = True

    def place(self, first: int) -> Chosen:
        """What adds the shares of chosen entries, both [G, heads, T, K], of which entry 0 is token `first`."""

        def add(entries: Tensor, shares: Tensor) -> None:
            places = entries + first
            if entries.shape[2] > 1:
                self.question.index_add_(0, places.flatten(), shares.flatten())
            self.answer.index_add_(0, places[:, :, -1].flatten(), shares[:, :, -1].flatten())

        return add

    def add(self, shares: Tensor, first: int) -> None:
        """Add shares of attention [T, entries] for the entries from `first` on; only the last of several queries answers."""
        if shares.shape[0] > 1:
            self.question[first : first + shares.shape[1]] += shares.sum(dim=0)
        self.answer[first : first + shares.shape[1]] += shares[-1]


class WatchedMemory(Memory):
    """A memory of one row whose attention is kept account of.

    Args:
        inner: The memory; one that chooses its entries is told to report them itself.
        account: Where shares are added.
        first: The token that the first entry stands for.
        entries: How many entries are the document's; others came later.
        window: Un-rotated keys of the document's tokens behind those, which are in the window, [1, G, S, D]. They are
            counted as if they were in memory, since near tokens get attention for being near.
    """

    def __init__(
        self,
        inner: Memory,
        account: AttentionAccount,
        first: int,
        entries: int,
        window: Tensor | None,
    ) -> None:
        self._inner = inner
        self._account = account
        self._first = first
        self._entries = entries
        self._window = window

    def noted_in(self, account: AttentionAccount) -> WatchedMemory:
        """The same memory, kept account of elsewhere."""
        inner = self._inner
        if isinstance(inner, ChainedMemory) and isinstance(inner.first, TopKMemory):
            inner = ChainedMemory(inner.first.reporting(account.place(self._first)), inner.second)
        elif isinstance(inner, TopKMemory):
            inner = inner.reporting(account.place(self._first))
        return WatchedMemory(inner, account, self._first, self._entries, self._window)

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return self._inner.rows

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> WatchedMemory:
        """See `Memory.append`; what is added is not the document's and not counted."""
        inner = self._inner.append(keys, values, keep)
        return WatchedMemory(inner, self._account, self._first, self._entries, self._window)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`."""
        return self._inner.attend(query, scale)

    def attended(self, query: Tensor, scale: float, lse: Tensor) -> None:
        """See `Memory.attended`."""
        self._inner.attended(query, scale, lse)
        if _choice(self._inner) is None:
            keys = self._inner.entries().keys
            step = max(_BLOCK // (query.shape[1] * query.shape[2]), 1)
            for start in range(0, self._entries, step):
                stop = min(start + step, self._entries)
                self._account.add(_shares(query, keys[:, :, start:stop], scale, lse), self._first + start)
        if self._window is not None and self._account.window_counts:
            shares = _shares(query, self._window, scale, lse, _choice(self._inner))
            self._account.add(shares, self._first + self._entries)

    def entries(self) -> Entries:
        """See `Memory.entries`."""
        return self._inner.entries()

    def select(self, rows: Tensor) -> Memory:
        """See `Memory.select`; the rows of a batch are not kept account of."""
        return self._inner.select(rows)


def _choice(memory: Memory) -> int | None:
    """How many entries each query sees of a memory that chooses and reports them itself; None for one that does not."""
    first = memory.first if isinstance(memory, ChainedMemory) else memory
    return first.k if isinstance(first, TopKMemory) else None


def _shares(query: Tensor, keys: Tensor, scale: float, lse: Tensor, best: int | None = None) -> Tensor:
    """Shares of attention [T, entries] of one row's queries, summed over heads; of each query's `best` entries only."""
    scores = weigh(query[:1], keys.to(query), scale)
    if best is not None and best < scores.shape[-1]:
        least = scores.topk(best, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    return scores.sub_(lse[:1, ..., None]).exp_().sum(dim=(0, 1)).cpu()
