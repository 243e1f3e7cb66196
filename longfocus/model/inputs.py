"""What a caller leaves out of an input: which columns are tokens, and where they stand.

Shapes: B batch, L columns of the input.
"""

import torch
from torch import Tensor

from .cache import LongLlamaCache


def token_mask(mask: Tensor | None, batch: int, length: int, window: int) -> Tensor | None:
    """Which of the new columns are tokens, [B, L] bool; None where all are.

    Raises:
        ValueError: The mask does not fit the input.
    """
    if mask is None:
        return None
    if mask.dim() != 2 or mask.shape[0] != batch:
        raise ValueError(f"attention_mask has the shape {tuple(mask.shape)}, expected ({batch}, columns)")
    if mask.shape[1] < window + length:
        raise ValueError(
            f"attention_mask has {mask.shape[1]} columns, expected at least {window + length}: "
            f"{window} in the window and {length} new"
        )
    tokens = mask[:, mask.shape[1] - length :].bool()
    return None if bool(tokens.all()) else tokens


def pairwise_mask(mask: Tensor | None, batch: int, length: int, fits: bool) -> Tensor | None:
    """Which tokens see which, [B, 1, L, L] bool, where the mask says that; else None.

    Raises:
        ValueError: It does not fit the input, or the input is more than one window (`fits` says whether it is one).
    """
    if mask is None or mask.dim() != 4:
        return None
    if mask.dtype != torch.bool or mask.shape not in ((batch, 1, length, length), (1, 1, length, length)):
        wanted = (batch, 1, length, length)
        raise ValueError(f"attention_mask is {tuple(mask.shape)} of {mask.dtype}, expected {wanted} of torch.bool")
    if not fits:
        raise ValueError("an attention_mask of pairs is for an input of one window and no window before it")
    return mask.expand(batch, -1, -1, -1)


def count_positions(
    given: Tensor | None, keep: Tensor | None, state: LongLlamaCache, batch: int, length: int, device: torch.device
) -> Tensor:
    """Positions [B, L]: as given, else counted on from the window, padding left out.

    Raises:
        ValueError: The given positions do not fit the input.
    """
    if given is not None:
        if given.shape not in ((batch, length), (1, length)):
            raise ValueError(f"position_ids has the shape {tuple(given.shape)}, expected {(batch, length)}")
        return given.to(device).long().expand(batch, -1)
    if keep is None:
        counted = torch.arange(length, device=device).expand(batch, -1)
    else:
        counted = (keep.long().cumsum(dim=1) - 1).clamp_min(0)
    if state.positions is None:
        return counted
    held = state.positions if state.keep is None else state.positions.masked_fill(~state.keep, -1)
    return counted + held.max(dim=1, keepdim=True).values + 1
