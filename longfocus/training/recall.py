"""Read, then ask: training a model on answers that lie in what it read, as `read` and `ask` will use it.

The rows of a batch are documents of one length, each with questions. All are read window by window without memory, as
reading does, with gradients; then every row is asked, and its queries see the entries of all rows: those of its own
document (positives) and those of the others (negatives). It is the Focused Transformer's contrast (Tworkowski et al.,
2023, section 3: a row attends to earlier contexts of its own and of other documents) for models that read without
memory, with the windows, the overlap and the sinks of inference.

Shapes: B rows, N tokens of a document, T of the questions and answers, G key heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from longfocus.memory.late import LateState, read_window, whole_state_and_last
from longfocus.model.attend import Part
from longfocus.model.cache import LayerState, LongLlamaCache
from longfocus.model.memory import DenseMemory, Entries, Memory
from longfocus.model.modeling import LongLlamaForCausalLM, LongLlamaModel
from longfocus.training.examples import IGNORED


class UnseenMemory(Memory):
    """Takes what leaves the window and shows none of it: what memory layers have while a document is read.

    Args:
        pieces: Keys and values, [B, G, n, D] each, in order.
    """

    def __init__(self, pieces: tuple[tuple[Tensor, Tensor], ...] = ()) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return 0

    @property
    def rows(self) -> int:
        """See `Memory.rows`."""
        return 1

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> UnseenMemory:
        """See `Memory.append`."""
        if keep is not None:
            raise ValueError("the rows of a batch that is read have one length and no padding")
        return UnseenMemory((*self.pieces, (keys, values)))

    def attend(self, query: Tensor, scale: float) -> Part:
        """See `Memory.attend`; there is nothing to see."""
        return torch.zeros_like(query), query.new_full(query.shape[:3], float("-inf"), dtype=torch.float32)

    def entries(self) -> Entries:
        """All that was taken, [B, G, N, D].

        Raises:
            ValueError: Nothing was.
        """
        if not self.pieces:
            raise ValueError("nothing has left the window yet")
        keys, values = zip(*self.pieces, strict=True)
        return Entries(torch.cat(keys, dim=2), torch.cat(values, dim=2), None)

    def select(self, rows: Tensor) -> UnseenMemory:
        """See `Memory.select`."""
        return UnseenMemory(tuple((keys[rows], values[rows]) for keys, values in self.pieces))


Bank = dict[int, tuple[Tensor, Tensor]]
"""Entries of documents read before, by layer, [1, G, N', D] each, without gradients: more negatives. On any device."""


def read_rows(model: LongLlamaModel, ids: Tensor) -> tuple[LongLlamaCache, Tensor]:
    """The state after reading documents [B, N], whose memories have taken everything and show nothing.

    The layers above the last memory layer run over the first window, for the sinks, and over two windows' length at
    the end. Inference runs them over some more, which makes a small difference to what they have in their window; no
    gradient is worth following that far.

    Returns:
        The state; and the last hidden states of the last window, [B, T, E].

    Raises:
        ValueError: The last layer has memory.
    """
    config = model.config
    state = LateState.start(config, {layer: UnseenMemory() for layer in config.mem_layers or ()})
    for piece in ids.split(config.stride, dim=1):
        state = read_window(model, piece, state, matter=config.window)
    whole, last = whole_state_and_last(model, state)
    if last is None:
        raise ValueError("a model whose last layer has memory cannot be trained this way; choose a lower one")
    return whole, model.norm(last)


def with_all_rows(state: LongLlamaCache, bank: Bank | None = None) -> LongLlamaCache:
    """The state in which every row sees what all rows read, and what is in the bank."""
    layers = list(state.layers)
    for index, layer in enumerate(layers):
        if not isinstance(layer.memory, UnseenMemory):
            continue
        parts = [[_one_row(held) for held in pair] for pair in layer.memory.pieces] + _of_bank(bank, index, layer)
        keys, values = ([part[which] for part in parts] for which in (0, 1))
        memory = DenseMemory.of(torch.cat(keys, dim=2), torch.cat(values, dim=2)) if parts else None
        layers[index] = replace(layer, memory=memory)
    return LongLlamaCache(layers, state.positions)


def banked(state: LongLlamaCache, bank: Bank | None, most: int, rows: Tensor | None = None) -> Bank:
    """The bank with what this state read put first, cut to `most` entries.

    Args:
        state: After reading.
        bank: As it was.
        most: Entries to keep.
        rows: Whose documents go into it, as indices; None for all.

    Raises:
        ValueError: Nothing has left the window yet.
    """
    found: Bank = {}
    for index, layer in enumerate(state.layers):
        if isinstance(layer.memory, UnseenMemory):
            chosen = layer.memory if rows is None else layer.memory.select(rows)
            parts = [[_one_row(held.detach()) for held in pair] for pair in chosen.pieces]
            parts += _of_bank(bank, index, layer)
            keys, values = (torch.cat([part[which] for part in parts], dim=2)[:, :, :most] for which in (0, 1))
            found[index] = (keys.clone(), values.clone())
    return found


def _of_bank(bank: Bank | None, index: int, layer: LayerState) -> list[list[Tensor]]:
    """The bank's keys and values for a layer, if any, on the device of its window: from a file they come on the CPU."""
    if not bank:
        return []
    device = None if layer.keys is None else layer.keys.tensor.device
    return [[held.to(device) for held in bank[index]]]


def _one_row(held: Tensor) -> Tensor:
    """[B, G, N, D] as [1, G, B * N, D]."""
    return held.transpose(0, 1).reshape(1, held.shape[1], -1, held.shape[3])


class Recall(NamedTuple):
    """What a batch gave.

    Attributes:
        losses: Negative log-likelihood of each token of the answers, [answers' tokens].
        hits: Whether it was the likeliest, likewise.
        state: After reading, for `banked`.
        endings: Last hidden states of the documents' last window, [B, T', E].
    """

    losses: Tensor
    hits: Tensor
    state: LongLlamaCache
    endings: Tensor


def recall(
    model: LongLlamaForCausalLM,
    documents: Tensor,
    asked: Tensor,
    labels: Tensor,
    bank: Bank | None = None,
    reading: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Recall:
    """Read documents and answer questions on them.

    Args:
        model: The model, with memory layers.
        documents: Token ids [B, N], no padding.
        asked: Questions and answers as they follow a document, [B, T], padded at the right with any token.
        labels: The same where a token is to be predicted, -100 elsewhere; not shifted.
        bank: More negatives.
        reading: What documents are read under, such as one that takes no gradients.

    Raises:
        ValueError: The questions and answers do not fit the window beside the end of the document.
    """
    config = model.config
    if asked.shape[1] > config.stride:
        raise ValueError(f"questions and answers have {asked.shape[1]} tokens, the window has room for {config.stride}")
    with reading():
        state, endings = read_rows(model.model, documents)
    places = torch.arange(asked.shape[1], device=asked.device) + documents.shape[1]
    # padding stands at the right, where no token looks at it
    states = model.model.run_window(
        model.model.embed_tokens(asked), places.expand(len(asked), -1), with_all_rows(state, bank)
    )[0]
    wanted = labels[:, 1:]
    counts = wanted != IGNORED
    logits = model.lm_head(states[:, :-1][counts]).float()
    losses = F.cross_entropy(logits, wanted[counts], reduction="none")
    return Recall(losses, logits.argmax(-1) == wanted[counts], state, endings)
