"""How one input is cut into windows.

Of L tokens the last `last_context_length` form the final window; those before are cut in pieces that pass through
memory. In a batch of unequal rows each row is cut by its own tokens alone, so padding moves no border.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Piece(NamedTuple):
    """Tokens that go through the model together.

    Attributes:
        columns: Which columns of the input, [B, T]; None means `start` to `stop` in every row.
        keep: Which of them are tokens rather than padding, [B, T] bool; None means all.
        final: Whether these are the last `last_context_length` tokens.
    """

    start: int
    stop: int
    columns: Tensor | None
    keep: Tensor | None
    final: bool

    def take(self, tensor: Tensor) -> Tensor:
        """This piece's columns of `tensor` [B, L, ...]."""
        if self.columns is None:
            return tensor[:, self.start : self.stop]
        index = self.columns.view(*self.columns.shape, *([1] * (tensor.dim() - 2)))
        return torch.gather(tensor, 1, index.expand(*self.columns.shape, *tensor.shape[2:]))


def cut_lengths(length: int, last_context_length: int, stride: int) -> list[int]:
    """Lengths of the windows for `length` tokens, the final window last.

    Raises:
        ValueError: `last_context_length` is not positive.
    """
    if last_context_length <= 0:
        raise ValueError(f"last_context_length is {last_context_length}, must be 1 or more")
    before = max(length - last_context_length, 0)
    return [min(stride, before - start) for start in range(0, before, stride)] + [length - before]


def cut(length: int, keep: Tensor | None, last_context_length: int, stride: int) -> Iterator[Piece]:
    """Cut an input of `length` columns; `keep` [B, length] bool tells tokens from padding (None: all are tokens).

    Rows with fewer windows than others sit out the steps before the final one. Within a piece tokens stand at the
    right, so that the entries that stay in the window lie together.

    Raises:
        ValueError: There is nothing to cut, or `last_context_length` is not positive.
    """
    if not length:
        raise ValueError("the input has no tokens")
    if keep is None:
        start = 0
        lengths = cut_lengths(length, last_context_length, stride)
        for number, size in enumerate(lengths):
            yield Piece(start, start + size, None, None, number == len(lengths) - 1)
            start += size
        return
    rows = [cut_lengths(tokens, last_context_length, stride) for tokens in keep.sum(dim=1).tolist()]
    steps = max(len(row) for row in rows)
    padded = [[*row[:-1], *[0] * (steps - len(row)), row[-1]] for row in rows]
    # columns of the tokens of each row, in order; padding columns come last
    order = torch.argsort((~keep).long(), dim=1, stable=True)
    begun = torch.zeros(len(rows), 1, dtype=torch.long, device=keep.device)
    for step in range(steps):
        sizes = torch.tensor([row[step] for row in padded], device=keep.device)[:, None]
        width = max(int(sizes.max()), 1)
        place = torch.arange(width, device=keep.device)[None] - (width - sizes)
        inside = place >= 0
        columns = torch.gather(order, 1, (begun + place.clamp_min(0)).clamp_max(length - 1))
        yield Piece(0, 0, columns, None if bool(inside.all()) else inside, step == steps - 1)
        begun = begun + sizes


def put_back(pieces: list[tuple[Piece, Tensor]], length: int) -> Tensor:
    """Lay the outputs [B, T, ...] of all pieces out as [B, length, ...]; padding gets zeros."""
    if pieces[0][0].columns is None:
        return pieces[0][1] if len(pieces) == 1 else torch.cat([output for _, output in pieces], dim=1)
    output = torch.cat([output for _, output in pieces], dim=1)
    # padding is sent to one column more, which is thrown away
    places = [
        piece.columns if piece.keep is None else piece.columns.masked_fill(~piece.keep, length)
        for piece, _ in pieces
        if piece.columns is not None
    ]
    index = torch.cat(places, dim=1)
    index = index.view(*index.shape, *([1] * (output.dim() - 2))).expand_as(output)
    whole = output.new_zeros((output.shape[0], length + 1, *output.shape[2:]))
    return whole.scatter(1, index, output)[:, :length]
