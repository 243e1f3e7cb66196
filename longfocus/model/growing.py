"""Tensors that grow at the end, cheaply and without surprising anyone who still holds an earlier version."""

from __future__ import annotations

import torch
from torch import Tensor


class _Storage:
    """Room for more entries than are in use, shared by the versions of a growing tensor."""

    def __init__(self, tensor: Tensor, filled: int) -> None:
        self.tensor = tensor
        self.filled = filled


class GrowingTensor:
    """A tensor with entries along one dimension, to which `extended` adds.

    Versions share storage: the newest one is extended in place while there is room, an older one is copied first. So
    every version keeps its contents for ever, and growing by one entry costs one entry. With gradients enabled nothing
    is written in place.
    """

    def __init__(self, storage: _Storage, length: int, dim: int) -> None:
        self._storage = storage
        self._length = length
        self._dim = dim

    @classmethod
    def of(cls, tensor: Tensor, dim: int) -> GrowingTensor:
        """Wrap `tensor`, whose entries lie along `dim`; the tensor itself is never written to."""
        return cls(_Storage(tensor, tensor.shape[dim]), tensor.shape[dim], dim)

    def __len__(self) -> int:
        return self._length

    @property
    def tensor(self) -> Tensor:
        """This version's entries, as a view."""
        return self._storage.tensor.narrow(self._dim, 0, self._length)

    def extended(self, new: Tensor) -> GrowingTensor:
        """This version with `new` behind it."""
        added = new.shape[self._dim]
        length = self._length + added
        if torch.is_grad_enabled():
            return GrowingTensor.of(torch.cat((self.tensor, new), dim=self._dim), self._dim)
        storage = self._storage
        if storage.filled != self._length or length > storage.tensor.shape[self._dim]:
            storage = self._with_room(length)
        storage.tensor.narrow(self._dim, self._length, added).copy_(new)
        storage.filled = length
        return GrowingTensor(storage, length, self._dim)

    def _with_room(self, length: int) -> _Storage:
        shape = list(self._storage.tensor.shape)
        shape[self._dim] = max(length + length // 2, 64)  # room that is not used yet costs no resident memory
        with torch.inference_mode(False):  # else it could not be written to outside of inference mode
            tensor = torch.empty(shape, dtype=self._storage.tensor.dtype, device=self._storage.tensor.device)
        tensor.narrow(self._dim, 0, self._length).copy_(self.tensor)
        return _Storage(tensor, self._length)
