"""Attention of a few queries to many keys that lie as a Book holds them, as when a token is written, on a CPU.

A flash kernel is made for many queries; with few it takes longer than reading keys and values does. Here both are read
once, in the order in which they lie, by two matrix products in bfloat16. A product's results are rounded to bfloat16,
which would blur large scores, so a bound near the largest score is subtracted within the product, before that. What is
left is small where a share of attention is large, and so exact there.

Shapes: G key heads, R queries of a key head, N keys, D head_dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

MOST = 36
"""Most queries, of all key heads, for which this is quicker."""
LEAST = 1 << 14
"""Fewest keys for which this is quicker."""

_BLOCK = 1024  # keys whose share of the output is summed up in one product
_SAMPLED = 512  # keys among which the largest score is looked for
_FAR = 40.0  # a score so far above the bound is not near anything that was sampled


def suits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `attend_few` is the quicker way for queries [1, G, R, D], keys and values [1, G, N, D]."""
    return (
        key.shape[2] >= LEAST
        and query.shape[1] * query.shape[2] <= MOST
        and query.shape[0] == key.shape[0] == 1
        and query.dtype == key.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and all(held.transpose(1, 2).is_contiguous() for held in (key, value))
    )


def attend_few(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attend to all keys.

    Args:
        query: [1, G, R, D] in bfloat16.
        key: [1, G, N, D], the heads of an entry side by side in memory.
        value: The same.
        scale: Factor on the scores.

    Returns:
        The output [1, G, R, D] in bfloat16 and its log-sum-exp [1, G, R] in float32.
    """
    groups, rows, dim = query.shape[1:]
    # as one wide head, with queries that are zero at other heads' places; each keeps its own head's part of the output
    keys, values = (held.transpose(1, 2).reshape(-1, groups * dim) for held in (key, value))
    output, lse = _one_head(torch.block_diag(*query[0]), keys, values, scale)
    own = torch.arange(groups)
    return output.view(groups, rows, groups, dim)[own, :, own][None], lse.view(1, groups, rows)


def _one_head(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output [R, D] and log-sum-exp [R] of queries [R, D] and one head's keys and values [N, D]."""
    rows, dim = query.shape
    count = keys.shape[0]
    bound = torch.mm(keys[:: max(count // _SAMPLED, 1)], query.t()).amax(dim=0)
    scores = F.linear(keys, query, -bound).float().mul_(scale)  # [N, R]
    above = bound.float() * scale
    if float(scores.max()) > _FAR:
        largest = scores.amax(dim=0)
        scores, above = scores - largest, above + largest
    shares = scores.exp_()
    parts = shares.to(query.dtype)
    whole = count // _BLOCK * _BLOCK
    # a sum over the first of two long dimensions is quicker than one over a long and a short one
    total = shares[:whole].view(-1, _BLOCK * rows).sum(dim=0).view(_BLOCK, rows).sum(dim=0)
    blocks = parts[:whole].view(-1, _BLOCK, rows).transpose(1, 2)
    output = torch.bmm(blocks, values[:whole].view(-1, _BLOCK, dim)).sum(dim=0, dtype=torch.float32)
    if whole < count:
        total += shares[whole:].sum(dim=0)
        output += torch.mm(parts[whole:].t(), values[whole:])
    return (output / total[:, None]).to(query.dtype), total.log() + above
