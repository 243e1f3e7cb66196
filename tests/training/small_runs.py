"""Small runs that several tests train, here or in processes of their own."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import LlamaForCausalLM, TrainerCallback, TrainingArguments

from longfocus.loading.adapters import AdapterNote
from longfocus.loading.defaults import BookHabits
from longfocus.loading.load import load
from longfocus.training.crossbatch import CrossBatch
from longfocus.training.documents import ListedDocuments, TrainingDocument
from longfocus.training.engine import Run, train
from longfocus.training.exercise_data import ExerciseBatches, Stage
from longfocus.training.extend import lora
from longfocus.training.fot import FotLesson, Growth, StepTeller
from longfocus.training.lessons import Lesson, RecallLesson, with_lora
from longfocus.training.loader import PackedLoader
from longfocus.training.losses import compute_loss_per_row
from longfocus.training.packing import PackedDataset, Packing
from longfocus.training.parallel import parallel_arguments, processes
from longfocus.training.sources import Source

REPOSITORY = Path(__file__).parent.parent.parent
STEPS = 5
TEXTS = [
    "".join(f"{one}{two}{three}{four} " for one in "bdk" for two in "aeio" for three in "lmn" for four in "aeo") * 6
]


def recall_run(
    model: Path,
    out: Path,
    *callbacks: TrainerCallback,
    steps: int = STEPS,
    rate: float = 1e-2,
    bank: int = 400,
    batches: int | None = None,
    **arguments: object,
) -> Run:
    """Reading and asking, with an adapter; batches by number."""
    torch.manual_seed(0)
    loaded = load(model, window=128, mem_layers=[1, 2], dtype="float32")
    student = with_lora(loaded.model, 4, ["q_proj", "k_proj", "v_proj", "o_proj"], first_layer=1)
    data = ExerciseBatches(loaded.tokenizer, TEXTS, (Stage(batches or steps, 2, (300,), {"records": 1.0}, 64),), 0)
    note = AdapterNote.of(loaded.fingerprint, loaded.model.config, BookHabits(look_back=0, top_k=None))
    return Run(RecallLesson(student, bank, note), data, _arguments(out, steps, rate, **arguments), callbacks)


class NextToken(Lesson):
    """Full attention over packed rows, which count alike whichever process has them."""

    splits_context = True

    def forward(self, input_ids, labels, document_ids=None, shift_labels=None, position_ids=None):
        inputs = {"input_ids": input_ids, "labels": labels, "position_ids": position_ids}
        inputs["shift_labels"] = labels if shift_labels is None else shift_labels  # packed labels are shifted already
        return {"loss": compute_loss_per_row(self.student, inputs), "tokens": torch.tensor(float(input_ids.numel()))}


def packed_run(
    model: Path,
    out: Path,
    *callbacks: TrainerCallback,
    steps: int = STEPS,
    rate: float = 1e-2,
    epochs: int | None = None,
    dropout: float = 0.2,
    whole: bool = False,
    **arguments: object,
) -> Run:
    """The next token, of a stream of documents; with dropout, so that random numbers matter."""
    torch.manual_seed(0)
    student = LlamaForCausalLM.from_pretrained(model)
    if not whole:
        from peft import get_peft_model

        student = get_peft_model(student, lora(4, 4, lora_dropout=dropout))
    texts = [TrainingDocument(TEXTS[0][: 40 + 13 * number], str(number)) for number in range(12)]
    source = Source("words", ListedDocuments(texts), lambda text: [1, *text.encode(), 2], seed=0, epochs=epochs)
    rank, world = processes()
    data = PackedDataset(source, Packing.doc_aware(2, 32), bos_token_id=1, rank=rank, world_size=world)
    return Run(NextToken(student), PackedLoader(data), _arguments(out, steps, rate, **arguments), callbacks)


def fot_run(
    model: Path, out: Path, *callbacks: TrainerCallback, steps: int = STEPS, one: bool = False, **arguments: object
) -> Run:
    """Cross-batch, four rows a process of two documents each; `one` takes what two have as two batches of a step."""
    memory = {"window": 32, "window_overlap": 0, "sink_tokens": 0, "last_context_length": 32, "mem_layers": [1, 2]}
    student = load(model, dtype="float32", **memory).model.requires_grad_(True)
    lesson = FotLesson(student, partial(CrossBatch, packing=2), Growth.of("1,3@1"))
    if one:
        arguments["gradient_accumulation_steps"] = 2
    data = Listed([*islice(chain(*zip(_windows(0), _windows(1), strict=True)), 2 * steps)]) if one else None
    settings = _arguments(out, steps, 1e-2, **arguments)
    return Run(lesson, data or PackedLoader(_windows(processes()[0])), settings, (StepTeller(lesson), *callbacks))


def _windows(rank: int) -> PackedDataset:
    texts = [TrainingDocument(TEXTS[0][90 * number :][: 300 + 13 * number], str(number)) for number in range(12)]
    source = Source("words", ListedDocuments(texts), lambda text: [1, *text.encode(), 2], seed=0, epochs=1)
    return PackedDataset(source, Packing.doc_aware_k(8, 32, 2), bos_token_id=1, rank=rank, world_size=2)


class Listed(Dataset):
    """Batches that are there already."""

    def __init__(self, batches: list[dict[str, torch.Tensor]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return self.batches[number]


class Answers(Dataset):
    """Rows of which the last few tokens are to be learnt; all of the last row's."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        tokens = torch.randint(3, 400, (1, 33), generator=torch.Generator().manual_seed(number))
        labels = tokens[:, 1:].clone()
        labels[:, : 0 if number == self.rows - 1 else 27] = -100
        return {"input_ids": tokens[:, :-1], "labels": labels, "shift_labels": labels.clone()}


def answers_run(model: Path, out: Path, *callbacks: TrainerCallback, steps: int = STEPS, **arguments: object) -> Run:
    """Full attention to rows by number, as `packed_run` has it otherwise; layers are computed anew for gradients."""
    run = packed_run(model, out, *callbacks, steps=steps, dropout=0.0, **arguments)
    run.lesson.model.activation_checkpointing_enable()
    return replace(run, data=Answers(steps))


RUNS = {"recall": recall_run, "packed": packed_run, "answers": answers_run, "fot": fot_run}


def _arguments(out: Path, steps: int, rate: float, **more: object) -> TrainingArguments:
    settings = {
        "max_steps": steps,
        "per_device_train_batch_size": 1,
        "learning_rate": rate,
        "logging_steps": 1,
        "save_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "remove_unused_columns": False,
        "disable_tqdm": True,
    }
    return TrainingArguments(output_dir=str(out), **settings | more)


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


class StopAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def started(*runs: dict[str, object], processes: int = 1) -> subprocess.Popen:
    """Runs one after the other in processes of their own; each names its kind, its folders and other arguments."""
    launcher = (
        [] if processes == 1 else ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    )
    command = [sys.executable, "-m", *launcher, "tests.training.small_runs", json.dumps(runs, default=str)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, env=environment)


def main(runs: str) -> None:
    torch.set_num_threads(1)
    for given in json.loads(runs):
        kind, model, out = given.pop("kind"), Path(given.pop("model")), Path(given.pop("out"))
        stop = [StopAfter(given.pop("stop"))] if "stop" in given else []
        if given.get("context_parallel", 1) > 1:
            from tests.training import ring_on_cpu

            ring_on_cpu.install()
        given |= parallel_arguments(shard=given.pop("shard", False), context_parallel=given.pop("context_parallel", 1))
        train(RUNS[kind](model, out, *stop, **given))


if __name__ == "__main__":
    main(*sys.argv[1:])
