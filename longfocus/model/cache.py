"""The state of a model between calls: what is still in the window, and each memory layer's memory.

A state is a value: a call returns a new one and leaves the one it was given as it was, so a state in which a document
was read once can start any number of questions. Storage is shared, nothing is copied for that.

Shapes: B batch, G key heads, S tokens in the window, N entries of memory, D head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from .growing import GrowingTensor
from .memory import DenseMemory, Memory


@dataclass(frozen=True)
class LayerState:
    """One layer's share of the state.

    Attributes:
        keys: Un-rotated keys of the window, [B, G, S, D].
        rotated: The same, rotated to their places in the window; None when they have to be rotated anew.
        values: Values of the window.
        memory: What the layer may attend to besides; None while there is nothing, and in layers without memory.
    """

    keys: GrowingTensor | None = None
    rotated: GrowingTensor | None = None
    values: GrowingTensor | None = None
    memory: Memory | None = None

    @property
    def window(self) -> int:
        """Tokens in the window, padding included."""
        return 0 if self.keys is None else len(self.keys)

    def extended(self, keys: Tensor, rotated: Tensor, values: Tensor) -> LayerState:
        """With new tokens at the end of the window."""
        if self.keys is None or self.rotated is None or self.values is None:
            made = [GrowingTensor.of(tensor, 2) for tensor in (keys, rotated, values)]
            return LayerState(made[0], made[1], made[2], self.memory)
        same = self.rotated is self.keys
        grown = self.keys.extended(keys)
        return LayerState(
            grown, grown if same else self.rotated.extended(rotated), self.values.extended(values), self.memory
        )

    def remembered(self, first: int, stop: int, keep: Tensor | None, dtype: torch.dtype) -> LayerState:
        """With columns `first` to `stop` of the window (where `keep` [B, stop - first] says so) in memory as well."""
        assert self.keys is not None and self.values is not None
        keys, values = self.keys.tensor[:, :, first:stop], self.values.tensor[:, :, first:stop]
        if self.memory is not None:
            return replace(self, memory=self.memory.append(keys, values, keep))
        copied = not torch.is_grad_enabled()  # the window's storage is not to be held on to
        memory = DenseMemory.of(keys.to(dtype, copy=copied), values.to(dtype, copy=copied), keep)
        return replace(self, memory=memory)

    def with_columns(self, columns: Tensor) -> LayerState:
        """With only these columns (indices [S']) in the window; keys must be rotated anew."""
        if self.keys is None or self.values is None or not len(columns):
            return LayerState(memory=self.memory)
        kept = [GrowingTensor.of(held.tensor.index_select(2, columns), 2) for held in (self.keys, self.values)]
        return LayerState(kept[0], None, kept[1], self.memory)

    def without_columns(self, first: int, stop: int) -> LayerState:
        """Without columns `first` to `stop` in the window; keys must be rotated anew."""
        if self.keys is None or self.values is None or stop - first == self.window:
            return LayerState(memory=self.memory)
        kept = [
            GrowingTensor.of(torch.cat((held.tensor[:, :, :first], held.tensor[:, :, stop:]), dim=2), 2)
            for held in (self.keys, self.values)
        ]
        return LayerState(kept[0], None, kept[1], self.memory)

    def selected(self, rows: Tensor) -> LayerState:
        """For a batch made of these rows."""

        def pick(held: GrowingTensor | None) -> GrowingTensor | None:
            return None if held is None else GrowingTensor.of(held.tensor[rows.to(held.tensor.device)], 2)

        keys = pick(self.keys)
        rotated = keys if self.rotated is self.keys else pick(self.rotated)
        memory = self.memory
        if memory is not None and memory.rows > 1:  # one row serves any number of questions
            memory = memory.select(rows)
        return LayerState(keys, rotated, pick(self.values), memory)


class LongLlamaCache(Cache):
    """What a model returns as `past_key_values` and takes back to go on.

    Attributes:
        layers: A `LayerState` for each layer.
        positions: Position of each token in the window, [B, S], or None while it is empty.
        keep: Which tokens of the window count, [B, S] bool; None means all.
        seen: Columns of input that the caller has handed over since the state was last without a window; `generate`
            leaves out that many when it is given a text from its start.
    """

    def __init__(
        self,
        layers: list[LayerState],
        positions: Tensor | None = None,
        keep: Tensor | None = None,
        seen: int = 0,
    ) -> None:
        super().__init__(layers=layers)  # type: ignore[arg-type]
        self.layers: list[LayerState] = layers  # type: ignore[assignment]
        self.positions = positions
        self.keep = keep
        self.seen = seen

    @classmethod
    def of_memories(cls, memories: dict[int, Memory], layers: int) -> LongLlamaCache:
        """A state with an empty window and these memories by layer, for a model of `layers` layers."""
        return cls([LayerState(memory=memories.get(layer)) for layer in range(layers)])

    @property
    def window(self) -> int:
        """Tokens in the window, padding included."""
        return 0 if self.positions is None else self.positions.shape[1]

    @property
    def memory_length(self) -> int:
        """Entries in the memory of the first layer that has one."""
        return next((len(layer.memory) for layer in self.layers if layer.memory is not None), 0)

    def live(self) -> Tensor | int:
        """Tokens in the window without padding: one number, or [B] where rows differ."""
        return self.window if self.keep is None else self.keep.sum(dim=1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many columns of the caller's input the state stands for: 0 for one that holds memory only."""
        return self.seen

    def for_rows(self, rows: Tensor) -> LongLlamaCache:
        """The state of a batch made of these rows (indices [B'], repeats allowed)."""
        positions = None if self.positions is None else self.positions[rows.to(self.positions.device)]
        keep = None if self.keep is None else self.keep[rows.to(self.keep.device)]
        return LongLlamaCache([layer.selected(rows) for layer in self.layers], positions, keep, self.seen)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Become the state of a batch made of these rows; transformers' beam search asks for it this way."""
        self.__dict__.update(self.for_rows(beam_idx).__dict__)

    def to_tuples(self) -> tuple[tuple[Tensor, ...], ...]:
        """As LongLLaMA's own code holds it.

        Returns:
            For each layer six tensors: window keys and values [B, G, S, D], window positions [B, 1, S, 1], memory keys
            and values [B, G, N, D] and a memory mask [B, 1, N, 1] (0, or the lowest number for padding). Keys are
            un-rotated; what is missing is an empty tensor.

        Raises:
            ValueError: The window has padding, which this form does not tell.
        """
        if self.keep is not None and not bool(self.keep.all()):
            raise ValueError("LongLLaMA's form of a state does not tell which tokens of the window are padding")
        empty = torch.empty((self.batch or 1, 0, 0, 0))
        states = []
        for layer in self.layers:
            local = memory = (empty, empty, empty)
            if layer.keys is not None and layer.values is not None and self.positions is not None:
                local = (layer.keys.tensor, layer.values.tensor, self.positions[:, None, :, None])
            if layer.memory is not None and len(layer.memory):
                keys, values, keep = layer.memory.entries()
                mask = torch.zeros((keys.shape[0], 1, keys.shape[2], 1), device=keys.device)
                if keep is not None:
                    mask.masked_fill_(~keep[:, None, :, None], torch.finfo(mask.dtype).min)
                memory = (keys, values, mask)
            states.append((*local, *memory))
        return tuple(states)

    @classmethod
    def from_tuples(cls, states: Any) -> LongLlamaCache:
        """Read what `to_tuples` or LongLLaMA's own code gave.

        Raises:
            ValueError: A layer's state is not made of six tensors.
        """
        layers = []
        positions = None
        for number, state in enumerate(states):
            if len(state) != 6:
                raise ValueError(f"past_key_values of layer {number} has {len(state)} tensors, expected 6")
            keys, values, places, memory_keys, memory_values, mask = state
            memory = None
            if memory_keys.shape[-2]:
                keep = (mask == 0)[:, 0, :, 0]
                memory = DenseMemory.of(memory_keys, memory_values, None if bool(keep.all()) else keep)
            if keys.shape[-2]:
                positions = places[:, 0, :, 0]
                layers.append(LayerState(GrowingTensor.of(keys, 2), None, GrowingTensor.of(values, 2), memory))
            else:
                layers.append(LayerState(memory=memory))
        return cls(layers, positions, None, 0 if positions is None else int(positions.max()) + 1)

    @property
    def batch(self) -> int | None:
        """Rows of the window; None while it is empty."""
        return None if self.positions is None else self.positions.shape[0]

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        return f"LongLlamaCache(layers={len(self.layers)}, window={self.window}, memory={self.memory_length})"

    @property
    def is_compileable(self) -> bool:
        """False: the state changes shape as it grows."""
        return False

    @property
    def is_croppable(self) -> bool:
        """False: see `crop`."""
        return False

    @property
    def is_initialized(self) -> bool:
        """True: a state comes into being by a call."""
        return True

    def crop(self, max_length: int) -> None:
        """Refused: what went to memory cannot be told from what was there before."""
        raise ValueError("a state with memory cannot be cropped; keep the earlier state instead, it stays valid")
