"""The loop: transformers' `Trainer` around a lesson, with checkpoints from which a run goes on exactly.

Several processes: see `longfocus.training.parallel`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

from longfocus.errors import RequestError
from longfocus.training import parallel
from longfocus.training.callbacks import EvaluateEvery, OnePass, chance_kept
from longfocus.training.lessons import Lesson
from longfocus.training.loader import PackedLoader
from longfocus.training.model_card import write_card
from longfocus.training.position import read_position, write_position
from longfocus.training.run_records import EVALUATED, About, RunRecorder, machine, plain, read_log, versions

Batch = dict[str, Tensor]
Evaluation = Callable[[Lesson], Mapping[str, float]]
_COMPLETE = "complete"


@dataclass(frozen=True)
class Run:
    """All that a training run is made of.

    Attributes:
        lesson: What a step computes, with the student.
        data: Whole batches by number, in the order in which they are taken; of several processes each takes every so
            many-th. Or a loader of a stream, which gives this process's batches
            (`longfocus.training.parallel.processes`) and goes through them once.
        arguments: Of transformers' Trainer: where to write, how many steps, how fast. A batch is an item, so
            `per_device_train_batch_size` is 1; the loss of several that one step accumulates is the mean of theirs.
        callbacks: More to do on the way.
        evaluations: What tells figures of the lesson, by name. They are called with the lesson in evaluation mode,
            without gradients and in every process, where they have to give the same; training goes on as if they had
            not been. What they tell is logged with "eval_" before it.
        evaluate_every: Steps between evaluations; there is one at the end in any case.
        recipe: What made the run, for its records.
        fields: What the recipe was given, for its records.
        tensorboard: Whether what is logged goes to TensorBoard as well, into `runs` in the run's folder.
        tokenizer: The student's, which is written beside a whole model. None for one that is to be found where the
            checkpoint is, as for an adapter, or for a model that has none.
        fingerprint: Of that checkpoint, where the lesson's note does not tell it.
        notes: Lines to tell the user before it begins.
    """

    lesson: Lesson
    data: Dataset[Batch] | PackedLoader
    arguments: TrainingArguments
    callbacks: tuple[TrainerCallback, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    evaluate_every: int = 0
    recipe: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    tensorboard: bool = False
    tokenizer: Any = None
    fingerprint: str = ""
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where checkpoints, records and the trained weights go."""
        return Path(str(self.arguments.output_dir))


class LessonTrainer(Trainer):
    """transformers' Trainer for a run: it saves and restores what the lesson says, and logs its other figures.

    Args:
        run: What to do.
        recorder: Is told what is logged.
    """

    model: Lesson

    def __init__(self, run: Run, recorder: RunRecorder) -> None:
        self.run = run
        self._figures: dict[str, list[float]] = {}
        callbacks = [*run.callbacks, recorder]
        if run.evaluations:
            callbacks.append(EvaluateEvery(run.evaluate_every))
        packed = isinstance(run.data, PackedLoader)
        if packed:
            run.arguments.ignore_data_skip = True  # the loader is told where it stands
            callbacks.append(OnePass())
        data = run.data.dataset if isinstance(run.data, PackedLoader) else run.data
        super().__init__(
            model=run.lesson, args=run.arguments, train_dataset=data, data_collator=_only, callbacks=callbacks
        )
        self.model_accepts_loss_kwargs = False  # a lesson's loss is a mean already

    @property
    def batches_per_step(self) -> int:
        """Batches of the data that one step of the optimizer takes, over all processes."""
        if isinstance(self.run.data, PackedLoader):
            return self.args.gradient_accumulation_steps  # all processes share one batch of the stream
        return int(self.get_total_train_batch_size(self.args)) // self._train_batch_size

    def create_accelerator_and_postprocess(self) -> None:
        """See Trainer."""
        super().create_accelerator_and_postprocess()
        self.is_fsdp_enabled = parallel.shard_on_cpu(self.accelerator, self.args) or self.is_fsdp_enabled

    def get_train_dataloader(self) -> Any:
        """See Trainer; a loader is taken as it is."""
        if not isinstance(self.run.data, PackedLoader):
            return super().get_train_dataloader()
        # A loader draws a number when it is begun, which a run that goes on must not take from those of training.
        self.run.data.generator = torch.Generator()
        return self.run.data

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        data: Any = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(data)

    def _prepare_context_parallel_inputs(self, model: Any, inputs: dict[str, Any]) -> Any:
        if self.get_cp_size() > 1:
            parallel.check_length(inputs, self.get_cp_size())
        return super()._prepare_context_parallel_inputs(model, inputs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The lesson's loss; its other figures are averaged until the next log."""
        outputs = model(**inputs)
        for name, value in outputs.items():
            if name != "loss":
                self._figures.setdefault(name, []).append(float(value.detach()))
        loss = outputs["loss"]
        if self.get_cp_size() > 1:
            loss = parallel.weighed(loss, inputs, self.accelerator)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Run the run's evaluations and log what they tell."""
        figures: dict[str, float] = {}
        was_training = self.model.training
        self.model.eval()
        with chance_kept(), torch.no_grad(), self.autocast_smart_context_manager():
            for evaluation in self.run.evaluations:
                figures |= {f"{EVALUATED}{name}": float(value) for name, value in evaluation(self.model).items()}
        self.model.train(was_training)
        self.log(figures)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As in Trainer, with the lesson's figures: means over the steps since the last log, and over processes."""
        if "loss" in logs and self._figures:
            means = torch.tensor([sum(values) / len(values) for values in self._figures.values()])
            means = self.accelerator.reduce(means.to(self.args.device), reduction="mean")
            logs |= {name: round(float(mean), 4) for name, mean in zip(self._figures, means, strict=True)}
            self._figures.clear()
        super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what the lesson saves; all processes have to call it."""
        whole = self.accelerator.get_state_dict(self.model) if parallel.is_sharded(self.model) else None
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            self.model.whole = whole
            self.model.save(folder)
            self.model.whole = None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # older ones stay until this is complete
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        folder = self.run.folder / f"checkpoint-{self.state.global_step}"
        self.model.save_carried(folder, self.args.process_index)
        if self.args.should_save:
            write_position(folder, self.batches_per_step, self.run.data)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:  # last: a process may be stopped between two files, or within one
            (folder / _COMPLETE).touch()
            rotate_checkpoints(str(self.run.folder), save_total_limit=limit, use_mtime=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        if parallel.is_sharded(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self.model.restore(folder)
        self.model.restore_carried(folder, self.args.process_index)
        read_position(folder, self.batches_per_step, self.run.data)


def train(run: Run, report: Callable[[str], None] | None = None) -> LessonTrainer:
    """Train, or go on from the last checkpoint in the run's folder; trained weights are written there at the end.

    Beside them are records of the run (`longfocus.training.run_records`) and a model card made from them. A run that
    is over already computes nothing anew.

    Args:
        run: What to do.
        report: Told in a line where the run begins, and what happens that is out of the ordinary; in process 0.

    Raises:
        RequestError: Something was asked for that cannot be done, or a checkpoint is of another run.
        CheckpointError: The last checkpoint cannot be read.
    """
    arguments, folder = run.arguments, run.folder
    parallel.check(run.lesson, arguments)
    if not isinstance(run.data, PackedLoader) and arguments.per_device_train_batch_size != 1:
        raise ValueError(f"per_device_train_batch_size is {arguments.per_device_train_batch_size}; an item is a batch")
    if run.tensorboard:
        _turn_on_tensorboard(arguments)
    say = report if report is not None and arguments.should_save else _say_nothing
    last = last_checkpoint(folder)
    step = 0 if last is None else _step(last)
    over = 0 < arguments.max_steps <= step

    recorder = RunRecorder(folder, _about(run), arguments.should_save)
    trainer = LessonTrainer(run, recorder)
    trainer.accelerator.wait_for_everyone()  # all have looked for checkpoints before one is written
    changed = recorder.begin(step, over)
    say(f"training in {folder}" if last is None else f"{'over already:' if over else 'going on from'} {last}")
    for note in run.notes:
        say(note)
    if changed:
        say(f"warning: not as when the run began: {', '.join(changed)}")
    if over:
        run.lesson.restore(last)  # type: ignore[arg-type]  # step is above 0
        trainer.state = TrainerState.load_from_json(str(last / "trainer_state.json"))  # type: ignore[operator]
    else:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    step = trainer.state.global_step
    if step < arguments.max_steps:
        say(f"stopped after step {step} of {arguments.max_steps}{': the data ended' if _ended(trainer) else ''}")
    history = [*trainer.state.log_history, *(read_log(folder) if over else ())]
    if run.evaluations and not any(line["step"] == step and _is_evaluation(line) for line in history):
        trainer.evaluate()
    trainer.save_model()
    recorder.end(step, **({"taken": _taken(run.data)} if isinstance(run.data, PackedLoader) else {}))
    if arguments.should_save:
        if run.tokenizer is not None and not run.lesson.has_adapter:  # a whole model is loaded from here alone
            run.tokenizer.save_pretrained(str(folder))
        write_card(folder)
    trainer.accelerator.wait_for_everyone()
    return trainer


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end, or None."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    return max(found, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _about(run: Run) -> About:
    """What a run's records say from the beginning on."""
    parameters = [(parameter.numel(), parameter.requires_grad) for parameter in run.lesson.parameters()]
    note = run.lesson.note
    return {
        "recipe": run.recipe,
        "fields": plain(run.fields),
        "base": {
            "name": str(getattr(run.lesson.model, "name_or_path", "")),
            "fingerprint": run.fingerprint or (note.base if note is not None else ""),
        },
        "lesson": type(run.lesson).__name__,
        "parameters": sum(count for count, _ in parameters),
        "trained_parameters": sum(count for count, trained in parameters if trained),
        "processes": run.arguments.world_size,
        "machine": machine(),
        "versions": versions(),
    }


def _taken(data: PackedLoader) -> dict[str, dict[str, int]]:
    """How much was taken of each source."""
    return {name: {"documents": one.documents, "tokens": one.tokens} for name, one in data.taken().items()}


def _turn_on_tensorboard(arguments: TrainingArguments) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        raise RequestError(
            "Writing for TensorBoard needs the package tensorboard. Install it (pip install 'longfocus[train]'), or "
            "leave it out: run.jsonl has the same figures."
        )
    told: Any = arguments.report_to  # a list, whatever was given
    if "tensorboard" not in told:
        arguments.report_to = [*told, "tensorboard"]


def _ended(trainer: LessonTrainer) -> bool:
    return any(isinstance(one, OnePass) and one.ended for one in trainer.callback_handler.callbacks)


def _is_evaluation(line: Mapping[str, Any]) -> bool:
    return any(name.startswith(EVALUATED) for name in line)


def _only(batches: list[Batch]) -> Batch:
    """The one batch that the data set gave as one item."""
    return batches[0]


def _say_nothing(line: str) -> None:
    pass
