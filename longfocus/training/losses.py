"""The language modelling loss without the logits of a whole sequence.

Logits are the widest thing that training makes: 100,000 places of a vocabulary of 49,152 are 19.7 GB in float32, and
their gradient as much again. Here places without a label get none, and those of the others exist a piece at a time;
the piece is computed anew for its gradient. The head is run as the module that it is, so it may be frozen, trained,
tied to the embeddings, adapted or quantised, and the numbers are those of transformers' own loss.

torch has `linear_cross_entropy` for the same end. Summed over bfloat16 states in pieces it gives a bfloat16 loss, off
by 4 % at 8,192 places; without a sum it is exact and slower than this; and it takes no head but a plain matrix.

The loss is taken inside the model's own `forward`, so that what wraps a model (peft, autocast, data parallel training)
does its part. Shapes: B batch, L tokens, N places that have a label, E hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from longfocus.errors import RequestError
from longfocus.training.examples import IGNORED

_LOGITS_AT_ONCE = 20_000_000


def compute_loss(model: nn.Module, inputs: Mapping[str, Any], num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """The mean cross-entropy of all labels, as transformers has it.

    Args:
        model: A causal language model of transformers or ours, bare or wrapped.
        inputs: What its `forward` takes, with `labels` [B, L]. `labels` may stay where they are: each place is compared
            with the label after it. `shift_labels` [B, L], if given, count instead, each at its own place.
        num_items_in_batch: Divides the sum in place of the number of labels; transformers' Trainer gives the number of
            all labels that one step of the optimizer sees.

    Returns:
        A scalar in float32. Without any label it is 0, with gradients of 0.

    Raises:
        RequestError: There are no labels, or the model is none that this can be done to.
    """
    return _loss_inside(model, inputs, partial(_mean_of_labels, items=num_items_in_batch))


def compute_loss_per_row(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """The mean over rows of each row's mean cross-entropy, as LongLLaMA's pre-training has it.

    It differs from `compute_loss` where rows have unequal numbers of labels: there a row counts by its labels, here
    all rows count alike, and one without labels counts as 0. Arguments, result and errors are those of `compute_loss`.
    """
    return _loss_inside(model, inputs, mean_of_rows)


def cross_entropies(head: Callable[[Tensor], Tensor], states: Tensor, labels: Tensor, *, places_at_once: int) -> Tensor:
    """Cross-entropy of each place.

    Args:
        head: Gives logits [n, V] for states [n, E].
        states: [N, E].
        labels: [N], each below V.
        places_at_once: How many places have logits at the same time.

    Returns:
        [N] in float32.
    """
    if len(labels) <= places_at_once:
        return _cross_entropies(head, states, labels)
    pieces = []
    for some, theirs in zip(states.split(places_at_once), labels.split(places_at_once), strict=True):
        if torch.is_grad_enabled():
            pieces.append(checkpoint(_cross_entropies, head, some, theirs, use_reentrant=False))
        else:
            pieces.append(_cross_entropies(head, some, theirs))
    return torch.cat(pieces)


def _cross_entropies(head: Callable[[Tensor], Tensor], states: Tensor, labels: Tensor) -> Tensor:
    logits = head(states).float()
    return F.cross_entropy(logits, labels.to(logits.device), reduction="none")


def _mean_of_labels(losses: Tensor, labelled: Tensor, items: Tensor | int | None) -> Tensor:
    """Of the losses [N] of the places that are true in `labelled` [B, L]."""
    if items is None:
        items = max(len(losses), 1)
    return losses.sum() / (items.to(losses.device) if isinstance(items, Tensor) else items)


def mean_of_rows(losses: Tensor, labelled: Tensor) -> Tensor:
    """The mean over rows of each row's mean loss; a row without any counts as 0.

    Args:
        losses: [N], of the places that are true in `labelled`, row after row.
        labelled: [B, L] bool.
    """
    counts = labelled.sum(dim=1)
    rows = torch.arange(len(counts), device=losses.device).repeat_interleave(counts.to(losses.device))
    sums = losses.new_zeros(len(counts)).index_add(0, rows, losses)
    return (sums / counts.to(losses.device).clamp_min(1)).mean()


def _loss_inside(model: nn.Module, inputs: Mapping[str, Any], reduce: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Run `model` on `inputs` with its head and its loss put together; `reduce` makes one number of all."""
    if inputs.get("labels") is None:
        raise RequestError("A loss needs labels, and the inputs have none. Give labels of the shape of input_ids.")
    if isinstance(model, nn.DataParallel):
        raise RequestError(
            "The loss cannot be computed in copies of a model (DataParallel). Start one process for each GPU "
            "(accelerate launch, torchrun), or show the process one GPU only (CUDA_VISIBLE_DEVICES=0)."
        )
    bare = next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)
    head = None if bare is None else bare.get_output_embeddings()
    if bare is None or head is None:
        raise RequestError(f"A loss needs a causal language model of transformers; this is a {type(model).__name__}.")

    def loss_function(
        logits: Tensor, labels: Tensor, vocab_size: int, shift_labels: Tensor | None = None, **_: Any
    ) -> Tensor:
        targets = F.pad(labels, (0, 1), value=IGNORED)[:, 1:] if shift_labels is None else shift_labels
        targets = targets.to(logits.device)  # [B, L]; the "logits" are states [B, L, E], as the head is taken out
        labelled = targets != IGNORED
        places = max(1, _LOGITS_AT_ONCE // vocab_size)
        return reduce(cross_entropies(head, logits[labelled], targets[labelled], places_at_once=places), labelled)

    with _headless(bare, head, loss_function):
        loss: Tensor = model(**{"use_cache": False, **inputs, "return_dict": True}).loss
    return loss


@contextmanager
def _headless(bare: PreTrainedModel, head: nn.Module, loss_function: Callable[..., Tensor]) -> Iterator[None]:
    """`bare` with states in place of logits and another loss; afterwards it is as it was."""
    before = vars(bare).get("_loss_function")
    bare.set_output_embeddings(nn.Identity())
    bare.loss_function = loss_function
    try:
        yield
    finally:
        bare.set_output_embeddings(head)
        if before is None:
            del bare._loss_function
        else:
            bare.loss_function = before
