"""Rows as batches by number: in an order drawn anew for each epoch, and the same whenever a number is asked for.

That a batch depends on nothing but its number and the seed is what lets a run go on exactly where it stopped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from longfocus.errors import RequestError
from longfocus.training.examples import Row
from longfocus.training.tuning_data import Rows


class RowBatches(Dataset[Row]):
    """Batches of rows, epoch after epoch; the last of an epoch goes on with rows of the next.

    Args:
        rows: In each epoch all of them are taken, after `set_epoch`.
        collate: Makes a batch of them.
        rows_each: Rows of a batch.
        batches: How many there are: as many as a run takes, over all processes.
        seed: For the order.

    Raises:
        RequestError: A batch without rows.
    """

    def __init__(
        self, rows: Rows, collate: Callable[[Sequence[Row]], Row], *, rows_each: int, batches: int, seed: int = 0
    ) -> None:
        if rows_each < 1 or not len(rows):
            raise RequestError(f"batches of {rows_each} rows of {len(rows)} cannot be made; give 1 or more of each")
        self.rows = rows
        self._collate = collate
        self._rows_each = rows_each
        self._batches = batches
        self._seed = seed
        self._epoch = -1
        self._order: Any = None

    def __len__(self) -> int:
        return self._batches

    def __getitem__(self, number: int) -> Row:
        """The batch of that number, each of its tensors [B, T]."""
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        first = number * self._rows_each
        return self._collate([self._row(place) for place in range(first, first + self._rows_each)])

    def _row(self, place: int) -> Row:
        """The row at that place in the sequence of all epochs."""
        epoch, place = divmod(place, len(self.rows))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self._seed, epoch)).permutation(len(self.rows))
            self.rows.set_epoch(epoch)
        return self.rows[int(self._order[place])]


class Interleaved(Dataset[Row]):
    """The batches of two sets, each in its own order, among each other as the seed has it.

    Args:
        one: By number.
        other: By number.
        seed: For the order.
    """

    def __init__(self, one: Dataset[Row], other: Dataset[Row], seed: int) -> None:
        self._sets = (one, other)
        sizes = [len(each) for each in self._sets]  # type: ignore[arg-type]
        turns = np.random.default_rng(seed).permutation(np.repeat((0, 1), sizes))
        self._which = [(int(turn), int((turns[:place] == turn).sum())) for place, turn in enumerate(turns)]

    def __len__(self) -> int:
        return len(self._which)

    def __getitem__(self, number: int) -> Row:
        turn, place = self._which[number]
        return self._sets[turn][place]


class BorderedBatches(Dataset[Row]):
    """Batches with the number of tokens that their last window has, drawn anew for each: `last_context_length`, [].

    So the border between memory and the last window falls anywhere in an example, which LongLLaMA's tuning reached by
    padding rows at random.

    Args:
        batches: By number.
        longest: Most tokens of the last window; the fewest are 1.
        seed: For drawing.
    """

    def __init__(self, batches: RowBatches, longest: int, seed: int = 0) -> None:
        self.batches = batches
        self._longest = longest
        self._seed = seed

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Row:
        """The batch of that number."""
        last = random.Random(f"{self._seed} {number}").randint(1, self._longest)
        return {**self.batches[number], "last_context_length": torch.tensor(last)}
