"""Seconds of a job: its work at a device's rates, one part after the other."""

from __future__ import annotations

from longfocus.planning.counted import kept_keys, weights
from longfocus.planning.rates import Rates
from longfocus.planning.shapes import Shape
from longfocus.planning.ways import FULL, RETRIEVAL, Way
from longfocus.planning.work import Work, entry_bytes, full_prefill, prompt, reading

INDEX_RATE = 2e5
"""Tokens a second that an index of words takes; assumed, and little beside everything else."""


def seconds(work: Work, rates: Rates, item_bytes: int) -> float:
    """Each part of the work at its rate."""
    return (
        work.products / rates.products
        + work.attention / rates.attention
        + work.pointwise * item_bytes / rates.pointwise
        + work.written / rates.disk
        + work.calls * rates.call
    )


def reading_seconds(shape: Shape, way: Way, tokens: int, rates: Rates, item_bytes: int) -> float:
    """Until a document may be asked."""
    if way.name == FULL:
        return seconds(full_prefill(shape, tokens), rates, item_bytes)
    if way.name == RETRIEVAL:
        return tokens / INDEX_RATE
    return seconds(reading(shape, way, tokens, item_bytes), rates, item_bytes) if way.memory_layers else 0.0


def first_token_seconds(shape: Shape, way: Way, tokens: int, question: int, rates: Rates, item_bytes: int) -> float:
    """From a question to the answer's first token, in a process that has opened the document.

    With passages looked up, the question goes through once to find them and once more behind them.
    """
    entries = way.entries(tokens)
    if way.name == FULL:
        return seconds(prompt(shape, question, tokens, 0, way), rates, item_bytes)
    if not way.memory_layers:  # what is in the window is read with the question
        put = question + (way.looked_up or max(min(way.window, tokens) - question, 0))
        return seconds(prompt(shape, put, 0, 0, way), rates, item_bytes)
    whole = prompt(shape, question + way.looked_up, way.staying, entries, way)
    if way.looked_up:
        whole = whole + prompt(shape, question, way.staying, entries, way)
    return seconds(whole, rates, item_bytes)


def token_seconds(shape: Shape, way: Way, tokens: int, rates: Rates, item_bytes: int) -> float:
    """Of each further token: all weights are read once, and every key and value that it attends to.

    Where only the best entries count, values are read of these alone.
    """
    held = tokens if way.name == FULL else min(way.window, tokens)
    read = kept_keys(shape, shape.layers, held, item_bytes)
    entries = way.entries(tokens) * entry_bytes(shape, way)
    read += entries // 2 if way.top_k is not None else entries
    return weights(shape, item_bytes) / rates.weights + read / rates.entries + shape.layers * rates.call


def floor_seconds(shape: Shape, read: int, stream: float, item_bytes: int) -> float:
    """What one token takes at least on a device that reads `stream` bytes a second: weights and `read` bytes, once."""
    return (weights(shape, item_bytes) + read) / stream
