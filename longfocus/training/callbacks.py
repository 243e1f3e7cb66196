"""What happens on the way of a run besides its steps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EvaluateEvery(TrainerCallback):
    """Has the trainer evaluate after every so many steps, and after the last one.

    Args:
        steps: How many; 0 for the last one only.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """See `TrainerCallback`."""
        step = state.global_step
        if step == state.max_steps or (self._steps and step % self._steps == 0):
            control.should_evaluate = True


class OnePass(TrainerCallback):
    """Ends a run with its data; Trainer would begin the data anew, which a stream that goes on from a state cannot.

    Attributes:
        ended: Whether the data ended before the run did.
    """

    ended = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See `TrainerCallback`."""
        self.ended = not control.should_training_stop
        control.should_training_stop = True


@contextmanager
def chance_kept() -> Iterator[None]:
    """Random numbers go on afterwards as if nothing had been drawn in between."""
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
