"""Lessons: what one step of training computes, as a module whose `forward` takes a batch and gives a loss.

The loop is transformers' `Trainer`, which wraps a lesson for several processes as it would a model; so everything that
needs gradients happens in `forward`. A lesson holds its student, and what else has to outlive a step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from longfocus.loading.adapters import AdapterNote
from longfocus.model.modeling import LongLlamaForCausalLM
from longfocus.training.extend import lora
from longfocus.training.recall import Bank, banked, recall


class Lesson(nn.Module):
    """One way to teach.

    Attributes:
        student: The model that learns: a transformers model, or a peft model around one.
    """

    def __init__(self, student: Any) -> None:
        super().__init__()
        self.student = student

    @property
    def model(self) -> Any:
        """The student without what peft put around it."""
        return self.student.get_base_model() if hasattr(self.student, "get_base_model") else self.student

    def carried(self) -> dict[str, Tensor]:
        """What a run that goes on from a checkpoint needs besides weights and optimizer; nothing, usually."""
        return {}

    def carry_on(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `carried` gave."""

    def save(self, folder: Path) -> None:
        """Write the student's weights (of a peft model the adapter's), and what is carried."""
        extra = {"save_embedding_layers": False} if hasattr(self.student, "peft_config") else {}
        self.student.save_pretrained(folder, **extra)
        if tensors := self.carried():
            save_file(tensors, folder / _CARRIED)

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote."""
        peft = hasattr(self.student, "peft_config")
        weights = load_file(folder / ("adapter_model.safetensors" if peft else "model.safetensors"))
        if peft:
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(self.student, weights)
        else:
            self.student.load_state_dict(weights, strict=False)  # tied weights are written once
        self.carry_on(load_file(folder / _CARRIED) if (folder / _CARRIED).exists() else {})


_CARRIED = "carried.safetensors"


class RecallLesson(Lesson):
    """Read documents, then answer questions on them; see `recall`.

    Args:
        student: Ours, with memory layers; or peft around it.
        bank: How many entries of documents read in earlier steps are seen as well, in each memory layer.
        note: What an adapter says of itself, saved with it.
    """

    def __init__(self, student: Any, bank: int = 0, note: AdapterNote | None = None) -> None:
        super().__init__(student)
        self.bank_entries = bank
        self.note = note
        self._bank: Bank = {}

    def forward(self, documents: Tensor, asked: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the rows of the mean loss of a row's answers; the arguments are those of `recall`.

        A row of many answers, or of a whole page to be continued, weighs no more than one with a single number.

        Returns:
            "loss", and without gradient "accuracy": the share of the answers' tokens that were the likeliest.
        """
        model: LongLlamaForCausalLM = self.model
        found = recall(model, documents, asked, labels, self._bank or None)
        if self.bank_entries and self.training:
            self._bank = banked(found.state, self._bank or None, self.bank_entries)
        counts = torch.bincount(found.rows, minlength=len(documents)).clamp_min(1)
        loss = (found.losses / counts[found.rows]).sum() / len(documents)
        return {"loss": loss, "accuracy": found.hits.float().mean()}

    def save(self, folder: Path) -> None:
        """See `Lesson.save`; with the note."""
        super().save(folder)
        if self.note is not None:
            self.note.write(folder)

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
    student = get_peft_model(model, config)
    for parameter in student.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return student
