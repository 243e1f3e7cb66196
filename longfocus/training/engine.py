"""The loop: transformers' `Trainer` around a lesson, with checkpoints from which a run goes on exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from longfocus.training.lessons import Lesson

Batch = dict[str, Tensor]
_COMPLETE = "complete"


@dataclass(frozen=True)
class Run:
    """All that a training run is made of.

    Attributes:
        lesson: What a step computes, with the student.
        data: Whole batches by number, in the order in which they are taken.
        arguments: Of transformers' Trainer: where to write, how many steps, how fast.
        callbacks: More to do on the way.
    """

    lesson: Lesson
    data: Dataset[Batch]
    arguments: TrainingArguments
    callbacks: tuple[TrainerCallback, ...] = ()


class LessonTrainer(Trainer):
    """transformers' Trainer for a lesson: it saves and restores what the lesson says, and logs its other figures."""

    model: Lesson

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The lesson's loss; its other figures are averaged until the next log."""
        outputs = model(**inputs)
        for name, value in outputs.items():
            if name != "loss":
                self._figures.setdefault(name, []).append(float(value.detach()))
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As in Trainer, with the lesson's figures."""
        if "loss" in logs:
            logs |= {name: round(sum(values) / len(values), 4) for name, values in self._figures.items()}
            self._figures.clear()
        super().log(logs, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save(folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.is_world_process_zero():  # last: a process may be stopped between two files, or within one
            (Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}" / _COMPLETE).touch()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.model.restore(Path(resume_from_checkpoint))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._figures: dict[str, list[float]] = {}
        super().__init__(*args, **kwargs)


def train(run: Run, report: Callable[[str], None] | None = None) -> LessonTrainer:
    """Train, or go on from the last checkpoint in the run's folder; the student's weights are written there at the end.

    Args:
        run: What to do.
        report: Told in one line where the run begins.
    """
    trainer = LessonTrainer(
        model=run.lesson,
        args=run.arguments,
        train_dataset=run.data,
        data_collator=_only,
        callbacks=list(run.callbacks),
    )
    folder = Path(str(run.arguments.output_dir))
    last = last_checkpoint(folder)
    if report is not None:
        report(f"going on from {last}" if last else f"training in {folder}")
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    trainer.save_model()
    return trainer


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end, or None."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _only(batches: list[Batch]) -> Batch:
    """The one batch that the data set gave as one item."""
    return batches[0]
