"""The ways of being long, and how a model of a shape goes each of them.

memory         a few layers that were trained to use it remember what left the window (LongLLaMA)
training-free  the same for a checkpoint as it is, in the layers that fetch facts; each query sees the best entries
full           every token attends to all before it (Anima 100K); nothing is kept on disk
window         the end of the document alone
retrieval      passages found by their words are put into the window, behind no document at all
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from longfocus.errors import RequestError
from longfocus.planning.shapes import Shape

MEMORY, TRAINING_FREE, FULL, WINDOW, RETRIEVAL = "memory", "training-free", "full", "window", "retrieval"
WAYS = (MEMORY, TRAINING_FREE, FULL, WINDOW, RETRIEVAL)
"""All of them, in the order in which a plan lists them."""

LONGEST_WINDOW = 1024
TOP_K = 16
LOOK_UP = 4
"""What `longfocus read` and `ask` give a checkpoint that brings no memory of its own; a test holds them together."""
PASSAGE = 40
"""Tokens of a passage that is looked up: a sentence or a line."""


@dataclass(frozen=True)
class Way:
    """How a model goes one way.

    Attributes:
        name: One of `WAYS`.
        memory_layers: Layers that remember.
        window: Most tokens that a layer attends to directly.
        staying: Tokens of a window that stay in the next, sinks included.
        look_back: Entries that memory layers look at while reading; None for all.
        top_k: Entries that each query sees when asking; None for all.
        looked_up: Tokens of passages that are put before a question.
        entry_item: Bytes of a number in memory (`mem_dtype`), whatever the model's are.
        entry_step: Bytes of the step that goes with each head of a key or a value, where numbers are packed.
    """

    name: str
    memory_layers: tuple[int, ...]
    window: int
    staying: int
    look_back: int | None = 0
    top_k: int | None = None
    looked_up: int = 0
    entry_item: int = 2
    entry_step: int = 0

    @property
    def stride(self) -> int:
        """New tokens of a full window."""
        return self.window - self.staying

    def lower_layers(self, shape: Shape) -> int:
        """Layers that run over all of a document: those up to the last with memory (longfocus/memory/late.py)."""
        return max(self.memory_layers) + 1 if self.memory_layers else shape.layers

    def late_tokens(self, shape: Shape) -> int:
        """Tokens at a document's end that the layers above run over: overlap + (U - 1) x (stride + overlap)."""
        above = shape.layers - self.lower_layers(shape)
        return self.staying + max(above - 1, 0) * self.window if above else 0

    def entries(self, tokens: int) -> int:
        """Entries of each memory layer after a document: all its tokens but those that stay in the window."""
        return max(tokens - self.staying, 0) if self.memory_layers else 0


def fetching_layers(layers: int) -> tuple[int, ...]:
    """The layers at the depth where attention fetches facts: 17 to 23 of 30, and the same share of others."""
    first = layers * 17 // 30
    return tuple(range(first, max(layers * 24 // 30, first + 1)))


def usual_way(
    shape: Shape,
    *,
    memory_layers: Sequence[int] | None = None,
    window: int | None = None,
    staying: int | None = None,
) -> Way:
    """How `longfocus read` and `longfocus ask` use a model that comes with no adapter.

    Args:
        shape: The model's.
        memory_layers: In place of its own.
        window: In place of its own.
        staying: Tokens that stay in the next window, sinks included, in place of the usual half.

    Raises:
        RequestError: Layers that it has not, or a window that does not fit.
    """
    trained = bool(shape.memory_layers)
    layers = tuple(sorted(set(memory_layers))) if memory_layers is not None else shape.memory_layers
    layers = layers or (() if memory_layers is not None else fetching_layers(shape.layers))
    if any(not 0 <= layer < shape.layers for layer in layers):
        raise RequestError(f"memory layers {list(layers)} were wanted; the model has layers 0 to {shape.layers - 1}")
    longest = shape.longest_window
    size = window or (longest if trained else min(LONGEST_WINDOW, longest))
    if not 0 < size <= longest:
        raise RequestError(f"a window of {size} tokens was wanted; the model's layers attend to {longest} at most")
    held = staying if staying is not None else 0 if trained else size // 2
    if not 0 <= held < size:
        raise RequestError(f"{held} tokens were to stay in a window of {size}; wanted 0 to {size - 1}")
    if trained:
        return Way(MEMORY, layers, size, held, look_back=None)
    return Way(TRAINING_FREE, layers, size, held, top_k=TOP_K, looked_up=min(PASSAGE * LOOK_UP, size - held))


def way_of(shape: Shape, memory: Mapping[str, Any], habits: Mapping[str, Any]) -> Way:
    """The way that a configuration of ours, or the note beside an adapter, describes.

    Args:
        shape: The model's.
        memory: The fields mem_layers, window_length, window_overlap and sink_tokens.
        habits: look_back, top_k and look_up, as `longfocus.loading.defaults.BookHabits` has them.

    Raises:
        RequestError: They make no sense.
    """
    window = memory.get("window_length") or shape.longest_window
    staying = (memory.get("window_overlap") or 0) + (memory.get("sink_tokens") or 0)
    way = usual_way(shape, memory_layers=memory.get("mem_layers") or (), window=window, staying=staying)
    top_k, look_back = habits.get("top_k"), habits.get("look_back")
    looked_up = min(PASSAGE * (habits.get("look_up") or 0), way.stride)
    name = TRAINING_FREE if top_k is not None else MEMORY
    return replace(way, name=name, look_back=look_back, top_k=top_k, looked_up=looked_up)


def full_way(shape: Shape, tokens: int) -> Way:
    """Full attention over `tokens` tokens, by transformers' own model."""
    return Way(FULL, (), tokens, 0)


def window_way(way: Way) -> Way:
    """The end of the document, as much as the window of `way` holds."""
    return replace(way, name=WINDOW, memory_layers=(), top_k=None, looked_up=0)


def retrieval_way(way: Way) -> Way:
    """Passages found by an index of words, as many as half of the window holds."""
    return replace(way, name=RETRIEVAL, memory_layers=(), top_k=None, looked_up=way.window // 2)
