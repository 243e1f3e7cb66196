"""Blocks of the model: attention to window and memory, MLP, norm.

Parameter names are Hugging Face LLaMA's (and Qwen3's for the norms of queries and keys), so weights swap freely.
Shapes: B batch, H query heads, G key heads, T new tokens, S tokens in the window (the new ones last), N entries of
memory, D head_dim, E hidden size.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from .attend import attend, attend_together, merge, mix, weigh
from .cache import LayerState
from .config import LongLlamaConfig
from .fused import fuses, plus, silu_of, times
from .memory import Memory
from .rope import rotate

Rotary = tuple[Tensor, Tensor]


class LongLlamaRMSNorm(nn.Module):
    """Root mean square norm, computed in float32 (Zhang and Sennrich, 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.variance_epsilon = eps

    def forward(self, states: Tensor) -> Tensor:
        """Normalise the last dimension."""
        if states.device.type != "cpu" or states.dtype != torch.bfloat16 or torch.is_grad_enabled():
            return F.rms_norm(states, self.weight.shape, self.weight, self.variance_epsilon)
        # the same in a third of the time of torch's, which on a CPU is made of its parts
        wide = states.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().mul_(1 / states.shape[-1])
        scale.add_(self.variance_epsilon).rsqrt_()
        normed: Tensor = (wide * scale).mul_(self.weight.float()).to(states.dtype)
        return normed


class LongLlamaMLP(nn.Module):
    """Gated feed-forward block."""

    def __init__(self, config: LongLlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.act_fn = ACT2FN[config.hidden_act]
        self.is_silu = config.hidden_act in ("silu", "swish")

    def forward(self, states: Tensor, residual: Tensor | None = None) -> Tensor:
        """[B, T, E] to [B, T, E]; with `residual` added, if there is one."""
        if self.is_silu and fuses(states, self.gate_proj, self.up_proj, self.down_proj):
            hidden = times(self.up_proj, states, silu_of(self.gate_proj, states))
        else:
            hidden = self.act_fn(self.gate_proj(states)) * self.up_proj(states)
        return _onto(residual, self.down_proj, hidden)


class LongLlamaAttention(nn.Module):
    """Attention to a window and, in a memory layer, to a memory, as one softmax."""

    def __init__(self, config: LongLlamaConfig, layer_idx: int) -> None:
        super().__init__()
        heads, groups, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        assert groups is not None and dim is not None and config.mem_layers is not None
        if heads % groups:
            raise ValueError(f"{heads} attention heads cannot share {groups} key-value heads evenly")
        out_bias = config.attention_bias if config.attention_out_bias is None else config.attention_out_bias
        self.layer_idx = layer_idx
        self.head_dim = dim
        self.scaling = dim**-0.5
        self.has_memory = layer_idx in config.mem_layers
        self.is_rotated = config.mem_positionals or not self.has_memory
        self.grouping = config.mem_attention_grouping if self.has_memory else None
        self.window = config.window
        self.discount = config.mem_discount
        self.q_proj = nn.Linear(config.hidden_size, heads * dim, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, groups * dim, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, groups * dim, bias=config.attention_bias)
        self.o_proj = nn.Linear(heads * dim, config.hidden_size, bias=out_bias)
        if config.qk_norm:
            self.q_norm = LongLlamaRMSNorm(dim, config.rms_norm_eps)
            self.k_norm = LongLlamaRMSNorm(dim, config.rms_norm_eps)
        self.qk_norm = config.qk_norm

    def forward(
        self,
        states: Tensor,
        rotary: Rotary,
        memory_scale: float,
        state: LayerState,
        allowed: Tensor | None,
        look: bool,
        residual: Tensor | None = None,
    ) -> tuple[Tensor, LayerState, Tensor | None]:
        """Attend.

        Args:
            states: New tokens, [B, T, E].
            rotary: Cosines and sines for all tokens in the window, [B, 1, S, D].
            memory_scale: Factor that rotation to position 0 has on a key.
            state: The layer's window and memory before the new tokens.
            allowed: Which tokens of the window each new one sees, [B, 1, T, S] bool; None means causally all.
            look: Whether to return attention weights; the scores are then materialised.
            residual: What the output is added to, [B, T, E].

        Returns:
            The output [B, T, E]; the state with the new tokens in its window; the weights [B, H, T, S + N] or None.
        """
        batch, new, _ = states.shape
        query = self.q_proj(states).view(batch, new, -1, self.head_dim)
        key = self.k_proj(states).view(batch, new, -1, self.head_dim)
        value = self.v_proj(states).view(batch, new, -1, self.head_dim)
        output, state, weights = self.mixed(query, key, value, rotary, memory_scale, state, allowed, look)
        return _onto(residual, self.o_proj, output), state, weights

    def mixed(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rotary: Rotary,
        memory_scale: float,
        state: LayerState,
        allowed: Tensor | None,
        look: bool,
    ) -> tuple[Tensor, LayerState, Tensor | None]:
        """What lies between the projections: attend, with queries [B, T, H, D], keys and values [B, T, G, D].

        The other arguments are those of `forward`; so are the results, but for the output [B, T, H * D].
        """
        batch, new = query.shape[:2]
        if self.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        value = value.transpose(1, 2)
        query, key = query.transpose(1, 2).to(value.dtype), key.transpose(1, 2).to(value.dtype)  # for autocast
        rotated = key
        if self.is_rotated:
            here = [table[:, :, -new:] for table in rotary]
            query, rotated = rotate(query, here[0], here[1]), rotate(key, here[0], here[1])
        else:
            memory_scale = 1.0
        state = self._turned(state, rotary, new).extended(key, rotated, value)
        if state.memory is not None:
            state = replace(state, memory=state.memory.beside(key, value))
        if look:
            output, weights = self._looked(query, state, allowed, memory_scale)
        else:
            weights = None
            if torch.is_grad_enabled():
                output = self._together(query, state, allowed, memory_scale)
            else:
                output = self._joined(query, state, allowed, memory_scale)
        return output.transpose(1, 2).reshape(batch, new, -1), state, weights

    def _turned(self, state: LayerState, rotary: Rotary, new: int) -> LayerState:
        """The state with its window's keys rotated to where they stand now."""
        if state.keys is None or state.rotated is not None:
            return state
        if not self.is_rotated:
            return LayerState(state.keys, state.keys, state.values, state.memory)
        past = [table[:, :, :-new] for table in rotary]
        rotated = type(state.keys).of(rotate(state.keys.tensor, past[0], past[1]), 2)
        return LayerState(state.keys, rotated, state.values, state.memory)

    def _joined(self, query: Tensor, state: LayerState, allowed: Tensor | None, memory_scale: float) -> Tensor:
        """Attend part by part; nothing is copied and no mask is as long as the memory."""
        assert state.rotated is not None and state.values is not None
        keys, values = state.rotated.tensor, state.values.tensor
        new = query.shape[2]
        past = keys.shape[2] - new
        if allowed is not None:
            parts = [attend(query, keys, values, scale=self.scaling, keep=allowed)]
        elif new == 1:
            parts = [attend(query, keys, values, scale=self.scaling)]
        else:
            parts = [attend(query, keys[:, :, past:], values[:, :, past:], scale=self.scaling, causal=True)]
            if past:
                parts.append(attend(query, keys[:, :, :past], values[:, :, :past], scale=self.scaling))
        memory = state.memory
        if memory is None or not len(memory):
            return merge(parts)[0]
        scale = self.scaling * memory_scale
        remembered, lse = memory.attend(query, scale)
        lowered = self._lowered(memory, query.device)[..., None, None]
        parts.append((remembered, lse - lowered))
        output, lse = merge(parts)
        memory.attended(query, scale, lse + lowered)
        return output

    def _lowered(self, memory: Memory, device: torch.device) -> Tensor:
        """What the scores of each row's memory are lowered by (`mem_discount`), [B or 1]."""
        counts = torch.as_tensor(memory.counted(), dtype=torch.float32, device=device).view(-1)
        return self.discount * torch.log((counts / self.window).clamp_min(1.0))

    def _together(self, query: Tensor, state: LayerState, allowed: Tensor | None, memory_scale: float) -> Tensor:
        """Attend to window and memory laid end to end, with gradients."""
        keys, values, allowed = self._laid_out(query, state, allowed, memory_scale)
        new = query.shape[2]
        causal = allowed is None and new > 1
        if self.grouping is None or allowed is None:
            return attend_together(query, keys, values, scale=self.scaling, allowed=allowed, causal=causal)
        # the reference's way to bound the block of scores: a group of queries at a time
        step = self.grouping[1]
        groups = [
            attend_together(
                query[:, :, start : start + step],
                keys,
                values,
                scale=self.scaling,
                allowed=allowed[:, :, start : start + step],
                causal=False,
            )
            for start in range(0, new, step)
        ]
        return torch.cat(groups, dim=2)

    def _looked(
        self, query: Tensor, state: LayerState, allowed: Tensor | None, memory_scale: float
    ) -> tuple[Tensor, Tensor]:
        """Attend with the weights [B, H, T, S + N] laid open."""
        keys, values, allowed = self._laid_out(query, state, allowed, memory_scale)
        scores = weigh(query, keys, self.scaling)
        if allowed is None:
            allowed = causal_mask(query.shape[2], keys.shape[2], query.device)
        scores = scores.masked_fill(~allowed, float("-inf")) if allowed.dtype == torch.bool else scores + allowed
        weights = F.softmax(scores, dim=-1).to(query.dtype)
        return mix(weights, values), weights

    def _laid_out(
        self, query: Tensor, state: LayerState, allowed: Tensor | None, memory_scale: float
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values of window and memory end to end, and who sees what; None where causality says it all.

        Who sees what is bool, or what is to be added to the scores, -inf where nothing is seen.
        """
        assert state.rotated is not None and state.values is not None
        keys, values = state.rotated.tensor, state.values.tensor
        new, window = query.shape[2], keys.shape[2]
        batch = query.shape[0]
        if state.memory is not None and len(state.memory):
            entries = state.memory.entries()
            if allowed is None:
                allowed = causal_mask(new, window, query.device)
            seen = torch.ones((1, 1, 1, len(state.memory)), dtype=torch.bool, device=query.device)
            if entries.keep is not None:
                seen = entries.keep.to(query.device)[:, None, None, :]
            allowed = torch.cat((allowed.expand(batch, -1, -1, -1), seen.expand(batch, -1, new, -1)), dim=-1)
            if self.discount:
                lowered = self._lowered(state.memory, query.device).to(query.dtype)
                allowed = torch.zeros_like(allowed, dtype=query.dtype).masked_fill_(~allowed, float("-inf"))
                allowed[..., window:] -= lowered[:, None, None, None]
            remembered = entries.keys.to(query) * memory_scale if memory_scale != 1.0 else entries.keys.to(query)
            keys = torch.cat((keys, remembered.expand(batch, -1, -1, -1)), dim=2)
            values = torch.cat((values, entries.values.to(query).expand(batch, -1, -1, -1)), dim=2)
        elif allowed is None and window > new > 1:
            allowed = causal_mask(new, window, query.device)
        return keys, values, allowed


def _onto(residual: Tensor | None, module: nn.Linear, states: Tensor) -> Tensor:
    """module(states), added to `residual` if there is one."""
    if residual is not None and residual.dtype == states.dtype and fuses(states, module):
        return plus(module, states, residual)
    output: Tensor = module(states)
    return output if residual is None else residual + output


def causal_mask(new: int, window: int, device: torch.device) -> Tensor:
    """[1, 1, new, window] bool: the last `new` tokens of a window each see those up to themselves."""
    order = torch.arange(window, device=device)
    return (order[None] <= order[window - new :, None])[None, None]


class LongLlamaDecoderLayer(nn.Module):
    """A pre-norm LLaMA block."""

    def __init__(self, config: LongLlamaConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = LongLlamaAttention(config, layer_idx)
        self.mlp = LongLlamaMLP(config)
        self.input_layernorm = LongLlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = LongLlamaRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, states: Tensor, rotary: Rotary, memory_scale: float, state: LayerState, allowed: Tensor | None, look: bool
    ) -> tuple[Tensor, LayerState, Tensor | None]:
        """[B, T, E] to [B, T, E]; the other arguments and results are those of `LongLlamaAttention`."""
        states, state, weights = self.self_attn(
            self.input_layernorm(states), rotary, memory_scale, state, allowed, look, states
        )
        return self.mlp(self.post_attention_layernorm(states), states), state, weights
