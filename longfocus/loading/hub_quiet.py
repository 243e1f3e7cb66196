"""Keep the Hugging Face hub's client off the terminal; what went wrong is told in our own words."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def hub_quiet() -> Iterator[None]:
    """Keep the hub client's bars and its advice on retries and tokens off the terminal."""
    # imported here: a default model that is in the cache needs no client
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, bars = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()
