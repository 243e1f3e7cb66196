"""Data sets for tuning: records in a form, and mixtures of several by proportion."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isclose
from typing import Any, Protocol

import numpy as np
from torch.utils.data import Dataset

from longfocus.errors import DocumentError, RequestError
from longfocus.training.examples import Format, Record, Row
from longfocus.training.filters import Filter
from longfocus.training.padding import Padding, hide


class Records(Protocol):
    """A sequence of records: a list, or a data set of the `datasets` library."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Record: ...


class Rows(Protocol):
    """A data set whose rows can be drawn anew for each epoch."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Row: ...
    def set_epoch(self, epoch: int) -> None:
        """Draw as for this epoch."""
        ...  # pragma: no cover


class TuningDataset(Dataset[Row]):
    """Records as rows of tokens; each is turned into tokens when it is asked for.

    Args:
        records: A list, or anything that gives records by number.
        form: How they become tokens.
        tokenizer: The model's.
        rules: Which of them to take. All are looked at once, here.
        padding: How to make rows equal; None leaves each as long as it is.
        hidden: Ids of tokens that are never attended to; see `longfocus.training.padding.longllama_hidden`.

    Raises:
        DocumentError: No record is left.
    """

    def __init__(
        self,
        records: Records,
        form: Format,
        tokenizer: Any,
        *,
        rules: Filter | None = None,
        padding: Padding | None = None,
        hidden: Collection[int] = (),
    ) -> None:
        self._records = records
        self._form = form
        self._tokenizer = tokenizer
        self._padding = padding
        self._hidden = hidden
        self._epoch = 0
        rules = rules or Filter()
        self.kept = [number for number in range(len(records)) if rules.keeps(records[number], tokenizer)]
        if not self.kept:
            raise DocumentError(f"of {len(records)} records the filter keeps none; loosen it")

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Row:
        """The row of the record number `index` of those kept: `input_ids`, `labels`, `attention_mask`, each [T].

        Raises:
            DocumentError: The record is not as the form expects.
        """
        row = self._form.encode(self._records[self.kept[index]], self._tokenizer).row()
        row = hide(row, self._hidden) if self._hidden else row
        return row if self._padding is None else self._padding.apply(row, index, self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw random padding as for this epoch."""
        self._epoch = epoch


class TuningMixture(Dataset[Row]):
    """Several data sets as one, as many rows as they have together, drawn by proportion.

    Which data set a row is of is drawn once, by seed, and equals LongLLaMA's; row i is element i of that data set,
    counted around its end. So elements of a set come in order, and not each equally often.

    Args:
        datasets: What to mix: of this module, or long questions.
        proportions: The share of each; together 1.
        seed: For drawing.

    Raises:
        RequestError: Proportions that do not fit the data sets.
    """

    def __init__(self, datasets: Sequence[Rows], proportions: Sequence[float], seed: int = 42) -> None:
        if not datasets or len(datasets) != len(proportions):
            raise RequestError(f"{len(datasets)} data sets were given with {len(proportions)} proportions")
        if min(proportions) < 0 or not isclose(sum(proportions), 1, abs_tol=1e-8):
            raise RequestError(
                f"the proportions {', '.join(map(str, proportions))} are not shares that make 1 together"
            )
        self.datasets = tuple(datasets)
        rows = sum(map(len, datasets))
        draw = np.random.RandomState(seed)  # the generator whose draws are LongLLaMA's
        one = len(datasets) == 1
        self.source = np.zeros(rows, int) if one else draw.choice(len(datasets), rows, p=list(proportions))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Row:
        """See `TuningDataset`."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        dataset = self.datasets[int(self.source[index])]
        return dataset[index % len(dataset)]

    @property
    def drawn(self) -> list[int]:
        """How many rows are of each data set."""
        return [int(count) for count in np.bincount(self.source, minlength=len(self.datasets))]

    def set_epoch(self, epoch: int) -> None:
        """See `TuningDataset`."""
        for dataset in self.datasets:
            dataset.set_epoch(epoch)
