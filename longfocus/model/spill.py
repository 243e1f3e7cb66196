"""How tokens leave the window: when, which, and where the rest then stand.

When new tokens would not fit, all earlier ones leave (LongLLaMA's rule), but for the `window_overlap` last ones. In
memory layers they go to memory, in the others they are forgotten. In a batch each row does so when its own tokens
demand it. Shapes: B batch, S tokens in the window, T new tokens.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .cache import LongLlamaCache
from .config import LongLlamaConfig


def make_room(state: LongLlamaCache, new: int, keep: Tensor | None, config: LongLlamaConfig) -> LongLlamaCache:
    """The state in which `new` more columns (tokens where `keep` [B, new] says so) fit beside the window."""
    if not state.window:
        return state
    if state.keep is None and keep is None:
        if state.window + new <= config.window:
            return state
        return _spill_columns(state, state.window - _staying(config, new, state.window), config)
    live = _kept(state)
    held = live.sum(dim=1)
    coming = torch.full_like(held, new) if keep is None else keep.sum(dim=1)
    full = (held + coming > config.window) & (coming > 0)
    if not bool(full.any()):
        return state
    staying = (config.window - coming).clamp(0, config.window_overlap)
    rank = live.long().cumsum(dim=1)  # 1 for a row's first token
    leaving = live & full[:, None] & (rank <= (held - staying)[:, None])
    return _spill_tokens(state, leaving, config)


def spill_all(state: LongLlamaCache, config: LongLlamaConfig, leave: int) -> LongLlamaCache:
    """The state after all tokens but the last `leave` of each row have left the window."""
    if not state.window:
        return state
    if state.keep is None:
        return _spill_columns(state, max(state.window - leave, 0), config)
    rank = state.keep.long().cumsum(dim=1)
    leaving = state.keep & (rank <= rank[:, -1:] - leave)
    return _spill_tokens(state, leaving, config)


def _staying(config: LongLlamaConfig, new: int, window: int) -> int:
    return max(min(config.window_overlap, config.window - new, window), 0)


def _kept(state: LongLlamaCache) -> Tensor:
    assert state.positions is not None
    return state.keep if state.keep is not None else torch.ones_like(state.positions, dtype=torch.bool)


def _spill_columns(state: LongLlamaCache, count: int, config: LongLlamaConfig) -> LongLlamaCache:
    """The first `count` columns leave, in every row."""
    if not count:
        return state
    assert state.positions is not None
    layers = []
    for index, layer in enumerate(state.layers):
        if index in _memory_layers(config):
            layer = layer.remembered(count, None, config.memory_dtype)
        layers.append(layer.trimmed(count))
    positions = state.positions[:, count:] if count < state.window else None
    return LongLlamaCache(layers, positions, None, state.seen)


def _spill_tokens(state: LongLlamaCache, leaving: Tensor, config: LongLlamaConfig) -> LongLlamaCache:
    """The tokens in `leaving` [B, S] leave; columns that no row needs any more are dropped from the window's start."""
    assert state.positions is not None
    staying = _kept(state) & ~leaving
    reach = int(leaving.any(dim=0).nonzero().max()) + 1 if bool(leaving.any()) else 0
    needed = staying.any(dim=0)
    trim = int(needed.nonzero().min()) if bool(needed.any()) else state.window
    layers = []
    for index, layer in enumerate(state.layers):
        if reach and index in _memory_layers(config):
            part = leaving[:, :reach]
            layer = layer.remembered(reach, None if bool(part.all()) else part, config.memory_dtype)
        layer = layer.trimmed(trim) if trim else layer
        layers.append(replace(layer, rotated=None) if layer.keys is not None else layer)
    if trim == state.window:
        return LongLlamaCache(layers, None, None, state.seen)
    keep = staying[:, trim:]
    return LongLlamaCache(layers, state.positions[:, trim:], None if bool(keep.all()) else keep, state.seen)


def _memory_layers(config: LongLlamaConfig) -> list[int] | tuple[int, ...]:
    return config.mem_layers or []


class Window(NamedTuple):
    """All tokens in the window, the new ones last.

    Attributes:
        positions: As given by the caller, [B, S].
        keep: Which are tokens rather than padding, [B, S] bool; None means all.
        relative: Positions counted from the row's first token in the window, [B, S].
        allowed: Which tokens each new one sees, [B, 1, T, S] bool; None means all up to itself.
    """

    positions: Tensor
    keep: Tensor | None
    relative: Tensor
    allowed: Tensor | None


def open_window(state: LongLlamaCache, positions: Tensor, keep: Tensor | None) -> Window:
    """The window with new tokens at `positions` [B, T] (tokens where `keep` [B, T] says so) behind those it holds."""
    every = positions if state.positions is None else torch.cat((state.positions, positions), dim=1)
    if state.keep is None and keep is None:
        return Window(every, None, every - every.min(dim=1, keepdim=True).values, None)
    new = positions.shape[1]
    here = torch.ones_like(positions, dtype=torch.bool) if keep is None else keep
    kept = here if state.positions is None else torch.cat((_kept(state), here), dim=1)
    first = every.masked_fill(~kept, torch.iinfo(every.dtype).max).min(dim=1, keepdim=True).values
    relative = (every - first).clamp_min(0).masked_fill(~kept, 0)
    order = torch.arange(every.shape[1], device=every.device)
    own = order[-new:, None]
    # padding sees itself, so that no query is left without a key
    allowed = ((order <= own) & kept[:, None, :]) | (order == own)
    return Window(every, kept, relative, allowed[:, None])
