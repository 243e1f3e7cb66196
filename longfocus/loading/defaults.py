"""How a checkpoint that was never trained to use memory gets one: the one place where those choices are made.

A LongLLaMA checkpoint brings its own fields and is not touched by this. Everything here may be overridden for a
single model by the arguments of `longfocus.load`.
"""

from dataclasses import dataclass, replace
from typing import Any

from longfocus.loading.profiles import Profile
from longfocus.model.config import LongLlamaConfig
from longfocus.planning.ways import fetching_layers

LONGEST_WINDOW = 1024
"""Most tokens in the window of a model that was not trained to use memory, unless another window is asked for."""

SINK_TOKENS = 4
"""First tokens that such a model keeps in its window; without them perplexity rises by half (docs/log.md)."""


MEM_DISCOUNT = 0.5
"""A memory as long as many windows would drown the window of a model that was not trained with one (docs/log.md)."""


@dataclass(frozen=True)
class BookHabits:
    """How a model best reads and asks a Book.

    Attributes:
        look_back: Entries of memory that it looks back at while reading; None for all.
        top_k: Entries of memory that each query sees when asking; None for all.
        look_up: How many passages are looked up for a question, and put before it, unless asked otherwise.
    """

    look_back: int | None
    top_k: int | None
    look_up: int = 0


TRAINED = BookHabits(look_back=None, top_k=None)
"""A model that was trained to use memory does at all times as in training."""

UNTRAINED = BookHabits(look_back=0, top_k=16, look_up=4)
"""One that was not reads better without memory, and asks better with few entries than with all (docs/log.md)."""


def untrained(profile: Profile | None) -> BookHabits:
    """How a model that was not trained to use memory reads and asks, with what is known of it."""
    return UNTRAINED if profile is None else replace(UNTRAINED, top_k=profile.top_k)


def training_free(config: LongLlamaConfig, window: int | None = None, profile: Profile | None = None) -> dict[str, Any]:
    """Return the memory fields for a checkpoint without any: mem_layers, window_length and what goes with them.

    A profile says what was found for the model, or for all of its shape, as one that is shipped does for the default
    model's. Without one, memory goes to the layers at the depth where attention was first found to fetch facts: 17 to
    23 of 30, and the same share of others.

    `window` is the window's length in tokens where the user chose it. Half of it, or the share that the profile says,
    stays in the next one, sinks included, so that new tokens and earlier ones come in equal blocks of a size that
    attention kernels like (of 512 tokens by default; 508 take as long as 700).
    """
    if profile is None:
        window = window or min(LONGEST_WINDOW, config.window)
        layers, staying = fetching_layers(config.num_hidden_layers), window // 2
    else:
        window = window or min(profile.window, config.window)
        layers = profile.memory_layers
        staying = window * (profile.overlap + profile.sinks) // profile.window
    sinks = min(SINK_TOKENS if profile is None else profile.sinks, staying // 2)
    return {
        "mem_layers": list(layers),
        "window_length": window,
        "window_overlap": staying - sinks,
        "sink_tokens": sinks,
        "mem_discount": MEM_DISCOUNT,
        # What ends an input stands in one window with as much of what came before as the overlap says.
        "last_context_length": window - staying,
    }
