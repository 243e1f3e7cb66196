"""Cross-batch training as a lesson: the language modelling loss of windows that see each other in memory layers.

Tworkowski et al., "Focused Transformer: Contrastive Training for Context Scaling", 2023. How many rows are seen may
grow over training, as in the paper, or be drawn anew for each step. It depends on the number of the step alone, so a
run that goes on from a checkpoint goes on with it.

Shapes: B rows, S tokens of a row.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from longfocus.errors import RequestError
from longfocus.loading.adapters import AdapterNote
from longfocus.model.cache import LongLlamaCache
from longfocus.model.memory import Memory
from longfocus.training.crossbatch import CrossBatch, CrossBatchMemory, CrossDocuments
from longfocus.training.lessons import Lesson
from longfocus.training.losses import compute_loss_per_row

Seen = CrossBatch | CrossDocuments


@dataclass(frozen=True)
class Growth:
    """How much a row sees of others, step by step.

    Attributes:
        stages: From which step on it is which; of several numbers one is drawn for each step. The first stage begins at
            step 0.
        seed: Of what is drawn.

    Raises:
        RequestError: The stages are not in order, or a number makes no sense.
    """

    stages: tuple[tuple[int, tuple[int, ...]], ...]
    seed: int = 0

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.stages]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise RequestError(f"Stages of growth begin at step 0 and go up; these begin at {starts}.")
        if any(not choices or min(choices) < 0 for _, choices in self.stages):
            raise RequestError("Each stage of growth wants one number or more, from 0 on.")

    @classmethod
    def of(cls, text: str, seed: int = 0) -> Growth:
        """From stages with commas between them, each NUMBER or NUMBER@STEP.

        "1,63@450000" is 1, and 63 from step 450,000 on: the paper's longest training of small models. "2/128" is one of
        the two, drawn for each step: its fine-tuning of standard models.

        Raises:
            RequestError: The text is something else.
        """
        stages = []
        for part in text.split(","):
            found = re.fullmatch(r"\s*(\d+(?:/\d+)*)(?:@(\d+))?\s*", part)
            if found is None:
                raise RequestError(f"{text!r} says nothing about growth; wanted the like of 3, 1,7@500 or 1/7.")
            stages.append((int(found[2] or 0), tuple(int(number) for number in found[1].split("/"))))
        return cls(tuple(stages), seed)

    @property
    def largest(self) -> int:
        """The largest number of all stages."""
        return max(max(choices) for _, choices in self.stages)

    def at(self, step: int) -> int:
        """What it is at a step, from 0."""
        choices = next(choices for start, choices in reversed(self.stages) if start <= step)
        if len(choices) == 1:
            return choices[0]
        return random.Random((self.seed << 64) + step).choice(choices)  # one fresh generator a step: nothing to carry


def check_rows(seen: Callable[[int], Seen], growth: Growth, rows: int, pack: int, processes: int) -> None:
    """Refuse a batch in which no row would see as much as is asked for, or none another document where it should.

    Args:
        seen: As `FotLesson` takes it.
        growth: Likewise.
        rows: Rows of a batch, over all processes; they see only those of their own process.
        pack: Rows in a row that are one document's.
        processes: How many share the batch evenly.

    Raises:
        RequestError: A process has too few rows.
    """
    if rows % (processes * pack):
        raise RequestError(f"{rows} rows in packs of {pack} cannot be shared by {processes} processes.")
    here, most = rows // processes, growth.largest
    which = seen(most)
    shared = (
        f"{rows} rows" if processes == 1 else f"{rows} rows are {here} for each of {processes} processes, and these"
    )
    if isinstance(which, CrossBatch):
        wanted, found = f"{most} rows before it", max(which.seen(here), default=0)
        enough = most + 1
    else:
        wanted, found = f"windows of {most} documents", here // pack
        enough = most * pack
    if found < most:
        needed = -(-enough // pack) * pack * processes
        raise RequestError(
            f"No row would see {wanted}: {shared} have {found}. Give --rows {needed}, or a smaller --growth."
        )
    alone = not any(others for _, others in which.positives_and_negatives(here))
    if alone and any(others for _, others in which.positives_and_negatives(rows)):
        raise RequestError(
            f"No row would see another document: {shared} are one pack of {pack}. Give --rows {2 * pack * processes}, "
            "a smaller --pack, or start fewer processes."
        )


class FotLesson(Lesson):
    """Predict the next token of each row, where memory layers see other rows.

    Outside training, rows see `evaluated_with`: by default nothing but themselves, as in LongLLaMA's evaluation.

    Args:
        student: Ours, with memory layers; or peft around it.
        rows_seen: Which rows see which, for a number that `growth` gives: `CrossBatch` with its other fields set, say.
        growth: How much is seen at which step. The trainer has to tell the steps, see `StepTeller`.
        evaluated_with: The same for evaluation.
        within_documents: Whether a token sees those of its own document only in its row. What it sees of other rows
            stays: they are to be told apart.
        note: What an adapter says of itself, saved with it.
    """

    def __init__(
        self,
        student: Any,
        rows_seen: Callable[[int], Seen],
        growth: Growth,
        *,
        evaluated_with: int = 0,
        within_documents: bool = False,
        note: AdapterNote | None = None,
    ) -> None:
        super().__init__(student)
        self.rows_seen, self.growth = rows_seen, growth
        self.evaluated_with, self.within_documents, self.note = evaluated_with, within_documents, note
        self.step = 0

    def forward(self, input_ids: Tensor, labels: Tensor, document_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Mean over the rows of the mean loss of a row's labels, as LongLLaMA has it.

        Args:
            input_ids: [B, S].
            labels: The next tokens, [B, S], and -100 where there is none to be learnt. They are not shifted.
            document_ids: Which document each token belongs to, [B, S].

        Returns:
            "loss", and without gradient "seen": the number that `growth` gave.

        Raises:
            RequestError: A row is longer than the model's window, or the documents are to be kept apart and not given.
        """
        config = self.model.config
        length = input_ids.shape[1]
        if length > config.window:
            raise RequestError(
                f"Rows have {length} tokens, the model's window {config.window}. Make the window longer."
            )
        seen = self.growth.at(self.step) if self.training else self.evaluated_with
        memories: dict[int, Memory] = {
            layer: CrossBatchMemory(self.rows_seen(seen)) for layer in config.mem_layers or ()
        }
        inputs = {
            "input_ids": input_ids,
            "labels": labels,
            "shift_labels": labels,
            "past_key_values": LongLlamaCache.of_memories(memories, config.num_hidden_layers),
            "last_context_length": length,
        }
        if self.within_documents:
            if document_ids is None:
                raise RequestError("Documents are to be kept apart, and the data does not tell them.")
            inputs["attention_mask"] = (document_ids[:, :, None] == document_ids[:, None, :]).tril()[:, None]
        return {"loss": compute_loss_per_row(self.student, inputs), "seen": torch.tensor(float(seen))}


class StepTeller(TrainerCallback):
    """Tells a lesson the number of the step, which the trainer keeps over checkpoints."""

    def __init__(self, lesson: FotLesson) -> None:
        self._lesson = lesson

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See `TrainerCallback`."""
        self._lesson.step = state.global_step


class HeldOut:
    """The loss of batches that are not trained on, as an evaluation of a run.

    Args:
        batches: What the lesson's `forward` takes.
    """

    def __init__(self, batches: Sequence[Mapping[str, Tensor]]) -> None:
        self._batches = batches

    def __call__(self, lesson: Lesson) -> dict[str, float]:
        """Mean of the batches' losses."""
        device = next(lesson.parameters()).device
        placed = ({name: tensor.to(device) for name, tensor in batch.items()} for batch in self._batches)
        losses = [float(lesson(**batch)["loss"]) for batch in placed]
        return {"loss": sum(losses) / len(losses)}
