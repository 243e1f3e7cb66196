"""The memory of several questions at once: what they share is read once for all of them, and each has its own account.

Keys are scored for the queries of all rows in one pass (in several where there are very many scores), whether every
entry counts or each query's best ones; so they are for the accounts.

Shapes: B rows, H query heads, G key heads, T new tokens, N entries, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from longfocus.asking.account import AttentionAccount, Noticed, WatchedMemory, note_rows, reporting
from longfocus.model.attend import Part, merge
from longfocus.model.cache import LongLlamaCache
from longfocus.model.memory import ChainedMemory, DenseMemory, Entries, Memory

if TYPE_CHECKING:
    from longfocus.asking.session import Session


class WatchedRows(Memory):
    """One memory for a batch of rows, each of which is kept account of.

    Args:
        watched: The memory as each row sees it; all of them are the same but for the account.
        tokens: How many of a row's first input are tokens; what stands to the left of them is padding.
        behind: What left the rows' windows later.
    """

    def __init__(self, watched: Sequence[WatchedMemory], tokens: Sequence[int], behind: Memory | None = None) -> None:
        self._watched = tuple(watched)
        self._tokens = tuple(tokens)
        self._behind = behind
        self._asked: tuple[Memory, list[tuple[Tensor, Tensor]]] | None = None  # a memory that chose, and what it told

    def __len__(self) -> int:
        return len(self._watched[0]) + (0 if self._behind is None else len(self._behind))

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return len(self._watched)

    def counted(self) -> int | Tensor:
        """See `Memory.counted`."""
        return self._watched[0].counted() + (0 if self._behind is None else self._behind.counted())

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> WatchedRows:
        """See `Memory.append`; what is added is not the document's and not counted."""
        behind = DenseMemory.of(keys, values, keep) if self._behind is None else self._behind.append(keys, values, keep)
        return WatchedRows(self._watched, self._tokens, behind)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`; keys are read once for all rows, also where each of their queries has its own chosen."""
        shared = self._watched[0].inner
        part = self._chosen(query, scale) if self._watched[0].chooses else shared.attend(query, scale)
        return part if self._behind is None else merge([part, self._behind.attend(query, scale)])

    def _chosen(self, query: Tensor, scale: float) -> Part:
        """What a memory that chooses gives, for the queries of all rows as if they were one's; padding asks nothing."""
        told: list[tuple[Tensor, Tensor]] = []
        shared = reporting(self._watched[0].inner, lambda chosen, shares: told.append((chosen, shares)))
        found = shared.attend(torch.cat(self._asking(query), dim=2), scale)
        self._asked = shared, told
        output, lse = torch.zeros_like(query), query.new_full(query.shape[:3], float("-inf"), dtype=torch.float32)
        for whole, asked in zip((output, lse), found, strict=True):
            parts = self._asking(whole)
            for place, part in zip(parts, asked.split([place.shape[2] for place in parts], dim=2), strict=True):
                place.copy_(part)
        return output, lse

    def _asking(self, tensor: Tensor) -> list[Tensor]:
        """Each row [1, H, T, ...] of [B, H, T, ...] without its padding; views."""
        padding = [max(tensor.shape[2] - tokens, 0) for tokens in self._tokens]
        return [tensor[row : row + 1, :, first:] for row, first in enumerate(padding)]

    def attended(self, query: Tensor, scale: float, lse: Tensor) -> None:
        """See `Memory.attended`."""
        queries, lses = self._asking(query), self._asking(lse)
        if self._asked is not None:
            (shared, told), self._asked = self._asked, None
            shared.attended(torch.cat(queries, dim=2), scale, torch.cat(lses, dim=2))
            sizes = [each.shape[2] for each in queries]
            for found in told:
                for watched, *row in zip(self._watched, *(each.split(sizes, dim=2) for each in found), strict=True):
                    watched.account.note(row[0] + watched.first, row[1], watched.layer)
        note_rows([Noticed(*row) for row in zip(self._watched, queries, lses, strict=True)], scale)

    def entries(self) -> Entries:
        """See `Memory.entries`."""
        return ChainedMemory(self._watched[0].inner, self._behind).entries()

    def select(self, rows: Tensor) -> WatchedRows:
        """See `Memory.select`."""
        chosen = rows.tolist()
        behind = None if self._behind is None else self._behind.select(rows)
        return WatchedRows([self._watched[row] for row in chosen], [self._tokens[row] for row in chosen], behind)


def watched_rows(
    session: Session, state: LongLlamaCache, accounts: Sequence[AttentionAccount], prompts: Sequence[list[int]]
) -> LongLlamaCache:
    """A state of one row for as many questions as there are accounts, each of which is kept account of."""
    return rows_of([session.watched_state(account, state) for account in accounts], prompts)


def rows_of(each: Sequence[LongLlamaCache], prompts: Sequence[list[int]]) -> LongLlamaCache:
    """A state of several rows from the same state of one row, as often as there are rows, each kept account of."""
    together = each[0].for_rows(torch.zeros(len(each), dtype=torch.long))
    tokens = [len(prompt) for prompt in prompts]
    layers = []
    for index, layer in enumerate(together.layers):
        watched = [one.layers[index].memory for one in each]
        memories = [memory for memory in watched if isinstance(memory, WatchedMemory)]
        layers.append(replace(layer, memory=WatchedRows(memories, tokens)) if memories else layer)
    return LongLlamaCache(layers, together.positions, together.keep)
