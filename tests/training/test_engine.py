"""The loop: it learns, stops, and goes on with the same losses; checkpoints hold the adapter and what is carried."""

import importlib.util
import random
import signal
import time
from dataclasses import replace

import pytest
import torch
from torch.utils.data import Dataset

from longfocus.errors import CheckpointError, RequestError
from longfocus.training.engine import last_checkpoint, train
from longfocus.training.run_records import read_about, read_log
from tests.conftest import write_tiny_model
from tests.training.small_runs import RUNS, STEPS, StopAfter, losses, packed_run, recall_run, started

KINDS = pytest.mark.parametrize("kind", ["recall", "packed"])


@KINDS
def test_a_stopped_run_goes_on_with_the_same_losses(kind, tiny_folder, tmp_path):
    """The same data, optimizer, schedule, chance and carried entries: losses are equal to the last digit."""
    run_of, told = RUNS[kind], []
    whole = losses(train(run_of(tiny_folder, tmp_path / "whole")))
    assert len(whole) == STEPS
    train(run_of(tiny_folder, tmp_path / "stopped", StopAfter(2)))
    resumed = train(run_of(tiny_folder, tmp_path / "stopped"), told.append)
    assert losses(resumed) == whole
    assert "going on from" in told[0]
    assert "checkpoint-2" in told[0]
    one, other = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == other


@pytest.mark.parametrize("kind", ["recall", pytest.param("packed", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_with_the_same_losses(kind, tiny_folder, tmp_path):
    whole = losses(train(RUNS[kind](tiny_folder, tmp_path / "whole")))
    out = tmp_path / "killed"
    process = started({"kind": kind, "model": tiny_folder, "out": out})
    while process.poll() is None and not (out / "checkpoint-2").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    step = int(last_checkpoint(out).name.rpartition("-")[2])
    assert 1 <= step < STEPS
    assert losses(train(RUNS[kind](tiny_folder, out))) == whole
    lines = read_log(out)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in lines] == whole
    assert [one["step"] for one in read_about(out)["resumed"]] == [step]


@KINDS
def test_a_run_that_is_over_computes_nothing_anew(kind, tiny_folder, tmp_path):
    """It may have been killed after its last step: what it leaves behind is written again."""
    run_of, out, told = RUNS[kind], tmp_path / "run", []
    train(run_of(tiny_folder, out))
    left = {name: (out / name).read_bytes() for name in ("adapter_model.safetensors", "run.jsonl", "README.md")}
    (out / "adapter_model.safetensors").unlink()
    again = train(run_of(tiny_folder, out), told.append)
    assert told == [f"over already: {out / f'checkpoint-{STEPS}'}"]
    assert again.state.global_step == STEPS
    assert {name: (out / name).read_bytes() for name in left} == left


def test_data_that_ends_ends_the_run(tiny_folder, tmp_path):
    told: list[str] = []
    trainer = train(packed_run(tiny_folder, tmp_path / "run", epochs=1, steps=100, save_steps=50), told.append)
    steps = trainer.state.global_step
    assert 5 < steps < 100
    assert told[-1] == f"stopped after step {steps} of 100: the data ended"
    taken = read_about(tmp_path / "run")["taken"]["words"]
    assert taken["documents"] == 12
    assert steps * 2 * 32 < taken["tokens"]


def test_batches_are_taken_in_their_order(tiny_folder, tmp_path):
    run, taken = recall_run(tiny_folder, tmp_path / "run", steps=4, save_strategy="no"), []

    class Watched(Dataset):
        def __len__(self):
            return len(run.data)

        def __getitem__(self, number):
            taken.append(number)
            return run.data[number]

    train(replace(run, data=Watched()))
    assert taken == [0, 1, 2, 3]


def test_several_batches_of_a_step_count_alike(tiny_folder, tmp_path):
    """Gradients and losses are means over the batches that a step accumulates."""
    run = recall_run(tiny_folder, tmp_path, steps=1, batches=2, bank=0, gradient_accumulation_steps=2)
    with torch.no_grad():
        each = [run.lesson(**run.data[number])["loss"].item() for number in range(2)]
    assert losses(train(run)) == pytest.approx([sum(each) / 2], rel=1e-5)
    assert each[0] != pytest.approx(each[1], rel=1e-2)


def test_what_cannot_go_on_is_refused(tiny_folder, tmp_path):
    out = tmp_path / "run"
    train(recall_run(tiny_folder, out, StopAfter(2)))
    with pytest.raises(RequestError, match="a step took 1 batches and would take 2"):
        train(recall_run(tiny_folder, out, gradient_accumulation_steps=2))
    with pytest.raises(CheckpointError, match="does not hold the weights of this student"):
        train(packed_run(tiny_folder, out))
    with pytest.raises(ValueError, match="an item is a batch"):
        train(recall_run(tiny_folder, out, per_device_train_batch_size=2))


def test_evaluations_are_told_and_change_nothing(tiny_folder, tmp_path):
    """They draw random numbers and need no gradients; training does not notice."""
    seen = []

    def evaluate(lesson):
        random.random()
        seen.append((lesson.training, torch.is_grad_enabled()))
        return {"chance": torch.rand(()).item(), "calls": len(seen)}

    plain = losses(train(packed_run(tiny_folder, tmp_path / "plain")))
    run = replace(packed_run(tiny_folder, tmp_path / "evaluated"), evaluations=(evaluate,), evaluate_every=2)
    trainer = train(run)
    assert losses(trainer) == plain
    assert seen == [(False, False)] * 3
    lines = [line for line in read_log(tmp_path / "evaluated") if "eval_calls" in line]
    assert [(line["step"], line["eval_calls"]) for line in lines] == [(2, 1), (4, 2), (5, 3)]
    train(replace(packed_run(tiny_folder, tmp_path / "evaluated"), evaluations=(evaluate,), evaluate_every=2))
    assert len(seen) == 3  # the run was over, and evaluated at its end


def test_a_run_that_ends_early_is_evaluated_at_its_end(tiny_folder, tmp_path):
    run = replace(packed_run(tiny_folder, tmp_path, StopAfter(3)), evaluations=(lambda lesson: {"one": 1.0},))
    train(run)
    assert [line["step"] for line in read_log(tmp_path) if "eval_one" in line] == [3]


def test_figures_go_to_tensorboard_as_well(tiny_folder, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = replace(packed_run(tiny_folder, tmp_path, steps=2), evaluations=(lambda lesson: {"one": 1.0},))
    expected = losses(train(replace(run, tensorboard=True)))
    (events,) = (tmp_path / "runs").glob("*/events.*")
    found = reader.EventAccumulator(str(events.parent))
    found.Reload()
    assert [(one.step, one.value) for one in found.Scalars("train/loss")] == [
        (step, pytest.approx(loss)) for step, loss in enumerate(expected, 1)
    ]
    assert [(one.step, one.value) for one in found.Scalars("eval/one")] == [(2, 1.0)]


def test_tensorboard_that_is_not_installed(tiny_folder, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "tensorboard" else found(name))
    with pytest.raises(RequestError, match=r"pip install 'longfocus\[train\]'"):
        train(replace(packed_run(tiny_folder, tmp_path), tensorboard=True))
    assert not any(tmp_path.iterdir())


def test_a_checkpoint_that_was_not_finished_is_not_gone_on_from(tmp_path):
    assert last_checkpoint(tmp_path / "nothing") is None
    for number in (9, 10, 11):
        (tmp_path / f"checkpoint-{number}").mkdir()
    for number in (9, 10):
        (tmp_path / f"checkpoint-{number}" / "complete").touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_it_learns(tiny_folder, tmp_path):
    trainer = train(recall_run(tiny_folder, tmp_path / "run", steps=30, rate=3e-2, batches=5))
    found = losses(trainer)
    assert sum(found[-5:]) < 0.8 * sum(found[:5])  # of the same five batches
    assert all("accuracy" in entry for entry in trainer.state.log_history if "loss" in entry)


def test_a_checkpoint_holds_the_adapter_only(tiny_folder, tmp_path):
    train(recall_run(tiny_folder, tmp_path / "run", steps=2, save_total_limit=1))
    assert [path.parent.name for path in (tmp_path / "run").glob("*/complete")] == ["checkpoint-2"]
    names = {path.name for path in (tmp_path / "run" / "checkpoint-2").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "carried.safetensors", "optimizer.pt"} <= names
    assert "model.safetensors" not in names
    assert (tmp_path / "run" / "adapter_model.safetensors").stat().st_size < 100_000


def test_rows_weigh_the_same_whatever_their_answers_length(tiny_folder, tmp_path):
    run = recall_run(tiny_folder, tmp_path / "run", steps=1)
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
    run = recall_run(tiny_folder, tmp_path / "run", steps=1)
    run.lesson.train()
    run.lesson(**run.data[0])
    run.lesson.save(tmp_path / "saved")
    run.lesson.save_carried(tmp_path / "saved")
    again = recall_run(tiny_folder, tmp_path / "run", steps=1).lesson
    again.restore_carried(tmp_path / "saved")
    mine, theirs = run.lesson.carried(), again.carried()
    assert sorted(mine) == ["1.keys", "1.values", "2.keys", "2.values"]
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert mine["1.keys"].shape[2] == 400


def test_weights_of_a_student_without_adapter_are_read_strictly(tmp_path):
    """Tied weights are written once; any other difference is refused."""
    tied = write_tiny_model(tmp_path / "tied", tie_word_embeddings=True)
    run = packed_run(tied, tmp_path / "run", steps=2, whole=True)
    train(run)
    again = packed_run(tied, tmp_path / "other", whole=True).lesson
    again.restore(tmp_path / "run" / "checkpoint-2")
    mine, theirs = run.lesson.state_dict(), again.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    untied = packed_run(write_tiny_model(tmp_path / "untied"), tmp_path / "other", whole=True).lesson
    with pytest.raises(CheckpointError, match=r"lm_head\.weight"):
        untied.restore(tmp_path / "run" / "checkpoint-2")


def test_weights_of_another_adapter_are_refused(tiny_folder, tmp_path):
    packed_run(tiny_folder, tmp_path).lesson.save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="in one of them only"):
        recall_run(tiny_folder, tmp_path).lesson.restore(tmp_path / "saved")
