"""How tokens leave the window: when, which, and where the rest then stand.

When new tokens would not fit, all earlier ones leave (LongLLaMA's rule), but for the `sink_tokens` first and the
`window_overlap` last ones. In memory layers they go to memory, in the others they are forgotten. In a batch each row
does so when its own tokens demand it. Shapes: B batch, S tokens in the window, T new tokens.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .cache import LongLlamaCache
from .config import LongLlamaConfig


def make_room(state: LongLlamaCache, new: int, keep: Tensor | None, config: LongLlamaConfig) -> LongLlamaCache:
    """The state in which `new` more columns (tokens where `keep` [B, new] says so) fit beside the window."""
    if not state.window:
        return state
    sinks = config.sink_tokens
    if state.keep is None and keep is None:
        if state.window + new <= config.window:
            return state
        staying = max(min(config.window_overlap, config.window - sinks - new), 0)
        return _spill_columns(state, sinks, staying, config)
    live = _kept(state)
    held = live.sum(dim=1)
    coming = torch.full_like(held, new) if keep is None else keep.sum(dim=1)
    full = (held + coming > config.window) & (coming > 0)
    if not bool(full.any()):
        return state
    last = held - (config.window - sinks - coming).clamp(0, config.window_overlap)
    rank = live.long().cumsum(dim=1)  # 1 for a row's first token
    leaving = live & full[:, None] & (rank > sinks) & (rank <= last[:, None])
    return _spill_tokens(state, leaving, config)


def spill_between(state: LongLlamaCache, config: LongLlamaConfig, rows: Tensor | bool = True) -> LongLlamaCache:
    """The state after a window: all tokens but sinks and overlap have left, in those `rows` ([B] bool, or all)."""
    return _spill_but(state, config.sink_tokens, config.window_overlap, config, rows)


def spill_but_sinks(state: LongLlamaCache, config: LongLlamaConfig) -> LongLlamaCache:
    """The state after all tokens but sinks have left the window."""
    return _spill_but(state, config.sink_tokens, 0, config, True)


def spill_all(state: LongLlamaCache, config: LongLlamaConfig) -> LongLlamaCache:
    """The state after all tokens have left the window."""
    return _spill_but(state, 0, 0, config, True)


def _spill_but(
    state: LongLlamaCache, first: int, last: int, config: LongLlamaConfig, rows: Tensor | bool
) -> LongLlamaCache:
    """The state after all tokens but the `first` and the `last` ones of each row have left."""
    if not state.window or rows is False:
        return state
    if state.keep is None and rows is True:
        return _spill_columns(state, first, last, config)
    live = _kept(state)
    rank = live.long().cumsum(dim=1)
    leaving = live & (rank > first) & (rank <= rank[:, -1:] - last)
    if isinstance(rows, Tensor):
        leaving = leaving & rows[:, None]
    return _spill_tokens(state, leaving, config)


def _kept(state: LongLlamaCache) -> Tensor:
    assert state.positions is not None
    return state.keep if state.keep is not None else torch.ones_like(state.positions, dtype=torch.bool)


def _spill_columns(state: LongLlamaCache, first: int, last: int, config: LongLlamaConfig) -> LongLlamaCache:
    """All columns but the `first` and the `last` ones leave, in every row."""
    assert state.positions is not None
    stop = state.window - last
    if stop <= first:
        return state
    state = _remember(state, first, stop, None, config)
    layers = [layer.without_columns(first, stop) for layer in state.layers]
    if not first + last:
        return LongLlamaCache(layers, None, None, state.seen)
    assert state.positions is not None
    positions = torch.cat((state.positions[:, :first], state.positions[:, stop:]), dim=1)
    return LongLlamaCache(layers, positions, None, state.seen)


def _spill_tokens(state: LongLlamaCache, leaving: Tensor, config: LongLlamaConfig) -> LongLlamaCache:
    """The tokens in `leaving` [B, S] leave; columns that no row needs any more are dropped from the window."""
    gone = leaving.any(dim=0).nonzero()
    if not len(gone):
        return state
    first, stop = int(gone.min()), int(gone.max()) + 1
    part = leaving[:, first:stop]
    state = _remember(state, first, stop, None if bool(part.all()) else part, config)
    staying = _kept(state) & ~leaving
    columns = staying.any(dim=0).nonzero()[:, 0]
    keep = staying[:, columns]
    return _with_columns(state, columns, None if bool(keep.all()) else keep)


def _remember(
    state: LongLlamaCache, first: int, stop: int, keep: Tensor | None, config: LongLlamaConfig
) -> LongLlamaCache:
    """With columns `first` to `stop` (where `keep` says so) in the memory of memory layers as well.

    A layer that was not run has nothing in the window, and so nothing to remember.
    """
    layers = [
        layer.remembered(first, stop, keep, config.memory_dtype)
        if layer.keys is not None and index in (config.mem_layers or ())
        else layer
        for index, layer in enumerate(state.layers)
    ]
    return LongLlamaCache(layers, state.positions, state.keep, state.seen)


def _with_columns(state: LongLlamaCache, columns: Tensor, keep: Tensor | None) -> LongLlamaCache:
    assert state.positions is not None
    layers = [layer.with_columns(columns) for layer in state.layers]
    if not len(columns):
        return LongLlamaCache(layers, None, None, state.seen)
    return LongLlamaCache(layers, state.positions[:, columns], keep, state.seen)


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


def open_window(state: LongLlamaCache, positions: Tensor, keep: Tensor | None, sinks: int) -> Window:
    """The window with new tokens at `positions` [B, T] (tokens where `keep` [B, T] says so) behind those it holds.

    Of each row the first `sinks` tokens stand at 0, 1, ..., as if nothing lay between them and the others.
    """
    every = positions if state.positions is None else torch.cat((state.positions, positions), dim=1)
    if state.keep is None and keep is None:
        head, rest = every[:, :sinks], every[:, sinks:]
        parts = [part - part.min(dim=1, keepdim=True).values for part in (head, rest) if part.shape[1]]
        relative = parts[0] if len(parts) == 1 else torch.cat((parts[0], parts[1] + sinks), dim=1)
        return Window(every, None, relative, None)
    new = positions.shape[1]
    here = torch.ones_like(positions, dtype=torch.bool) if keep is None else keep
    kept = here if state.positions is None else torch.cat((_kept(state), here), dim=1)
    rank = kept.long().cumsum(dim=1) - 1
    head, rest = kept & (rank < sinks), kept & (rank >= sinks)
    relative = torch.where(head, _since_first(every, head), _since_first(every, rest) + sinks).masked_fill(~kept, 0)
    order = torch.arange(every.shape[1], device=every.device)
    own = order[-new:, None]
    # padding sees itself, so that no query is left without a key
    allowed = ((order <= own) & kept[:, None, :]) | (order == own)
    return Window(every, kept, relative, allowed[:, None])


def _since_first(positions: Tensor, among: Tensor) -> Tensor:
    """Positions [B, S] counted from the smallest one in `among` [B, S]; no less than 0."""
    first = positions.masked_fill(~among, torch.iinfo(positions.dtype).max).min(dim=1, keepdim=True).values
    return (positions - first).clamp_min(0)
