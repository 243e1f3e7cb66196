"""One row of training data: token ids, and which of them the loss counts.

Every data set of this folder gives rows as dicts of tensors, `input_ids`, `labels` and `attention_mask`, each [T]. Rows
may be of any length: models with memory layers cut their windows themselves, and full attention takes them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

IGNORED = -100
"""The label that PyTorch's cross entropy leaves out."""

Record = Mapping[str, Any]
Row = dict[str, Tensor]
Piece = tuple[Sequence[int], bool]


@dataclass(frozen=True)
class Example:
    """Tokens of one example.

    Attributes:
        ids: Token ids, [T] int64.
        labels: The same where the loss counts and `IGNORED` elsewhere, [T] int64. They are not shifted: the model does
            that.
    """

    ids: Tensor
    labels: Tensor

    @classmethod
    def of(cls, pieces: Iterable[Piece], longest: int | None = None) -> Example:
        """Join pieces of token ids, each counted by the loss or not; keep the first `longest` tokens."""
        ids: list[int] = []
        labels: list[int] = []
        for piece, counted in pieces:
            ids += piece
            labels += piece if counted else [IGNORED] * len(piece)
        return cls(torch.tensor(ids[:longest], dtype=torch.long), torch.tensor(labels[:longest], dtype=torch.long))

    def row(self) -> Row:
        """As a dict of tensors, all of it attended to."""
        return {"input_ids": self.ids, "labels": self.labels, "attention_mask": torch.ones_like(self.ids)}


class Format(Protocol):
    """How a record becomes tokens."""

    def encode(self, record: Record, tokenizer: Any) -> Example:
        """Tokens of one record. Raises `DocumentError` for a record that is not as the format expects."""
        ...  # pragma: no cover
