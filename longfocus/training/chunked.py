"""Parts of a decoder layer run over pieces of the sequence, so that what they make on the way never exists whole.

An MLP, a norm and a projection treat each token by itself. What they keep for their gradients (the three wide tensors
of a gated MLP, float32 copies in norms and in LoRA) can therefore be made for a piece of the sequence at a time: only
the input is kept, and a piece is computed anew when its gradient is due. Results and gradients stay the same. In
long-context training this is known as tiling (Bekman et al., "Arctic Long Sequence Training", 2025).

Shapes: B batch, T tokens, E hidden size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MethodType

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

POINTWISE = (
    "mlp",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "input_layernorm",
    "post_attention_layernorm",
)
"""Parts of a LLaMA layer that treat each token by itself, all but the rotation."""

TOKENS = 2048
"""How many tokens a piece has unless told otherwise: enough for matrix products to run at their full speed."""


@dataclass(frozen=True)
class _InPieces:
    """A `forward` over pieces of [..., T, E], for one module; as a bound method it follows a copy of the module.

    What the module takes besides, such as what its output is added to, is cut likewise.
    """

    tokens: int

    def __call__(self, module: nn.Module, states: Tensor, *others: Tensor) -> Tensor:
        whole: Callable[..., Tensor] = type(module).forward
        if states.shape[-2] <= self.tokens:
            return whole(module, states, *others)
        outputs = []
        for pieces in zip(*(given.split(self.tokens, dim=-2) for given in (states, *others)), strict=True):
            if torch.is_grad_enabled():
                outputs.append(checkpoint(whole, module, *pieces, use_reentrant=False))
            else:
                outputs.append(whole(module, *pieces))
        return torch.cat(outputs, dim=-2)


def run_in_pieces(model: nn.Module, tokens: int = TOKENS, parts: Sequence[str] = ("mlp",)) -> list[nn.Module]:
    """Make the named parts of each decoder layer of this one model run over pieces of the sequence.

    Adapters such as LoRA may be there before; for those put on later, call it again after `run_whole`.

    Args:
        model: A LLaMA-like model, ours or transformers', bare or wrapped.
        tokens: The most tokens that a part sees at once.
        parts: Which parts, by their names in a layer; `POINTWISE` has all that may be run so.

    Returns:
        The modules that were changed, in order.

    Raises:
        ValueError: `tokens` is not positive, the model has no layer with such a part, or a part has a `forward` of its
            own already: it runs in pieces, or another library has changed it.
    """
    if tokens < 1:
        raise ValueError(f"a piece of {tokens} tokens was asked for, must be 1 or more")
    found = []
    for part in parts:
        in_layer = re.compile(rf"(?:.*\.)?layers\.\d+\.{re.escape(part)}")
        modules = [module for name, module in model.named_modules() if in_layer.fullmatch(name)]
        if not modules:
            raise ValueError(f"{type(model).__name__} has no layer with a part {part}")
        found.extend(modules)
    for module in found:
        if "forward" in vars(module):
            raise ValueError(f"a {type(module).__name__} has a forward of its own already: run_whole undoes ours")
    for module in found:
        module.forward = MethodType(_InPieces(tokens), module)
    return found


def run_whole(model: nn.Module) -> None:
    """Undo `run_in_pieces`."""
    for module in model.modules():
        forward = vars(module).get("forward")
        if isinstance(forward, MethodType) and isinstance(forward.__func__, _InPieces):
            del module.forward
