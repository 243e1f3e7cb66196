"""A model that writes with packed weights: one token's products in a half to a fifth of the time.

A token that is written needs every weight once, and reading weights from memory is what takes the time; in 4 or 8 bits
a number there is less to read. Many tokens at once, as in a question, are quicker with the weights as they were, which
are therefore kept: a layer takes its packed matrices for up to `FEW` tokens, and its own for more.

Documents are read with the weights as they are, so Books are the same with packed weights and without. Matrices are
packed when they are first needed, which is behind the first token of an answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from longfocus.errors import CheckpointError, RequestError
from longfocus.loading.packed_matrix import GROUP, Bits, PackedMatrix, kernel_trouble, refuse_without_kernel
from longfocus.loading.placing import fitting_dtype
from longfocus.loading.weights import find_weights, open_weights
from longfocus.model.cache import LayerState
from longfocus.model.layers import LongLlamaDecoderLayer, Rotary
from longfocus.model.modeling import LongLlamaForCausalLM

if TYPE_CHECKING:
    from longfocus.loading.load import LoadedModel

BITS: dict[str, Bits] = {"int4": 4, "int8": 8}
"""By the name of a way to pack: bits of the linear layers' numbers. The head has 8 in any case."""
AUTO, NONE = "auto", "none"
"""Packed where nothing is rounded by it that was not rounded before, and never packed."""

FEW = {4: 12, 8: 6}
"""By bits: tokens up to which packed products are quicker than the model's (`benchmarks/packed.py`)."""

_LOOKED_AT = 16
"""Rows of a matrix that tell whether it was packed before."""
_FIRST = re.compile(r"\blayers\.0\..*_proj\.weight$")
_GGUF_FIRST = ("blk.0.attn_", "blk.0.ffn_")


def for_writing(loaded: LoadedModel, quantize: str = AUTO, finer: Collection[str] | None = None) -> LoadedModel:
    """The same model with packed weights where it writes; documents are read with the one given.

    Args:
        loaded: The model, on a CPU.
        quantize: "int4" or "int8"; "auto" for "int4" where the weights come from a file of 4 bits and this machine can,
            and else the model as it is; "none" for the model as it is.
        finer: See `packed_for_writing`; by default what differs from `loaded.plain`.

    Raises:
        RequestError: See there.
    """
    if quantize == AUTO:
        quantize = "int4" if _gains(loaded) else NONE
    if quantize == NONE:
        return loaded
    if finer is None:
        same = {id(weight) for weight in (loaded.plain or loaded).model.parameters()}
        own = (name for name, weight in loaded.model.named_parameters() if id(weight) not in same)
        finer = {name.rpartition(".")[0] for name in own}
    identity = hashlib.sha256(f"{loaded.fingerprint} {quantize}".encode()).hexdigest()
    model = packed_for_writing(loaded.model, quantize, finer)
    return replace(loaded, model=model, fingerprint=identity, plain=loaded.reader)


def packed_for_writing(model: LongLlamaForCausalLM, quantize: str, finer: Collection[str] = ()) -> LongLlamaForCausalLM:
    """A second model with packed weights, which shares with the first all that it needs besides.

    Args:
        model: On a CPU.
        quantize: "int4" or "int8".
        finer: Names of modules, such as `model.layers.8.self_attn.q_proj`, that have 8 bits in any case: what an
            adapter changed is no longer what was rounded to 4 bits before.

    Raises:
        RequestError: There is no such way to pack weights, or not for this model, this device or this machine.
    """
    if quantize not in BITS:
        raise RequestError(f"Weights cannot be packed as {quantize!r}; choose {', '.join(BITS)}, {AUTO} or {NONE}.")
    if model.device.type != "cpu":
        raise RequestError(f"Packed weights are for a CPU, and the model is on {model.device}; load it without.")
    refuse_without_kernel()
    odd = [name for name, module in _linear(model) if module.in_features % GROUP]
    if odd:
        raise RequestError(
            f"This model's weights cannot be packed: {odd[0]} has rows that are no multiple of {GROUP} numbers."
        )
    weights = {id(held): held for held in (*model.parameters(), *model.buffers())}
    writer = deepcopy(model, weights)
    bits = BITS[quantize]
    for index, layer in enumerate(writer.model.layers):
        assert isinstance(layer, LongLlamaDecoderLayer)
        changed = {name.rpartition(".")[2] for name in finer if name.startswith(f"model.layers.{index}.")}
        writer.model.layers[index] = PackedLayer.of(layer, partial(_Matrices.of, layer, bits, changed), FEW[bits])
    writer.lm_head = PackedHead.of(writer.lm_head)
    return writer


def _gains(loaded: LoadedModel) -> bool:
    """Whether the model writes faster in 4 bits and loses nothing by it, as far as a look at its first layer tells."""
    model = loaded.reader.model
    first = model.model.layers[0]
    return (
        model.device.type == "cpu"
        # where float32 was asked for, nothing shall be rounded
        and model.dtype in (torch.bfloat16, fitting_dtype(model.device))
        and all(module.in_features % GROUP == 0 for _, module in _linear(model))
        and all(was_packed(module.weight) for module in first.modules() if isinstance(module, nn.Linear))
        and kernel_trouble() is None
    )


def packs_by_itself(source: Path) -> bool:
    """Whether a checkpoint that is not loaded yet would be packed with "auto", as far as its file tells; on a CPU.

    Args:
        source: Its `config.json`, or a GGUF file.
    """
    if kernel_trouble() is not None:
        return False
    if source.suffix.lower() == ".gguf":
        from gguf import GGUFReader

        kinds = [each.tensor_type.name for each in GGUFReader(source).tensors if each.name.startswith(_GGUF_FIRST)]
        return all(kind.startswith("Q4") for kind in kinds if not kind.startswith("F"))
    try:
        with open_weights(find_weights(source.parent)) as tensors:
            first = [held for name, held in tensors.items() if _FIRST.search(name)]
            return bool(first) and all(was_packed(held[:_LOOKED_AT]) for held in first)
    except (CheckpointError, RuntimeError):  # told by what loads it; a group that a row does not fill is not packed
        return False


def was_packed(weight: Tensor, rows: int = _LOOKED_AT) -> bool:
    """Whether the numbers of a matrix [N, K] once had 4 bits each: no more than 16 different ones in any group."""
    groups = weight[:rows].unflatten(1, (-1, GROUP)).sort(dim=-1).values
    return int((groups.diff(dim=-1) != 0).sum(dim=-1).max()) < 16


def packed_bytes(model: LongLlamaForCausalLM) -> int:
    """Bytes that packed matrices take, besides the model's own weights; 0 for a model without."""
    held = [matrix for layer in model.model.layers if isinstance(layer, PackedLayer) for matrix in layer.held]
    held += [model.lm_head.held] if isinstance(model.lm_head, PackedHead) else []
    return sum(matrix.nbytes for matrix in held)


def _linear(model: LongLlamaForCausalLM) -> list[tuple[str, nn.Linear]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]


@dataclass(frozen=True)
class _Matrices:
    """A layer's matrices, packed; those with the same input as one."""

    attention: PackedMatrix
    """To queries, keys and values."""
    output: PackedMatrix
    gated: PackedMatrix
    """To what is gated and what it is gated with."""
    down: PackedMatrix

    @classmethod
    def of(cls, layer: LongLlamaDecoderLayer, bits: Bits, changed: Collection[str]) -> _Matrices:
        """Those of `layer`; matrices among the `changed` ones, and what is joined with them, have 8 bits."""

        def pack(block: nn.Module, *names: str) -> PackedMatrix:
            parts = [getattr(block, name) for name in names]
            bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
            chosen: Bits = 8 if any(name in changed for name in names) else bits
            return PackedMatrix(torch.cat([part.weight for part in parts]), chosen, bias)

        attention, mlp = layer.self_attn, layer.mlp
        return cls(
            pack(attention, "q_proj", "k_proj", "v_proj"),
            pack(attention, "o_proj"),
            pack(mlp, "gate_proj", "up_proj"),
            pack(mlp, "down_proj"),
        )

    def __iter__(self) -> Iterator[PackedMatrix]:
        return iter((self.attention, self.output, self.gated, self.down))


class PackedLayer(LongLlamaDecoderLayer):
    """A layer that computes a few tokens with packed matrices. Shapes as in `longfocus.model.layers`."""

    few: int
    """Tokens up to which packed matrices are used."""
    _pack: Callable[[], _Matrices]

    @classmethod
    def of(cls, layer: LongLlamaDecoderLayer, pack: Callable[[], _Matrices], few: int) -> PackedLayer:
        """The same layer, with a way to pack its matrices as well."""
        made = cls.__new__(cls)
        made.__dict__ = {**layer.__dict__, "few": few, "_pack": pack}
        return made

    @cached_property
    def held(self) -> _Matrices:
        """Its matrices, packed."""
        return self._pack()

    def forward(
        self, states: Tensor, rotary: Rotary, memory_scale: float, state: LayerState, allowed: Tensor | None, look: bool
    ) -> tuple[Tensor, LayerState, Tensor | None]:
        """See `LongLlamaDecoderLayer`."""
        batch, new, size = states.shape
        if batch * new > self.few or torch.is_grad_enabled():
            return super().forward(states, rotary, memory_scale, state, allowed, look)
        attention, held = self.self_attn, self.held
        flat = states.reshape(-1, size)
        heads = held.attention(self.input_layernorm(flat)).view(batch, new, -1, attention.head_dim)
        queries, keys = attention.q_proj.out_features, attention.k_proj.out_features
        query, key, value = heads.split([width // attention.head_dim for width in (queries, keys, keys)], dim=2)
        mixed, state, weights = attention.mixed(query, key, value, rotary, memory_scale, state, allowed, look)
        flat = flat + held.output(mixed.view(-1, queries))
        gate, up = held.gated(self.post_attention_layernorm(flat)).chunk(2, dim=-1)
        flat = flat + held.down(self.mlp.act_fn(gate) * up)
        return flat.view(batch, new, size), state, weights


class PackedHead(nn.Linear):
    """A head that computes a few places with packed numbers of 8 bits."""

    @classmethod
    def of(cls, head: nn.Linear) -> PackedHead:
        """The same head."""
        made = cls.__new__(cls)
        made.__dict__ = dict(head.__dict__)
        return made

    @cached_property
    def held(self) -> PackedMatrix:
        """Its matrix, packed."""
        return PackedMatrix(self.weight, 8, self.bias)

    def forward(self, states: Tensor) -> Tensor:
        """[..., E] to [..., V]."""
        flat = states.reshape(-1, states.shape[-1])
        if len(flat) > FEW[8] or torch.is_grad_enabled():
            return super().forward(states)
        return self.held(flat).view(*states.shape[:-1], -1)
