"""Packed batches made ahead, in worker processes, without losing count of which were given out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from longfocus.training.packing import PackedDataset
from longfocus.training.sources import Taken

_Told = tuple[dict[str, Tensor], dict[str, Any], dict[str, Taken]]


class _WithStates(IterableDataset[_Told]):
    """Each batch together with where the dataset stands after it and how much was taken of each source."""

    def __init__(self, dataset: PackedDataset) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[_Told]:
        return ((batch, self._dataset.state_dict(), self._dataset.taken()) for batch in self._dataset)


class PackedLoader(DataLoader[dict[str, Tensor]]):
    """A torch DataLoader over a `PackedDataset`, whose state is that after the last batch that was given out.

    It gives whole batches of this process and shares nothing out itself: what would prepare it for several processes
    once more (`Accelerator.prepare`) must not be run on it. A Trainer's `get_train_dataloader` can return it as it is.

    Workers take turns with batches, but each takes the whole stream, so more than one makes packing no faster; one is
    enough to have batches made while the model trains.

    Args:
        dataset: Belongs to the loader from now on.
        workers: Processes that make batches ahead; 0 makes them when they are asked for.
    """

    def __init__(self, dataset: PackedDataset, workers: int = 0) -> None:
        super().__init__(_WithStates(dataset), batch_size=None, num_workers=workers)  # type: ignore[arg-type]
        self._packed = dataset
        self._state, self._taken = dataset.state_dict(), dataset.taken()

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        if self.num_workers:
            self._packed.load_state_dict(self._state)  # what workers made ahead and nobody took is made again
        for batch, self._state, self._taken in super().__iter__():
            yield batch

    def taken(self) -> dict[str, Taken]:
        """See `PackedDataset.taken`."""
        return self._taken

    def state_dict(self) -> dict[str, Any]:
        """See `PackedDataset.state_dict`."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `PackedDataset.load_state_dict`; for loops that begin after it."""
        self._packed.load_state_dict(state)
        self._state, self._taken = state, self._packed.taken()
