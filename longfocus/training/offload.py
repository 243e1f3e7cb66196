"""Gradient checkpointing whose saved states wait on disk instead of in memory.

With gradient checkpointing a step keeps what each layer takes, [B, T, E], and computes the rest anew: 3.5 GB for
100,000 tokens of a model of 30 layers and 576 columns. These are written once and read once, a layer at a time and
long apart, so a disk serves.

On a GPU the place for them is the machine's memory, and transformers has that:
`model.activation_checkpointing_enable(offload=True)`, or `activation_checkpointing_kwargs` of TrainingArguments. This
is for a machine without a GPU, where that would be no gain.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from longfocus.errors import RequestError

LEAST_BYTES = 1 << 20
"""Smaller tensors stay in memory."""


@dataclass(frozen=True)
class _OnDisk:
    """A tensor in a file that has no name and goes with this object, also when the process is killed."""

    file: IO[bytes]
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor, folder: Path) -> _OnDisk:
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - it outlives this function
        left = _as_bytes(tensor.detach().cpu().contiguous()).numpy().data
        while left:  # one write may take no more than 2 GiB
            left = left[file.write(left) :]
        return cls(file, tensor.shape, tensor.dtype, tensor.device)

    def tensor(self) -> Tensor:
        tensor = torch.empty(self.shape, dtype=self.dtype)
        left = _as_bytes(tensor).numpy().data
        self.file.seek(0)
        while left:
            count = self.file.readinto(left)  # type: ignore[attr-defined] # files without a buffer have it
            if not count:
                raise OSError(f"{len(left)} bytes of a saved tensor are missing")
            left = left[count:]
        return tensor.to(self.device)


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.flatten().view(torch.uint8)


@contextmanager
def saved_on_disk(folder: Path | str, least_bytes: int = LEAST_BYTES) -> Iterator[None]:
    """What autograd saves within this context waits in `folder` for its gradient.

    Put the forward pass and the loss in it; the backward pass may come after it. The model is to have gradient
    checkpointing on (`activation_checkpointing_enable`), else every intermediate result goes to disk. Weights and
    whatever else has no gradient stay where they are. Nothing is left in the folder.

    Args:
        folder: On a real disk: where it is held in memory, as /tmp often is, nothing is gained.
        least_bytes: Tensors below this stay in memory.

    Raises:
        RequestError: The folder cannot be written to, or has no room.
    """
    folder = Path(folder)

    def pack(tensor: Tensor) -> Tensor | _OnDisk:
        is_state = tensor.requires_grad and not isinstance(tensor, nn.Parameter)
        is_state = is_state and not isinstance(tensor._base, nn.Parameter)  # a weight that was transposed
        if not is_state or tensor.nbytes < least_bytes:
            return tensor.detach()  # with its history it would hold on to what holds it, and never be freed
        try:
            return _OnDisk.of(tensor, folder)
        except OSError as error:
            raise RequestError(
                f"Cannot keep {tensor.nbytes / 1e6:.0f} MB of a training step in {folder}: "
                f"{error.strerror or error}. Name a folder on a disk with more room."
            ) from error

    def unpack(saved: Tensor | _OnDisk) -> Tensor:
        return saved.tensor() if isinstance(saved, _OnDisk) else saved

    with saved_tensors_hooks(pack, unpack):
        yield
