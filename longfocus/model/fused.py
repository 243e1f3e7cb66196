"""Matrix products together with what follows them, by oneDNN, on a CPU where no gradients are wanted.

An activation, a gate or a residual by itself reads and writes matrices that no cache holds: while a book was read, that
took a seventh of the time. Here it is applied to a product's numbers before they are written. They are rounded to
bfloat16 once instead of each time, so results differ by roundings.

Shapes: [..., I] to [..., O] for a linear module of I inputs and O outputs; what is added or multiplied is [..., O].
"""

import functools

import torch
from torch import Tensor, nn

FEWEST = 16
"""Rows from which on this is used; for fewer, the weights are what takes the time."""

_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def fuses(states: Tensor, *modules: nn.Module) -> bool:
    """Whether products of `states` with all of these modules can be taken together with what follows."""
    return (
        states.dtype == torch.bfloat16
        and states.device.type == "cpu"
        and states.numel() >= FEWEST * states.shape[-1]
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and all(map(_is_plain, modules))
        and _works()
    )


def silu_of(module: nn.Linear, states: Tensor) -> Tensor:
    """silu(module(states))."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(states, module.weight, module.bias, "swish", [], "")
    return output


def times(module: nn.Linear, states: Tensor, other: Tensor) -> Tensor:
    """module(states) * other."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise.binary(states, other, module.weight, module.bias, "mul")
    return output


def plus(module: nn.Linear, states: Tensor, other: Tensor) -> Tensor:
    """module(states) + other."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise.binary(states, other, module.weight, module.bias, "add")
    return output


def _is_plain(module: nn.Module) -> bool:
    """Whether calling the module is no more than the product: nobody listens in, or stands in its place."""
    return (
        type(module) is nn.Linear
        and module.weight.dtype == torch.bfloat16
        and "forward" not in vars(module)
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


@functools.cache
def _works() -> bool:
    """Whether this torch has the products on this machine, and they give what they should."""
    if _linear is None:
        return False
    module = nn.utils.skip_init(nn.Linear, 32, 32, dtype=torch.bfloat16)  # nothing is drawn at random
    states = torch.linspace(-1.0, 1.0, FEWEST * 32, dtype=torch.bfloat16).view(FEWEST, 32)
    try:
        with torch.no_grad():
            module.weight.copy_(torch.linspace(-0.2, 0.1, 32 * 32).view(32, 32))
            module.bias.copy_(torch.linspace(0.0, 0.5, 32))
            product = module(states)
            pairs = (
                (silu_of(module, states), nn.functional.silu(product)),
                (times(module, states, states), product * states),
                (plus(module, states, states), product + states),
            )
            return all(torch.allclose(found.float(), wanted.float(), atol=0.05) for found, wanted in pairs)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
