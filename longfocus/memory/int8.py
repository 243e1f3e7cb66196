"""Keys and values in one byte a number: half of bfloat16, of a book on disk as of a memory in RAM.

An entry's key is packed head by head, as whole numbers from -127 to 127 and the size of one step. What all keys of a
head have in common, their mean, is most of each of them; it is subtracted first, which halves the error of scores.
It is taken from the first entries that come and never changes, so that what was packed stays as it is. A softmax does
not see it: a query's products with it are added to the log-sum-exp, nothing else.

A record is what is kept of one entry's key (or value): [G, D] numbers of one byte, then [G] steps in float16.

Shapes: B batch, H query heads, G key heads, T queries, R queries of a key head, N entries, K chosen, D head_dim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from longfocus.memory.held import Held, PartwiseMemory, products
from longfocus.model.attend import Part, attend, merge
from longfocus.model.growing import GrowingTensor
from longfocus.model.memory import AT_ONCE, BLOCK, ChainedMemory, Entries, Memory

STEP_BYTES = 2
"""Bytes of a step's size: with 64 numbers to a head, a record has 66 bytes a head instead of bfloat16's 128."""

_LARGEST = 127
_FEW = 16  # queries of a key head up to which it is quicker to scale scores than to scale keys
_LARGEST_STEP = torch.finfo(torch.float16).max


def pack(entries: Tensor, centre: Tensor | None = None) -> Tensor:
    """Records [B, N, G * (D + 2)], int8, of keys or values [B, G, N, D].

    A number differs by at most 0.57 steps from what it was, and a step is a 127th of the largest number of its head.

    Args:
        entries: What is to be packed.
        centre: Subtracted first, [G, D].
    """
    batch, heads, count, dim = entries.shape
    rest = entries.float() if centre is None else entries.float() - centre[:, None].to(entries.device)
    sizes = (rest.abs().amax(dim=-1) / _LARGEST).clamp_max(_LARGEST_STEP).half()
    steps = sizes.float()[..., None]
    codes = torch.where(steps > 0, rest / steps, 0.0).round_().clamp_(-_LARGEST, _LARGEST).to(torch.int8)
    codes = codes.transpose(1, 2).reshape(batch, count, heads * dim)
    sizes = sizes.transpose(1, 2).clone(memory_format=torch.contiguous_format).view(torch.int8)
    return torch.cat((codes, sizes), dim=-1)


def unpack(records: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Codes [..., G, D] and sizes of steps [..., G] in float32 of records [..., G * (D + 2)]."""
    numbers = records.shape[-1] - heads * STEP_BYTES
    sizes = records[..., numbers:].clone(memory_format=torch.contiguous_format).view(torch.float16)
    return records[..., :numbers].unflatten(-1, (heads, -1)), sizes.float()


class Records(NamedTuple):
    """Packed entries: records [B, N, G * (D + 2)] of both, G, what the keys miss, [G, D], and what is seen, [B, N]."""

    keys: Tensor
    values: Tensor
    heads: int
    centre: Tensor
    keep: Tensor | None

    def plain(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys without what all share, and values, [B, G, stop - start, D] in float32."""
        found = []
        for records in (self.keys, self.values):
            codes, steps = unpack(records[:, start:stop], self.heads)
            found.append((codes * steps[..., None]).transpose(1, 2))
        return found[0], found[1]

    def attend(self, query: Tensor, scale: float, first: int = 0) -> Part:
        """Attend to the entries from `first` on; no more than a block of them is laid out as numbers."""
        count = self.keys.shape[1]
        if first >= count or not query.shape[2]:
            return torch.zeros_like(query), query.new_full(query.shape[:3], float("-inf"), dtype=torch.float32)
        grouped = query.reshape(query.shape[0], self.heads, -1, query.shape[3]).float()
        few = grouped.shape[2] <= _FEW
        parts: list[Part] = []
        for start in range(first, count, BLOCK):
            stop = min(start + BLOCK, count)
            if few:
                parts.append(self._by_codes(grouped, scale, start, stop))
            else:
                parts.append(self._unpacked(query, scale, start, stop))
            if len(parts) == AT_ONCE:
                parts = [merge(parts)]
        output, lse = merge(parts)
        shared = torch.einsum("bgrd,gd->bgr", grouped, self.centre.to(query.device))
        lse = lse.reshape(query.shape[:3]) + shared.reshape(query.shape[:3]) * scale
        return output.reshape(query.shape).to(query.dtype), lse

    def _unpacked(self, query: Tensor, scale: float, start: int, stop: int) -> Part:
        """Attention to the entries from `start` to `stop`, as of keys without their centre; for many queries."""
        keys, values = (tensor.to(query) for tensor in self.plain(start, stop))
        keep = None if self.keep is None else self.keep[:, None, None, start:stop].to(query.device)
        return attend(query, keys, values, scale=scale, keep=keep)

    def _by_codes(self, grouped: Tensor, scale: float, start: int, stop: int) -> Part:
        """The same for few queries [B, G, R, D]: scores and shares take the steps' sizes, so that codes need none."""
        (keys, sizes), (values, weights) = (
            unpack(records[:, start:stop].to(grouped.device), self.heads) for records in (self.keys, self.values)
        )
        scores = torch.matmul(grouped, keys.float().permute(0, 2, 3, 1)) * (sizes.transpose(1, 2)[:, :, None] * scale)
        if self.keep is not None:
            hidden = ~self.keep[:, None, None, start:stop].to(grouped.device)
            scores = scores.masked_fill(hidden, float("-inf"))
        lse = scores.logsumexp(dim=-1)
        shares = torch.exp(scores - lse.clamp_min(torch.finfo(torch.float32).min)[..., None])
        return torch.matmul(shares * weights.transpose(1, 2)[:, :, None], values.float().transpose(1, 2)), lse


class Int8Held(Held):
    """Packed entries of one row, used a block at a time."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.keep = records.keep

    def __len__(self) -> int:
        return self.records.keys.shape[1]

    @property
    def heads(self) -> int:
        """See `Held.heads`."""
        return self.records.heads

    def attend(self, query: Tensor, scale: float, first: int = 0) -> Part:
        """See `Held.attend`."""
        return self.records.attend(query, scale, first)

    def scores(self, grouped: Tensor) -> Tensor:
        """See `Held.scores`; in float32."""
        groups, rows, _ = grouped.shape
        found = grouped.new_empty((len(self), groups, rows), dtype=torch.float32)
        for start in range(0, len(self), BLOCK):
            here = slice(start, start + BLOCK)
            codes, steps = unpack(self.records.keys[0, here].to(grouped.device), groups)
            block = products(grouped.float(), codes.float().transpose(0, 1)).view(-1, groups, rows)
            torch.mul(block, steps[..., None], out=found[here])
        return found.flatten(1)

    def keys(self, start: int, stop: int) -> Tensor:
        """See `Held.keys`; unpacked, float32."""
        return self.records.plain(start, stop)[0] + self.records.centre[:, None]

    def picked_keys(self, places: Tensor) -> Tensor:
        """See `Held.picked_keys`."""
        return self._picked(self.records.keys, places) + self.records.centre[:, None, None].to(places.device)

    def picked_values(self, places: Tensor) -> Tensor:
        """See `Held.picked_values`."""
        return self._picked(self.records.values, places)

    def _picked(self, records: Tensor, places: Tensor) -> Tensor:
        head, here = torch.arange(self.heads, device=records.device)[:, None, None], places.to(records.device)
        numbers = records.shape[-1] - self.heads * STEP_BYTES
        codes = records[0, :, :numbers].unflatten(-1, (self.heads, -1))[here, head]
        sizes = records[0, :, numbers:].unflatten(-1, (self.heads, STEP_BYTES))[here, head]
        found: Tensor = codes * sizes.view(torch.float16).float()
        return found.to(places.device)


class Int8Memory(PartwiseMemory):
    """Every entry in RAM, packed.

    Args:
        keys: Records of the keys.
        values: Records of the values.
        heads: Key heads.
        centre: What is subtracted from keys, [G, D] in float32; None until the first entries come.
        keep: Which entries may be seen.
    """

    def __init__(
        self, keys: GrowingTensor, values: GrowingTensor, heads: int, centre: Tensor | None, keep: GrowingTensor | None
    ) -> None:
        self._keys = keys
        self._values = values
        self._keep = keep
        self.heads = heads
        self.centre = centre

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, keep: Tensor | None = None) -> Int8Memory:
        """Pack these entries: keys and values [B, G, N, D], keep [B, N] bool or None for all."""
        centre = centre_of(keys)
        kept = None if keep is None else GrowingTensor.of(keep, 1)
        packed = (GrowingTensor.of(pack(keys, centre), 1), GrowingTensor.of(pack(values), 1))
        return cls(*packed, keys.shape[1], centre, kept)

    @classmethod
    def of_records(cls, keys: Tensor, values: Tensor, heads: int, centre: Tensor | None) -> Int8Memory:
        """A memory of records that were packed before, [B, N, G * (D + 2)]; the tensors are never written to."""
        return cls(GrowingTensor.of(keys, 1), GrowingTensor.of(values, 1), heads, centre, None)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return self._keys.tensor.shape[0]

    def counted(self) -> int | Tensor:
        """See `Memory.counted`."""
        return len(self) if self._keep is None else self._keep.tensor.sum(dim=1)

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> Memory:
        """See `Memory.append`; what comes is packed. One row goes on to serve many."""
        rows = self.rows
        if rows != keys.shape[0]:
            if rows != 1:
                raise ValueError(f"the memory has {rows} rows, but {keys.shape[0]} rows are to be appended")
            return ChainedMemory(self).append(keys, values, keep)
        kept = self._keep
        if kept is not None or keep is not None:
            if kept is None:
                kept = GrowingTensor.of(torch.ones((rows, len(self)), dtype=torch.bool, device=keys.device), 1)
            kept = kept.extended(keep if keep is not None else keys.new_ones(keys.shape[::2][:2], dtype=torch.bool))
        centre = centre_of(keys) if self.centre is None else self.centre
        grown = self._keys.extended(pack(keys, centre)), self._values.extended(pack(values))
        return Int8Memory(*grown, self.heads, centre, kept)

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`."""
        return self._records().attend(query, scale)

    def held(self) -> Int8Held:
        """See `PartwiseMemory.held`."""
        return Int8Held(self._records())

    def entries(self) -> Entries:
        """See `Memory.entries`; all are unpacked, into float32."""
        records = self._records()
        keys, values = records.plain(0, len(self))
        return Entries(keys + records.centre[:, None], values, records.keep)

    def select(self, rows: Tensor) -> Int8Memory:
        """See `Memory.select`; the packed rows are copied."""
        keys, values, _, _, keep = self._records()
        here = rows.to(keys.device)
        chosen = None if keep is None else GrowingTensor.of(keep[here], 1)
        copied = (GrowingTensor.of(keys[here], 1), GrowingTensor.of(values[here], 1))
        return Int8Memory(*copied, self.heads, self.centre, chosen)

    def records_from(self, first: int) -> tuple[Tensor, Tensor]:
        """Records of the keys and of the values from entry `first` on, as a Book keeps them."""
        return self._keys.tensor[:, first:], self._values.tensor[:, first:]

    def from_entry(self, first: int) -> Int8Memory:
        """Without the entries before `first`; what is subtracted from keys stays what it was."""
        keys, values = (records.clone() for records in self.records_from(first))
        keep = None if self._keep is None else GrowingTensor.of(self._keep.tensor[:, first:].clone(), 1)
        return Int8Memory(GrowingTensor.of(keys, 1), GrowingTensor.of(values, 1), self.heads, self.centre, keep)

    def _records(self) -> Records:
        keys, centre = self._keys.tensor, self.centre
        if centre is None:
            centre = torch.zeros((self.heads, keys.shape[-1] // self.heads - STEP_BYTES), device=keys.device)
        keep = None if self._keep is None else self._keep.tensor
        return Records(keys, self._values.tensor, self.heads, centre, keep)


def centre_of(keys: Tensor) -> Tensor | None:
    """The mean key of each head, [G, D] in float32, of keys [B, G, N, D]; None of no keys."""
    return keys.float().mean(dim=(0, 2)) if keys.shape[2] else None
