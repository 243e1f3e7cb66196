"""Ending an answer that is being written: at a stop string, or when its time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from longfocus.serving.stops import StopGate

Finish = Literal["stop", "length", "time"]
"""Why an answer ended: the model or a stop string ended it, it has all its tokens, or its time was up."""


@dataclass(frozen=True)
class Ending:
    """Where an answer ends, unless the model ends it before.

    Attributes:
        stop: Strings that end it.
        until: By `time.perf_counter`.
        trims: Whether white space around it is left out.
    """

    stop: tuple[str, ...] = ()
    until: float = math.inf
    trims: bool = True


@dataclass(frozen=True)
class Cut:
    """A stream was broken off."""

    finish: Finish


def ended(stream: Iterator[Any], ending: Ending) -> Iterator[Any]:
    """Pieces of text until they are to end; last, what came behind the last piece, or a `Cut`."""
    gate = StopGate(ending.stop, ending.trims)
    last: Any = None
    for item in stream:
        if not isinstance(item, str):
            last = item
            continue
        if text := gate.feed(item):
            yield text
        if gate.stopped or time.perf_counter() > ending.until:
            last = Cut("stop" if gate.stopped else "time")
            stream.close()  # type: ignore[attr-defined]
            break
    if rest := gate.end():
        yield rest
    yield last
