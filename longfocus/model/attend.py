"""Softmax attention over several parts (window, memory) as one softmax, without masks or concatenation.

Each part gives an output and the logarithm of its sum of exponentials; two parts together are
    lse = log(exp(lse1) + exp(lse2))        output = exp(lse1 - lse) output1 + exp(lse2 - lse) output2
which is exactly one softmax over both. Shapes: B batch, H query heads, G key heads (H a multiple of G), T queries,
N keys, D head_dim.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from .few import attend_few, suits

Part = tuple[Tensor, Tensor]
"""An output [B, H, T, D] and its log-sum-exp [B, H, T] in float32."""

_CPU_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_SCORE_BLOCK = 1 << 22  # most scores of one head materialised at once where there is no flash kernel


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float, causal: bool = False, keep: Tensor | None = None
) -> Part:
    """Attend to one part. No gradient flows through the log-sum-exp.

    Args:
        query: [B, H, T, D].
        key: [B or 1, G, N, D], N at least 1.
        value: The same shape as `key`.
        scale: Factor on the scores.
        causal: Query t sees keys up to t; then T equals N.
        keep: Which keys may be seen, [B or 1, 1, 1 or T, N], bool. A query that sees none gets zeros and -inf.

    Returns:
        The output [B, H, T, D] in the query's dtype and its log-sum-exp [B, H, T] in float32.
    """
    batch, heads, queries, dim = query.shape
    groups = key.shape[1]
    if queries == 0:  # the kernels do not stand an empty query
        return query, query.new_empty((batch, heads, 0), dtype=torch.float32)
    if not causal and groups < heads and (keep is None or keep.shape[2] == 1):
        # The query heads that share a key head become more queries of it: each key is then read once.
        packed = query.reshape(batch, groups, heads // groups * queries, dim)
        if keep is None and key.shape[0] == 1 < batch:  # and so do the rows that share a memory
            packed = packed.transpose(0, 1).reshape(1, groups, -1, dim)
            output, lse = _one_part(packed, key, value, scale, False, None)
            output = output.view(groups, batch, -1, dim).transpose(0, 1)
            lse = lse.view(groups, batch, -1).transpose(0, 1)
        else:
            output, lse = _one_part(packed, key, value, scale, False, keep)
        return output.reshape(batch, heads, queries, dim), lse.reshape(batch, heads, queries)
    return _one_part(query, key, value, scale, causal, keep)


def _one_part(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool, keep: Tensor | None) -> Part:
    if keep is None and not causal and suits(query, key, value):
        return attend_few(query, key, value, scale)
    if query.device.type == "cpu" and _CPU_FLASH is not None and query.dtype != torch.float16:
        mask = None
        if keep is not None:
            mask = torch.zeros(keep.shape, dtype=query.dtype).masked_fill_(~keep, float("-inf"))
        shape = (query.shape[0], *key.shape[1:])  # the kernel would read past the end of a batch of one
        key, value = key.expand(shape), value.expand(shape)
        output, lse = _CPU_FLASH(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)
        if keep is not None:  # the kernel reports 0 where everything is masked
            lse = lse.masked_fill(~keep.any(-1), float("-inf"))
        return output, lse
    return _materialised(query, key, value, scale, causal, keep)


def _materialised(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool, keep: Tensor | None) -> Part:
    """The same by plain matrix products, a block of keys at a time; for devices without a kernel that tells the sum."""
    keys = key.shape[2]
    block = max(1, _SCORE_BLOCK // query.shape[2])
    parts = []
    for start in range(0, keys, block):
        stop = min(start + block, keys)
        scores = weigh(query, key[:, :, start:stop], scale)
        if causal:
            order = torch.arange(start, stop, device=query.device)
            scores = scores.masked_fill(
                order > torch.arange(query.shape[2], device=query.device)[:, None], float("-inf")
            )
        if keep is not None:
            scores = scores.masked_fill(~keep[..., start:stop], float("-inf"))
        lse = torch.logsumexp(scores, dim=-1)
        weights = torch.exp(scores - lse.clamp_min(torch.finfo(torch.float32).min)[..., None]).to(query.dtype)
        parts.append((mix(weights, value[:, :, start:stop]), lse))
    return merge(parts)


def weigh(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Scores [B, H, T, N] in float32 of `query` [B, H, T, D] against `key` [B or 1, G, N, D]."""
    batch, heads, queries, dim = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, dim)
    return (torch.matmul(grouped, key.transpose(2, 3)).float() * scale).view(batch, heads, queries, -1)


def mix(weights: Tensor, value: Tensor) -> Tensor:
    """Output [B, H, T, D] of `weights` [B, H, T, N] over `value` [B or 1, G, N, D]."""
    batch, heads, queries, keys = weights.shape
    grouped = weights.reshape(batch, value.shape[1], -1, keys)
    return torch.matmul(grouped, value).view(batch, heads, queries, -1)


def merge(parts: Iterable[Part]) -> Part:
    """Join parts into what one softmax over all their keys gives; a part with log-sum-exp -inf counts for nothing."""
    output, total = (parts := list(parts))[0]
    dtype = output.dtype
    if len(parts) > 2:  # else the rounding of many parts would add up
        output = output.to(torch.promote_types(dtype, torch.float32))
    for other, lse in parts[1:]:
        # the other part's share, exp(lse) / (exp(total) + exp(lse)); 0 where neither sees anything
        share = torch.sigmoid(lse - total).nan_to_num(0.0)
        output = torch.lerp(output, other.to(output.dtype), share[..., None].to(output.dtype))
        total = torch.logaddexp(total, lse)
    return output.to(dtype), total


def attend_together(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float, allowed: Tensor | None, causal: bool
) -> Tensor:
    """Attend by torch's public kernel, with gradients.

    `allowed` [B, 1, T, N] tells who sees what, as bool or as what is added to the scores; or `causal`; or neither.

    Returns:
        The output [B, H, T, D].
    """
    if key.shape[0] != query.shape[0]:
        key, value = key.expand(query.shape[0], -1, -1, -1), value.expand(query.shape[0], -1, -1, -1)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=allowed, is_causal=causal, scale=scale, enable_gqa=key.shape[1] != query.shape[1]
    )
