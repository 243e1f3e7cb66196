"""Several processes that share an evaluation, as `accelerate launch` or `torchrun` start them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

_PATIENCE = timedelta(weeks=52)
"""How long processes wait for each other: one may have long documents to read when the others are done, and by default
they would give up within minutes."""


@dataclass(frozen=True)
class Sharing:
    """Which process this is.

    Attributes:
        process: Its number, from 0.
        processes: How many there are.
    """

    process: int = 0
    processes: int = 1

    @classmethod
    def here(cls) -> Sharing:
        """As the launcher has set this process up; one alone where there is none."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        import torch
        from accelerate import PartialState

        state = PartialState(  # told that there is no GPU, or else it would not look for other processes
            cpu=not torch.cuda.is_available(), timeout=_PATIENCE
        )
        return cls(state.process_index, state.num_processes)

    @property
    def first(self) -> bool:
        """Whether this process reports."""
        return self.process == 0

    def wait(self) -> None:
        """Until all processes have come this far."""
        if self.processes > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
