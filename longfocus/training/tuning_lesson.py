"""Tuning with memory layers: rows that go through windows and memory as an input does, with gradients all the way.

It is LongLLaMA's instruction tuning: no negatives, only the windows of a row one after the other. There, gradient
checkpointing of the sort that torch calls reentrant lost the gradients of what memory held, so that with the released
settings memory layers never learnt which keys to write; here they arrive.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from longfocus.loading.adapters import AdapterNote
from longfocus.training.lessons import Lesson
from longfocus.training.losses import compute_loss


class TuningLesson(Lesson):
    """The language modelling loss of whole rows, read window by window.

    Args:
        student: Ours, with memory layers; or peft around it.
        note: What an adapter says of itself, saved with it.
    """

    def __init__(self, student: Any, note: AdapterNote | None = None) -> None:
        super().__init__(student)
        self.note = note
        self.model.activation_checkpointing_enable()

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        last_context_length: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The mean over all labelled places.

        Args:
            input_ids: [B, T].
            labels: [B, T], -100 where nothing is to be learnt; not shifted.
            attention_mask: [B, T], 0 for padding, which may stand anywhere and moves no border of a row's windows.
            last_context_length: How many of a row's last tokens are in its last window, []; None for what the
                configuration says.

        Returns:
            "loss".
        """
        inputs: dict[str, Any] = {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}
        if last_context_length is not None:
            inputs["last_context_length"] = int(last_context_length)
        return {"loss": compute_loss(self.student, inputs)}
