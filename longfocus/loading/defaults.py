"""How a checkpoint that was never trained to use memory gets one: the one place where those choices are made.

A LongLLaMA checkpoint brings its own fields and is not touched by this. Everything here may be overridden for a
single model by the arguments of `longfocus.load`.
"""

from typing import Any

from longfocus.model.config import LongLlamaConfig

LONGEST_WINDOW = 1024
"""Most tokens in the window of a model that was not trained to use memory, unless another window is asked for."""


def training_free(config: LongLlamaConfig, window: int | None = None) -> dict[str, Any]:
    """Return the memory fields for a checkpoint without any: mem_layers, window_length and what goes with them.

    `window` is the window's length in tokens where the user chose it. Half of the window stays in the next one, so
    that what is in memory lies at a distance that the model knows; the last half is kept for the end of an input.
    """
    window = window or min(LONGEST_WINDOW, config.window)
    overlap = window // 2
    return {
        "mem_layers": list(range(config.num_hidden_layers)),
        "window_length": window,
        "window_overlap": overlap,
        # What ends an input stands in one window with as much of what came before as the overlap says.
        "last_context_length": window - overlap,
    }
