"""Several processes that share an evaluation, as `accelerate launch` or `torchrun` start them."""

from __future__ import annotations

import os
from dataclasses import dataclass


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

        state = PartialState(cpu=not torch.cuda.is_available())  # or else it would not look for others without a GPU
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
