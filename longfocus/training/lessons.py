"""Lessons: what one step of training computes, as a module whose `forward` takes a batch and gives a loss.

The loop is transformers' `Trainer`, which wraps a lesson for several processes as it would a model; so everything that
needs gradients happens in `forward`. A lesson holds its student, and what else has to outlive a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file
from torch import Tensor, nn

from longfocus.errors import CheckpointError
from longfocus.loading.adapters import WEIGHTS, AdapterNote
from longfocus.loading.load import quiet
from longfocus.loading.weights import SAFETENSORS
from longfocus.model.modeling import LongLlamaForCausalLM
from longfocus.training.examples import IGNORED
from longfocus.training.extend import lora
from longfocus.training.long_prose import Shelf
from longfocus.training.losses import mean_of_rows
from longfocus.training.recall import Bank, banked, read_rows, recall

ATTENTION_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj"]
"""Those of attention, for `with_lora`."""
_KEPT_EVERY = 4  # of the places at a document's end, one in so many is compared: neighbours tell much the same
CONFIGURATION = "full_attention.json"
"""The configuration of a model with stretched positions, beside the adapter that was trained with them."""


class Lesson(nn.Module):
    """One way to teach.

    Attributes:
        student: The model that learns: a transformers model, or a peft model around one.
        note: What an adapter with memory says of itself, saved with it.
        splits_context: Whether the rows of a batch may be divided among processes (`longfocus.training.parallel`): the
            student attends to everything before a token and has no memory, the loss is the mean over labels, and
            `forward` also takes `position_ids` and `shift_labels`.
        whole: While it is saved, its whole `state_dict`, where weights are divided among processes.
    """

    note: AdapterNote | None = None
    splits_context: bool = False
    whole: dict[str, Tensor] | None = None

    def __init__(self, student: Any) -> None:
        super().__init__()
        self.student = student

    @property
    def model(self) -> Any:
        """The student without what peft put around it."""
        return self.student.get_base_model() if hasattr(self.student, "get_base_model") else self.student

    @property
    def _no_split_modules(self) -> list[str]:
        """The layers of which FSDP gathers the weights one by one; of a student with memory all at once.

        Gradients reach its layers through memory as well, and FSDP, which looks for them in a layer's outputs, would
        have put the weights away that they need.
        """
        return list(getattr(self.model, "_no_split_modules", None) or ()) if self.splits_context else []

    def carried(self) -> dict[str, Tensor]:
        """What a run that goes on from a checkpoint needs besides weights and optimizer; nothing, usually."""
        return {}

    def carry_on(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `carried` gave."""

    def save(self, folder: Path) -> None:
        """Write the student's weights (of a peft model the adapter's) and the note."""
        options: dict[str, Any] = {"save_embedding_layers": False} if self.has_adapter else {}
        if self.whole is not None:
            options["state_dict"] = {name.removeprefix("student."): tensor for name, tensor in self.whole.items()}
        self.student.save_pretrained(folder, **options)
        if self.note is not None:
            self.note.write(folder)

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            CheckpointError: It is missing, or of another student.
        """
        path = folder / (WEIGHTS if self.has_adapter else SAFETENSORS)
        try:
            if self.has_adapter:
                _restore_adapter(self.student, load_file(path))
            else:
                load_model(self.student, path)  # knows that tied weights are written once
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path} does not hold the weights of this student ({reason}).") from error

    def save_carried(self, folder: Path, process: int = 0) -> None:
        """Write what this process carries, if anything."""
        if tensors := self.carried():
            save_file(tensors, folder / _carried_file(process))

    def restore_carried(self, folder: Path, process: int = 0) -> None:
        """Read what `save_carried` wrote for this process."""
        path = folder / _carried_file(process)
        self.carry_on(load_file(path) if path.exists() else {})

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is what learns and is saved, rather than the model's own weights."""
        return hasattr(self.student, "peft_config")


def _restore_adapter(student: Any, weights: dict[str, Tensor]) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    wanted = get_peft_model_state_dict(student, save_embedding_layers=False).keys()
    if odd := sorted(wanted ^ weights.keys()):  # peft would pass over both kinds
        raise ValueError(f"{len(odd)} weights are in one of them only, such as {odd[0]}")
    set_peft_model_state_dict(student, weights)


def _carried_file(process: int) -> str:
    return f"carried-{process}.safetensors" if process else "carried.safetensors"


class RecallLesson(Lesson):
    """Read documents, then answer questions on them; see `recall`.

    Args:
        student: Ours, with memory layers; or peft around it.
        bank: How many entries of documents read in earlier steps are seen as well, in each memory layer.
        note: What an adapter says of itself, saved with it.
        keep: How much it counts that the student, a peft model, predicts the ends of documents, which it reads without
            memory, as it did without its adapter. Exercises in recall alone make a small model forget how to write.
        reads: Whether the student, a peft model, reads with its adapter. Otherwise documents are read as if there were
            none, without gradients, which takes a fraction of the time and room; what is read so can be asked with any
            such adapter.
        shelf: Books for the batches of prose behind a long memory.
    """

    def __init__(
        self,
        student: Any,
        bank: int = 0,
        note: AdapterNote | None = None,
        keep: float = 0.0,
        reads: bool = True,
        shelf: Shelf | None = None,
    ) -> None:
        super().__init__(student)
        self.bank_entries = bank
        self.note = note
        self.keep = keep
        self._reads = reads
        self._shelf = shelf
        self._bank: Bank = {}

    def forward(
        self,
        documents: Tensor,
        asked: Tensor,
        labels: Tensor,
        crowded: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Mean over the rows of the mean loss of a row's answers; other arguments are those of `recall`.

        A row of many answers, or of a whole page to be continued, weighs no more than one with a single number.

        Args:
            documents: See `recall`.
            asked: See there.
            labels: See there.
            crowded: Which rows go to the bank, as the best negatives, [B] bool; None for all.
            seen: Stretches of the shelf's Books that each row sees, [B, P, 3] (see `Shelf.entries`), instead of the
                other rows and the bank.

        Returns:
            "loss", and without gradient "accuracy": the share of the answers' tokens that were the likeliest; and
            "strayed": the divergence, in nats a token, of what it predicts at the documents' ends from what it did.
        """
        if seen is not None:
            return self._behind(documents, asked, labels, seen)
        model: LongLlamaForCausalLM = self.model
        reading = nullcontext if self._reads else self._without_adapter
        found = recall(model, documents, asked, labels, self._bank or None, reading)
        if self.bank_entries and self.training:
            chosen = None if crowded is None else crowded.nonzero()[:, 0]
            if chosen is None or len(chosen):
                self._bank = banked(found.state, self._bank or None, self.bank_entries, chosen)
        loss = mean_of_rows(found.losses, labels[:, 1:] != IGNORED)
        figures = {"accuracy": found.hits.float().mean()}
        if self.keep:
            strayed = self._strayed(documents, found.endings)
            loss = loss + self.keep * strayed
            figures["strayed"] = strayed.detach()
        return {"loss": loss, **figures}

    def _behind(self, documents: Tensor, asked: Tensor, labels: Tensor, seen: Tensor) -> dict[str, Tensor]:
        assert self._shelf is not None, "prose behind a long memory wants a shelf"
        losses, hits = [], []
        for row, stretches in enumerate(seen):
            here = slice(row, row + 1)
            bank = self._shelf.entries(stretches)
            found = recall(self.model, documents[here], asked[here], labels[here], bank, self._without_adapter)
            losses.append(found.losses.mean())
            hits.append(found.hits.float().mean())
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(hits).mean()}

    @contextmanager
    def _without_adapter(self) -> Iterator[None]:
        with torch.no_grad(), self.student.disable_adapter():
            yield

    def _strayed(self, documents: Tensor, endings: Tensor) -> Tensor:
        """The divergence of what is predicted at the documents' ends from what was, in nats a token."""
        model: LongLlamaForCausalLM = self.model
        # What stands a window before the last one makes next to no difference to a model without memory, but for the
        # first tokens, which never leave the window.
        stride, sinks = model.config.stride, model.config.sink_tokens
        ends = documents[:, -(endings.shape[1] + -(-model.config.window // stride) * stride) :]
        ends = torch.cat((documents[:, :sinks], ends[:, sinks:]), dim=1)
        with self._without_adapter():
            before = model.lm_head(read_rows(model.model, ends)[1][:, ::_KEPT_EVERY]).float().log_softmax(-1)
        now = model.lm_head(endings[:, ::_KEPT_EVERY]).float().log_softmax(-1)
        return F.kl_div(now.flatten(0, 1), before.flatten(0, 1), log_target=True, reduction="batchmean")

    def carried(self) -> dict[str, Tensor]:
        """See `Lesson.carried`: the bank."""
        names = ("keys", "values")
        return {
            f"{layer}.{name}": held
            for layer, pair in self._bank.items()
            for name, held in zip(names, pair, strict=True)
        }

    def carry_on(self, tensors: dict[str, Tensor]) -> None:
        """See `Lesson.carry_on`."""
        layers = sorted({int(name.partition(".")[0]) for name in tensors})
        self._bank = {layer: (tensors[f"{layer}.keys"], tensors[f"{layer}.values"]) for layer in layers}


def with_lora(model: LongLlamaForCausalLM, rank: int, targets: list[str], first_layer: int = 0) -> Any:
    """The model with a LoRA adapter on these projections of the layers from `first_layer` on; the rest is frozen.

    The adapter's weights are float32, whatever the model's are, so that small steps are not lost.
    """
    from peft import get_peft_model

    config = lora(
        rank,
        rank,
        target_modules=targets,
        layers_to_transform=list(range(first_layer, model.config.num_hidden_layers)),
        layers_pattern="layers",
    )
    with quiet():
        student = get_peft_model(model, config)
    for parameter in student.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return student
