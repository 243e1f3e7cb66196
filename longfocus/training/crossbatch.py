"""Cross-batch attention: in memory layers, rows of a batch attend to each other.

Focused Transformer training (Tworkowski et al., "Focused Transformer: Contrastive Training for Context Scaling", 2023,
section 3 and appendix A). Each row of a batch is one window. Besides itself, causally, a row sees whole windows of
rows before it: with packing, some are earlier windows of its own document (positives), the others are of other
documents (negatives). Gradients flow into all of them, so a model learns keys that stand out from a crowd.

Which rows `CrossBatch` lets see which agrees with LongLLaMA's released training code; nothing is ever seen from a later
row. `CrossDocuments` is the form in which the paper trained its small models.

Shapes: B rows, S tokens of a row, H query heads, G key heads, D head_dim, r rows seen at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longfocus.model.attend import Part, attend_together
from longfocus.model.layers import causal_mask
from longfocus.model.memory import Entries, Memory, attend_in_blocks
from longfocus.model.rope import rotate


@dataclass(frozen=True)
class CrossBatch:
    """Which rows of a batch see which.

    Attributes:
        range: Most rows before its own that a row sees (positives and negatives).
        stepping: Whether the rows of a pack see more and more: the first none, the last all. Without it each sees all.
        packing: How many rows in a row are one document's windows.

    Raises:
        ValueError: A number that makes no sense.
    """

    range: int
    stepping: bool = True
    packing: int = 1

    def __post_init__(self) -> None:
        if self.range < 0:
            raise ValueError(f"the cross-batch range is {self.range}, must be 0 or more")
        if self.packing < 1:
            raise ValueError(f"the packing is {self.packing}, must be 1 or more")

    def seen(self, batch: int) -> list[int]:
        """How many rows before its own each of `batch` rows sees.

        Raises:
            ValueError: The batch is not made of whole packs.
        """
        if batch % self.packing:
            raise ValueError(f"a batch of {batch} rows cannot be made of packs of {self.packing}")
        contexts = self.range + 1
        step = -(-contexts // max(self.packing - 1, 1))
        sizes = []
        for row in range(batch):
            size = contexts
            if self.stepping and self.packing > 1:
                size = min(row % self.packing * step + 1, contexts)
            sizes.append(min(size, row + 1) - 1)
        return sizes

    def positives_and_negatives(self, batch: int) -> list[tuple[int, int]]:
        """For each row, how many windows it sees of its own document and how many of others."""
        return [(min(count, row % self.packing), max(count - row % self.packing, 0))
                for row, count in enumerate(self.seen(batch))]  # fmt: skip

    def gather(self, keys: Tensor, values: Tensor) -> Entries:
        """What each row sees of the others: of keys and values [B, G, S, D] entries [B, G, r * S, D], nearest first."""
        batch, groups, length, dim = keys.shape
        seen = torch.tensor(self.seen(batch), device=keys.device)
        most = int(seen.max())
        back = torch.arange(1, most + 1, device=keys.device)
        rows = (torch.arange(batch, device=keys.device)[:, None] - back) % batch  # [B, r]; those that wrap are hidden
        keep = (back[None] <= seen[:, None]).repeat_interleave(length, dim=1)
        laid = [held[rows].transpose(1, 2).reshape(batch, groups, most * length, dim) for held in (keys, values)]
        return Entries(laid[0], laid[1], keep)


@dataclass(frozen=True)
class CrossDocuments:
    """Which rows of a batch see which, in the paper's first form (section 3.2).

    A row sees the earlier windows of its own document and those at the same places of the documents after it, the first
    one coming after the last. So all have equally many negatives, and none sees a window that is not further back in
    its document than its own.

    Attributes:
        documents: Of how many documents windows are seen, its own included: the paper's d. With 1 there are no
            negatives, with 0 nothing is seen.
        packing: How many rows in a row are one document's windows. With 2, what is seen is the paper's C_prev.

    Raises:
        ValueError: A number that makes no sense.
    """

    documents: int
    packing: int = 2

    def __post_init__(self) -> None:
        if self.documents < 0:
            raise ValueError(f"a row is to see windows of {self.documents} documents, must be 0 or more")
        if self.packing < 1:
            raise ValueError(f"the packing is {self.packing}, must be 1 or more")

    def positives_and_negatives(self, batch: int) -> list[tuple[int, int]]:
        """For each row, how many windows it sees of its own document and how many of others.

        Raises:
            ValueError: The batch is not made of whole packs.
        """
        documents = self._documents(batch)
        places = [row % self.packing for row in range(batch)]
        return [(place * min(documents, 1), place * max(documents - 1, 0)) for place in places]

    def gather(self, keys: Tensor, values: Tensor) -> Entries:
        """What each row sees of the others: of keys and values [B, G, S, D] entries [B, G, r * S, D], its own first."""
        batch, groups, length, dim = keys.shape
        documents, before = self._documents(batch), self.packing - 1
        row = torch.arange(batch, device=keys.device)[:, None, None]
        other = torch.arange(documents, device=keys.device)[:, None]
        window = torch.arange(before, device=keys.device)
        rows = ((row // self.packing + other) % (batch // self.packing) * self.packing + window).flatten(1)
        keep = (window < row % self.packing).expand(-1, documents, -1).flatten(1)  # [B, r]
        laid = [held[rows].transpose(1, 2).reshape(batch, groups, -1, dim) for held in (keys, values)]
        return Entries(laid[0], laid[1], keep.repeat_interleave(length, dim=1))

    def _documents(self, batch: int) -> int:
        if batch % self.packing:
            raise ValueError(f"a batch of {batch} rows cannot be made of packs of {self.packing}")
        return min(self.documents, batch // self.packing)


class CrossBatchMemory(Memory):
    """What a memory layer sees besides its window while it is trained: other rows of the same batch.

    Args:
        seen: Which rows see which.
        found: What they see; made anew for each window, by `beside`.
    """

    def __init__(self, seen: CrossBatch | CrossDocuments, found: Entries | None = None) -> None:
        self._seen = seen
        self._found = found

    def __len__(self) -> int:
        return 0 if self._found is None else self._found.keys.shape[2]

    @property
    def rows(self) -> int:
        """See `Memory.rows`; before the first window it fits any batch."""
        return 1 if self._found is None else self._found.keys.shape[0]

    def beside(self, keys: Tensor, values: Tensor) -> CrossBatchMemory:
        """See `Memory.beside`: the other rows' keys and values of this same window."""
        return CrossBatchMemory(self._seen, self._seen.gather(keys, values))

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> CrossBatchMemory:
        """See `Memory.append`; nothing outlives the batch."""
        return CrossBatchMemory(self._seen)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`."""
        return attend_in_blocks(query, self.entries(), scale)

    def entries(self) -> Entries:
        """See `Memory.entries`."""
        if self._found is None:
            raise ValueError("cross-batch memory has entries only beside a window")
        return self._found

    def select(self, rows: Tensor) -> Memory:
        """Refused: which row is which decides what it sees."""
        raise ValueError("rows of a cross-batch cannot be chosen")


def cross_batch_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    cross_batch_range: int,
    cross_batch_stepping: bool,
    dataset_packing: int,
    rope_theta: float,
) -> Tensor:
    """Attention of each row to itself, causally, and to rows before it, as one softmax.

    Args:
        query: [B, S, H, D], not rotated.
        key: [B, S, G, D], not rotated.
        value: [B, S, G, D].
        cross_batch_range: Most rows that a row sees before its own.
        cross_batch_stepping: Whether the rows of a pack see more and more.
        dataset_packing: How many rows in a row are one document.
        rope_theta: Base of the rotation. A row's own keys stand at their places, those of other rows at the first.

    Returns:
        [B, S, H, D].

    Raises:
        ValueError: Numbers that do not fit the batch.
    """
    batch, length, _, dim = query.shape
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=query.device) / dim
    angles = torch.arange(length, device=query.device)[:, None] * rope_theta**-exponents
    angles = torch.cat((angles, angles), dim=-1)
    cosines, sines = angles.cos().to(query.dtype), angles.sin().to(query.dtype)
    others = CrossBatch(cross_batch_range, cross_batch_stepping, dataset_packing).gather(key, value)
    assert others.keep is not None
    own = causal_mask(length, length, query.device).expand(batch, -1, -1, -1)
    allowed = torch.cat((own, others.keep[:, None, None].expand(-1, -1, length, -1)), dim=-1)
    output = attend_together(
        rotate(query, cosines, sines),
        torch.cat((rotate(key, cosines, sines), others.keys), dim=2),
        torch.cat((value, others.values), dim=2),
        scale=dim**-0.5,
        allowed=allowed,
        causal=False,
    )
    return output.transpose(1, 2)
