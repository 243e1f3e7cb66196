"""Reading with the layers above the last memory layer left for later.

Of what these upper layers compute while a document is read, nothing is kept but what stands in their window at its
end. So each window goes through the lower layers only, and what the upper ones would take of it waits, for as many
windows as can still matter; at the end the upper layers run over those. The state is then exactly the one that running
all layers over everything gives:

A token's key in the first upper layer depends on nothing but what that layer takes. In the layer above it depends on
what the one below gives, whose queries look back to the overlap before their window, so by one stride and one overlap
further; and so on up. The first tokens, which never leave the window (`sink_tokens`), are run when their windows drop
out of those that wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from longfocus.model.cache import LayerState, LongLlamaCache
from longfocus.model.config import LongLlamaConfig
from longfocus.model.memory import Memory
from longfocus.model.modeling import LongLlamaModel
from longfocus.model.spill import spill_between, spill_but_sinks


class Waiting(NamedTuple):
    """What the first upper layer takes of one window.

    Attributes:
        start: How many tokens were read before.
        states: [B, T, E].
    """

    start: int
    states: Tensor


@dataclass(frozen=True)
class LateState:
    """The state of a model in the middle of a document, or of a batch of documents of one length.

    Attributes:
        tokens: Tokens read so far.
        lower: The state in which the lower layers are; the upper ones have nothing in it.
        upper: The state of the upper layers before the first window that waits: no more than the sinks. The lower
            ones have nothing in it.
        waiting: The windows that the upper layers have yet to run over, in order.
    """

    tokens: int
    lower: LongLlamaCache
    upper: LongLlamaCache
    waiting: tuple[Waiting, ...]

    @classmethod
    def start(cls, config: LongLlamaConfig, memories: dict[int, Memory] | None = None) -> LateState:
        """Before the first token; `memories` by layer take what leaves the window."""
        layers = config.num_hidden_layers
        return cls(0, LongLlamaCache.of_memories(memories or {}, layers), LongLlamaCache.of_memories({}, layers), ())


def lower_layers(config: LongLlamaConfig) -> range:
    """The layers up to the last one with memory; all of them where none has."""
    return range(max(config.mem_layers) + 1 if config.mem_layers else config.num_hidden_layers)


def read_window(model: LongLlamaModel, ids: Tensor, state: LateState, matter: int | None = None) -> LateState:
    """Read one more window.

    Args:
        model: The model.
        ids: The window's tokens, [B, T], no more than `stride` of them; fewer in the last window only.
        state: The state before; it stays valid.
        matter: Over how many of the last tokens the upper layers are to run at the end; None for as many as it takes
            to make no difference.
    """
    config = model.config
    lower = lower_layers(config)
    states = model.embed_tokens(ids)
    states, after, _, _ = model.run_window(states, _positions(state.tokens, states), state.lower, layers=lower)
    waiting = state.waiting
    if len(lower) < config.num_hidden_layers:
        waiting = (*waiting, Waiting(state.tokens, states))
    done = LateState(state.tokens + ids.shape[1], spill_between(after, config), state.upper, waiting)
    return _dropped(model, done, tokens_that_matter(config) if matter is None else matter)


def whole_state(model: LongLlamaModel, state: LateState) -> LongLlamaCache:
    """The state of all layers, as if none had been left for later."""
    return whole_state_and_last(model, state)[0]


def whole_state_and_last(model: LongLlamaModel, state: LateState) -> tuple[LongLlamaCache, Tensor | None]:
    """See `whole_state`; with what the last layer gives for the last window, [B, T, E], where any layer had to wait."""
    lower = lower_layers(model.config)
    upper, last = state.upper, None
    for window in state.waiting:
        last, after = _run_upper(model, window, upper)
        upper = spill_between(after, model.config)
    layers: list[LayerState] = [*state.lower.layers[: len(lower)], *upper.layers[len(lower) :]]
    return LongLlamaCache(layers, state.lower.positions), last


def tokens_that_matter(config: LongLlamaConfig) -> int:
    """How many of the last tokens the upper layers have to run over."""
    levels = config.num_hidden_layers - len(lower_layers(config))
    return config.window_overlap + (levels - 1) * (config.stride + config.window_overlap)


def _dropped(model: LongLlamaModel, state: LateState, matter: int) -> LateState:
    """Without the windows before the last `matter` tokens."""
    upper, waiting = state.upper, state.waiting
    while len(waiting) > 1 and state.tokens - waiting[1].start >= matter:
        if upper.window < model.config.sink_tokens:
            upper = spill_but_sinks(_run_upper(model, waiting[0], upper)[1], model.config)
        waiting = waiting[1:]
    return LateState(state.tokens, state.lower, upper, waiting)


def _run_upper(model: LongLlamaModel, window: Waiting, upper: LongLlamaCache) -> tuple[Tensor, LongLlamaCache]:
    layers = range(len(lower_layers(model.config)), model.config.num_hidden_layers)
    return model.run_window(window.states, _positions(window.start, window.states), upper, layers=layers)[:2]


def _positions(start: int, states: Tensor) -> Tensor:
    places = torch.arange(start, start + states.shape[1], device=states.device)
    return places.expand(states.shape[0], -1)
