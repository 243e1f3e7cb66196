"""The loop: it learns, stops, and goes on with the same losses; checkpoints hold the adapter and what is carried."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainingArguments

from longfocus.loading.load import load
from longfocus.training.engine import Run, last_checkpoint, train
from longfocus.training.exercise_data import ExerciseBatches, Stage
from longfocus.training.lessons import RecallLesson, with_lora

TEXTS = [
    "".join(f"{one}{two}{three}{four} " for one in "bdk" for two in "aeio" for three in "lmn" for four in "aeo") * 6
]
STEPS = 5


def run_of(model: Path, out: Path, *callbacks: TrainerCallback, steps: int = STEPS, rate: float = 1e-2) -> Run:
    torch.manual_seed(0)
    loaded = load(model, window=128, mem_layers=[1, 2], dtype="float32")
    loaded.model.requires_grad_(False)
    student = with_lora(loaded.model, 4, ["q_proj", "k_proj", "v_proj", "o_proj"], first_layer=1)
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=rate,
        logging_steps=1,
        save_steps=1,
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    data = ExerciseBatches(loaded.tokenizer, TEXTS, (Stage(steps, 2, (300,), {"records": 1.0}, 64),), 0)
    return Run(RecallLesson(student, bank=400), data, arguments, callbacks)


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


class StopAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def test_a_stopped_run_goes_on_with_the_same_losses(tiny_folder, tmp_path):
    """The same data, optimizer, schedule and carried entries: losses are equal to the last digit that is logged."""
    whole = losses(train(run_of(tiny_folder, tmp_path / "whole")))
    assert len(whole) == STEPS
    train(run_of(tiny_folder, tmp_path / "stopped", StopAfter(2)))
    told: list[str] = []
    resumed = train(run_of(tiny_folder, tmp_path / "stopped"), told.append)
    assert losses(resumed) == whole
    assert "going on from" in told[0]
    assert "checkpoint-2" in told[0]
    one, other = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == other


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_engine import run_of, train
train(run_of(Path(sys.argv[2]), Path(sys.argv[3])), lambda line: print(line, flush=True))
"""


def test_a_killed_run_goes_on_with_the_same_losses(tiny_folder, tmp_path):
    whole = losses(train(run_of(tiny_folder, tmp_path / "whole")))
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tiny_folder), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ})
    while process.poll() is None and not (out / "checkpoint-2").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert losses(train(run_of(tiny_folder, out))) == whole


def test_a_checkpoint_that_was_not_finished_is_not_gone_on_from(tmp_path):
    assert last_checkpoint(tmp_path / "nothing") is None
    for number in (9, 10, 11):
        (tmp_path / f"checkpoint-{number}").mkdir()
    for number in (9, 10):
        (tmp_path / f"checkpoint-{number}" / "complete").touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_it_learns(tiny_folder, tmp_path):
    trainer = train(run_of(tiny_folder, tmp_path / "run", steps=30, rate=3e-2))
    found = losses(trainer)
    assert sum(found[-5:]) < 0.8 * sum(found[:5])
    assert all("accuracy" in entry for entry in trainer.state.log_history if "loss" in entry)


def test_a_checkpoint_holds_the_adapter_only(tiny_folder, tmp_path):
    train(run_of(tiny_folder, tmp_path / "run", steps=2))
    names = {path.name for path in (tmp_path / "run" / "checkpoint-2").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "carried.safetensors", "optimizer.pt"} <= names
    assert "model.safetensors" not in names
    assert (tmp_path / "run" / "adapter_model.safetensors").stat().st_size < 100_000


def test_rows_weigh_the_same_whatever_their_answers_length(tiny_folder, tmp_path):
    run = run_of(tiny_folder, tmp_path / "run", steps=1)
    lesson, batch = run.lesson.eval(), run.data[0]
    with torch.no_grad():
        both = lesson(**batch)["loss"]
        shorter = dict(batch)
        shorter["labels"] = batch["labels"].clone()
        places = (batch["labels"][0] != -100).nonzero()[3:, 0]
        shorter["labels"][0, places] = -100
        halves = []
        for row in range(2):
            alone = {**batch, "labels": batch["labels"].clone()}
            alone["labels"][1 - row] = -100
            halves.append(lesson(**alone)["loss"] * 2)
        assert torch.allclose(both, sum(halves) / 2)
        assert not torch.allclose(lesson(**shorter)["loss"], both)


def test_bank_is_carried_over_a_checkpoint(tiny_folder, tmp_path):
    run = run_of(tiny_folder, tmp_path / "run", steps=1)
    run.lesson.train()
    run.lesson(**run.data[0])
    run.lesson.save(tmp_path / "saved")
    again = run_of(tiny_folder, tmp_path / "run", steps=1).lesson
    again.restore(tmp_path / "saved")
    mine, theirs = run.lesson.carried(), again.carried()
    assert sorted(mine) == ["1.keys", "1.values", "2.keys", "2.values"]
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert mine["1.keys"].shape[2] == 400
