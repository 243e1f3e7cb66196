"""Padding: rows of one length, which of their tokens are attended to, and batches of unequal rows.

What is attended to is told by position: padding is not, every token is, whatever its id. LongLLaMA tells it by id and
so hides real tokens too, unknown ones and, in chats, every EOS; `longllama_hidden` is for those who want that.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from longfocus.errors import RequestError
from longfocus.training.examples import IGNORED, Row
from longfocus.training.special_tokens import ending, padding_id

_FILL = {"labels": IGNORED, "attention_mask": 0}  # input_ids: the padding token


@dataclass(frozen=True)
class Padding:
    """Rows of one length.

    With random padding, a share of it, drawn uniformly from none to all, stands at the left. In LongLLaMA that moved
    the border between memory and the last window through the example. Here each row is cut by its own tokens, wherever
    padding stands: to move that border, draw `last_context_length` anew for each batch.

    Attributes:
        length: How many tokens a row is to have.
        token: What stands in padding.
        random_left: Whether padding stands at the left too; otherwise it is all at the right.
        seed: For drawing it.
    """

    length: int
    token: int
    random_left: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.length < 1:
            raise RequestError(f"rows were to be padded to {self.length} tokens; give 1 or more")

    @classmethod
    def of(cls, tokenizer: Any, length: int, *, random_left: bool = False, seed: int = 0) -> Padding:
        """With the tokenizer's padding token, or else its unknown token.

        Raises:
            RequestError: It has neither, or the length makes no sense.
        """
        return cls(length, padding_id(tokenizer), random_left, seed)

    def apply(self, row: Row, index: int = 0, epoch: int = 0) -> Row:
        """Pad a row; where depends on seed, index and epoch alone.

        Raises:
            RequestError: The row is longer than rows are to be.
        """
        missing = self.length - len(row["input_ids"])
        if missing < 0:
            raise RequestError(
                f"a row of {len(row['input_ids'])} tokens does not fit in {self.length}; cut rows shorter"
            )
        left = random.Random(f"{self.seed} {epoch} {index}").randint(0, missing) if self.random_left else 0
        return _padded(row, self.token, left, missing - left)


@dataclass(frozen=True)
class Collator:
    """Rows as a batch, those that are shorter padded at the right.

    Attributes:
        token: What stands in padding.
        multiple: What the length is a multiple of.
    """

    token: int
    multiple: int = 1

    @classmethod
    def of(cls, tokenizer: Any) -> Collator:
        """With the tokenizer's padding token, or else its unknown token.

        Raises:
            RequestError: It has neither.
        """
        return cls(padding_id(tokenizer))

    def __call__(self, rows: Sequence[Row]) -> Row:
        """A batch, each tensor [B, T], of rows with `input_ids`, `labels` and `attention_mask`, each [T]."""
        longest = max(len(row["input_ids"]) for row in rows)
        longest += -longest % self.multiple
        padded = [_padded(row, self.token, 0, longest - len(row["input_ids"])) for row in rows]
        return {name: torch.stack([row[name] for row in padded]) for name in ("input_ids", "labels", "attention_mask")}


def longllama_hidden(tokenizer: Any, *, chat: bool) -> frozenset[int]:
    """Ids of the tokens that LongLLaMA never attends to: padding (or else unknown) and, in chats, EOS.

    Raises:
        RequestError: The tokenizer lacks one of them.
    """
    return frozenset([padding_id(tokenizer), *(ending(tokenizer) if chat else [])])


def hide(row: Row, ids: Collection[int]) -> Row:
    """The row with tokens of these ids not attended to, besides those that are not already."""
    shown = ~torch.isin(row["input_ids"], torch.tensor(sorted(ids), dtype=torch.long))
    return {**row, "attention_mask": row["attention_mask"] * shown}


def _padded(row: Row, token: int, left: int, right: int) -> Row:
    return {name: _around(tensor, left, right, _FILL.get(name, token)) for name, tensor in row.items()}


def _around(tensor: Tensor, left: int, right: int, value: int) -> Tensor:
    return pad(tensor, (left, right), value=value)
