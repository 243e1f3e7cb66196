"""Keeping account of which tokens of a document get attention, while the model works as usual.

A watched memory attends exactly as the memory in it does. After each joint softmax it notes the entries that each query
and head attended to most, and their shares; that reads the keys once more at most and needs no extra pass of the model.

Shapes: G key heads, H query heads of each, T queries, K noted entries, S tokens in the window, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from longfocus.memory.around import AroundMemory
from longfocus.memory.choosing import ChoosingMemory, Chosen
from longfocus.memory.held import Held, PlainHeld, held_by
from longfocus.memory.top_k import best_entries
from longfocus.model.attend import Part
from longfocus.model.memory import ChainedMemory, DenseMemory, Entries, Memory

NOTED = 16
"""Entries noted for each query and head, where the memory itself does not choose."""

TOGETHER = 16
"""Single queries of a row that are noted at a time: keys are read once for all of them, not once for each token."""

_SCORES = 1 << 26  # most scores held at a time


class Tally:
    """Attention on each token of a document: squared shares, divided by how often the token was among the noted ones.

    Each layer has one say, whatever the size of its shares: which layer finds what is asked for depends on the
    question, and one with large shares would drown the others (docs/log.md).

    Squares let a head that singles out one token count for more than many that spread; the division takes away what
    beginnings and line ends get from every query alike. On planted facts the best passage was the right one for 4 of 6
    questions this way, and for none by plain sums (docs/log.md).

    Attributes:
        layers: Squared shares and counts of each layer, [tokens] both.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}  # squares and times

    def add(self, places: Tensor, shares: Tensor, layer: int = 0) -> None:
        """Add shares of a layer's attention on tokens; both of one shape."""
        squares, times = self._of(layer)
        squares.index_add_(0, places.flatten().cpu(), shares.square().flatten().cpu())
        times.index_add_(0, places.flatten().cpu(), torch.ones(places.numel()))

    def _of(self, layer: int) -> tuple[Tensor, Tensor]:
        return self.layers.setdefault(layer, (torch.zeros(self._tokens), torch.zeros(self._tokens)))

    def __add__(self, other: Tally) -> Tally:
        both = Tally(self._tokens)
        for one in (self, other):
            for layer, added in one.layers.items():
                for held, more in zip(both._of(layer), added, strict=True):
                    held += more
        return both

    @property
    def attention(self) -> Tensor:
        """For each token, [tokens]; each layer's sums to 1."""
        total = torch.zeros(self._tokens)
        for squares, times in self.layers.values():
            each = squares / times.clamp_min(1)
            total += each / each.sum().clamp_min(torch.finfo(each.dtype).tiny)
        return total


class AttentionAccount:
    """What a question and its answer attended to.

    Attributes:
        question: By the question's tokens.
        notes_question: Whether the question's tokens are counted; not where it was looked up before.
        window_counts: Whether tokens at the document's end that are in the window are counted too; true for as long
            as they stand where they stood.
    """

    def __init__(self, tokens: int, window_counts: bool = True) -> None:
        self.question = Tally(tokens)
        self._answer = Tally(tokens)
        self.notes_question = True
        self.window_counts = window_counts
        self._waiting: dict[int, list[tuple[WatchedMemory, Tensor, float, Tensor]]] = {}  # by layer

    @property
    def answer(self) -> Tally:
        """By what chose the answer's tokens; the first one is chosen at the question's end."""
        for layer in list(self._waiting):
            self.settle([self], layer)
        return self._answer

    def later(self, watched: WatchedMemory, query: Tensor, scale: float, lse: Tensor) -> bool:
        """Keep what chose a token, by its query [1, H, 1, D] and lse [1, H, 1]; whether there is enough to `settle`."""
        waiting = self._waiting.setdefault(watched.layer, [])
        waiting.append((watched, query, scale, lse))
        return len(waiting) >= TOGETHER

    @staticmethod
    @torch.inference_mode()
    def settle(accounts: Sequence[AttentionAccount], layer: int) -> None:
        """Note what accounts of one document have kept for later; keys are read once for all of them."""
        rows, scale = [], 0.0
        for account in accounts:
            watched, queries, (scale, *_), lses = zip(*account._waiting.pop(layer), strict=True)
            # what came behind the document differs between them, the document's part does not
            rows.append(Noticed(watched[0], torch.cat(queries, dim=2), torch.cat(lses, dim=2)))
        for account, found in zip(accounts, _most_attended(rows, scale), strict=True):
            for places, shares in found:
                account._answer.add(places, shares, layer)

    def noting_from(self, first: int, layer: int) -> Chosen:
        """What notes a layer's entries and their shares, both [G, H, T, K], where entry 0 is token `first`."""

        def note(entries: Tensor, shares: Tensor) -> None:
            self.note(entries + first, shares, layer)

        return note

    def note(self, places: Tensor, shares: Tensor, layer: int) -> None:
        """Note what a prompt's queries, or one token's, attended to: tokens and shares, both [G, H, T, K]."""
        if places.shape[2] > 1 and self.notes_question:
            self.question.add(places[:, :, :-1], shares[:, :, :-1], layer)
        self._answer.add(places[:, :, -1], shares[:, :, -1], layer)


class WatchedMemory(AroundMemory):
    """A memory of one row whose attention is kept account of.

    Args:
        inner: The memory; one that chooses its entries is told to report them itself.
        account: Where attention is noted.
        layer: Whose memory it is.
        first: The token that the first entry stands for.
        entries: How many entries are the document's; others came later.
        window: Un-rotated keys of the document's tokens behind those, which are in the window, [1, G, S, D]. They are
            counted as if they were in memory, since near tokens get attention for being near.
    """

    def __init__(
        self, inner: Memory, account: AttentionAccount, layer: int, first: int, entries: int, window: Tensor | None
    ) -> None:
        super().__init__(reporting(inner, account.noting_from(first, layer)))
        self.account = account
        self.layer = layer
        self.first = first
        self._entries = entries
        self._window = window

    def noted_in(self, account: AttentionAccount) -> WatchedMemory:
        """The same memory, kept account of elsewhere."""
        return WatchedMemory(self.inner, account, self.layer, self.first, self._entries, self._window)

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> WatchedMemory:
        """See `Memory.append`; what is added is not the document's and not counted."""
        inner = self.inner
        if isinstance(inner, DenseMemory):  # would grow; what is the document's must stay apart
            inner = ChainedMemory(inner, dtype=inner.entries().keys.dtype)
        inner = inner.append(keys, values, keep)
        return WatchedMemory(inner, self.account, self.layer, self.first, self._entries, self._window)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`."""
        return self.inner.attend(query, scale)

    def attended(self, query: Tensor, scale: float, lse: Tensor) -> None:
        """See `Memory.attended`."""
        self.inner.attended(query, scale, lse)
        note_rows([Noticed(self, query, lse)], scale)

    def in_memory(self, query: Tensor, scale: float, lse: Tensor) -> tuple[Tensor, Tensor] | None:
        """The document's tokens in memory that queries attended to most, and their shares, both [G, H, T, K].

        None where nothing of it is there, and where the memory chooses and so reports itself.

        Args:
            query: [1, H, T, D].
            scale: Factor on the scores.
            lse: Over window and memory, [1, H, T].
        """
        if self.chooses or not self._entries:
            return None
        # the document's part alone: laying it out with what came behind would copy it
        read = self.inner.first if isinstance(self.inner, ChainedMemory) else self.inner
        entries, shares = _best(query, held_by(read), scale, lse)
        return entries + self.first, shares

    def in_window(self, query: Tensor, scale: float, lse: Tensor) -> tuple[Tensor, Tensor] | None:
        """The same of the document's tokens in the window; None where they are not counted."""
        window = self._window
        if window is None or not window.shape[2] or not self.account.window_counts:
            return None
        entries, shares = _best(query, PlainHeld(Entries(window, window, None)), scale, lse)
        return entries + self.first + self._entries, shares

    @property
    def chooses(self) -> bool:
        """Whether the memory chooses its entries, and so reports them itself."""
        memory = self.inner
        return isinstance(memory.first if isinstance(memory, ChainedMemory) else memory, ChoosingMemory)

    def select(self, rows: Tensor) -> Memory:
        """See `Memory.select`; the rows of a batch are not kept account of."""
        return self.inner.select(rows)


class Noticed(NamedTuple):
    """What a row asked of a memory that is kept account of.

    Attributes:
        watched: The memory.
        query: The row's queries, [1, H, T, D].
        lse: Over window and memory, [1, H, T].
    """

    watched: WatchedMemory
    query: Tensor
    lse: Tensor


def note_rows(rows: Sequence[Noticed], scale: float) -> None:
    """Note what rows attended to, each in its own account.

    Args:
        rows: Their memories are of one layer, and the same but for the account: keys are read once for all rows.
        scale: Factor on the scores.
    """
    several, due = [], []
    for watched, query, lse in rows:
        if not watched.account.notes_question:
            query, lse = query[:, :, -1:], lse[:, :, -1:]
        if query.shape[2] != 1:
            several.append(Noticed(watched, query, lse))
        elif watched.account.later(watched, query, scale, lse):
            due.append(watched.account)
    if due:
        AttentionAccount.settle(due, rows[0].watched.layer)
    for (watched, _, _), found in zip(several, _most_attended(several, scale), strict=True):
        for places, shares in found:
            watched.account.note(places, shares, watched.layer)


def _most_attended(rows: Sequence[Noticed], scale: float) -> list[list[tuple[Tensor, Tensor]]]:
    """For each row the document's tokens that got most, and their shares: in memory, and in the window if it counts."""
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in rows]
    if not rows:
        return found
    query, lse = (torch.cat(parts, dim=2) for parts in ([row.query for row in rows], [row.lse for row in rows]))
    sizes = [row.query.shape[2] for row in rows]
    best = rows[0].watched.in_memory(query, scale, lse)
    if best is not None:
        for row, places, shares in zip(found, *(each.split(sizes, dim=2) for each in best), strict=True):
            row.append((places, shares))
    for each, row in zip(found, rows, strict=True):
        best = row.watched.in_window(row.query, scale, row.lse)
        if best is not None:
            each.append(best)
    return found


def reporting(memory: Memory, note: Chosen) -> Memory:
    """A memory that tells `note` what it chooses, if it does; else as it is."""
    if isinstance(memory, ChainedMemory) and isinstance(memory.first, ChoosingMemory):
        return ChainedMemory(memory.first.reporting(note), memory.second, memory.dtype)
    return memory.reporting(note) if isinstance(memory, ChoosingMemory) else memory


def _best(query: Tensor, held: Held, scale: float, lse: Tensor) -> tuple[Tensor, Tensor]:
    """The entries with the largest shares for the queries of a row, and those shares, both [G, H, T, K]."""
    groups, (_, heads, queries, dim) = held.heads, query.shape
    grouped = query.reshape(groups, -1, dim)
    step = max(_SCORES // (groups * len(held)), 1)
    pieces = (grouped[:, start : start + step] for start in range(0, grouped.shape[1], step))
    likely = torch.cat([best_entries(piece, held, 2 * NOTED) for piece in pieces], dim=1)  # by rounded scores
    scores = torch.einsum("grd,grkd->grk", grouped.float(), held.picked_keys(likely).to(query.device)) * scale
    best = scores.topk(min(NOTED, scores.shape[-1]), dim=-1)
    chosen = likely.gather(-1, best.indices.to(likely.device))
    shares = torch.exp(best.values - lse.reshape(groups, -1, 1))
    shape = (groups, heads // groups, queries, -1)
    return chosen.view(shape), shares.view(shape)
