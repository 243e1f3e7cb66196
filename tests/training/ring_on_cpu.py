"""Context parallelism in processes without GPUs, for a test: torch's ring around the kernel that torch has for CPUs.

torch divides rows, passes keys and values around and merges what comes of them wherever; only its table of kernels has
none for CPUs, and accelerate refuses such processes. So this puts a kernel in and takes the refusals out. Everything
else, and all of ours but one refusal, is what runs on GPUs.
"""

import torch
import torch.distributed as dist
import torch.distributed.tensor.experimental._context_parallel._attention as ring
import torch.nn.functional as F
from accelerate.utils import ParallelismConfig

from longfocus.errors import RequestError
from longfocus.training import parallel

FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
SEQUENCE = 2


class RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value):
        def kernel(query, key, value, is_causal):
            return FORWARD(query, key, value, 0.0, is_causal)

        group = dist.group.WORLD
        out, logsumexp = ring._templated_ring_attention(group, SEQUENCE, kernel, query, key, value, is_causal=True)
        ctx.save_for_backward(query, key, value, out, logsumexp)
        return out

    @staticmethod
    def backward(ctx, gradient):
        def kernel(gradient, query, key, value, out, logsumexp, is_causal):
            return BACKWARD(gradient.contiguous(), query, key, value, out, logsumexp, 0.0, is_causal)

        inputs = (gradient, "gradient", *ctx.saved_tensors)
        found = ring._templated_ring_attention_backward(dist.group.WORLD, SEQUENCE, kernel, *inputs, is_causal=True)
        return tuple(found[:3])


def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    assert attn_mask is None
    assert is_causal
    assert scale == query.shape[-1] ** -0.5
    groups = query.shape[1] // key.shape[1]
    spread = (held.repeat_interleave(groups, dim=1).contiguous() for held in (key, value))
    return RingAttention.apply(query.contiguous(), *spread)


def install() -> None:
    """For the rest of this process."""
    refuse = parallel.check

    def check(lesson, arguments):
        try:
            refuse(lesson, arguments)
        except RequestError as error:
            if "needs GPUs" not in str(error):
                raise

    parallel.check = check
    ParallelismConfig._validate_accelerator = lambda self, accelerator: None
    ring._enable_context_parallel_dispatcher_impl = lambda **_: None
    ring._disable_context_parallel_dispatcher_impl = lambda: None
    F.scaled_dot_product_attention = attention
