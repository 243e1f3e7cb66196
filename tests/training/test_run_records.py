"""Records: whole after a kill, no step twice, what changed is told."""

import json
from dataclasses import replace

from longfocus.training.engine import train
from longfocus.training.run_records import ABOUT, LOG, RunRecorder, plain, read_about, read_log
from tests.training.small_runs import StopAfter, packed_run


class State:
    def __init__(self, step):
        self.global_step = step


def log(recorder, step, **figures):
    recorder.on_log(None, State(step), None, figures)


def test_lines_after_a_checkpoint_are_dropped_when_it_is_gone_on_from(tmp_path):
    first = RunRecorder(tmp_path, {"recipe": "any"})
    assert first.begin(0) == []
    for step in (1, 2, 3):
        log(first, step, loss=float(step))
    log(first, 3, eval_figure=0.5)
    log(first, 3, train_runtime=1.0)
    started = read_about(tmp_path)["started"]
    with (tmp_path / LOG).open("a") as stream:
        stream.write('{"step": 4, "los')  # a kill in the middle of a line
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3, 3]
    second = RunRecorder(tmp_path, {"recipe": "any"})
    second.begin(2)
    log(second, 3, loss=30.0)
    lines = read_log(tmp_path)
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert lines[0]["seconds"] <= lines[1]["seconds"] <= lines[2]["seconds"]
    second.end(3, taken={})
    about = read_about(tmp_path)
    assert about["started"] == started
    assert [one["step"] for one in about["resumed"]] == [2]
    assert about["steps"] == 3
    assert about["ended"] >= started
    kept = (tmp_path / ABOUT).read_text()
    third = RunRecorder(tmp_path, {"recipe": "other"})
    third.begin(3, over=True)
    third.end(3)
    assert (tmp_path / ABOUT).read_text() == kept


def test_a_run_from_the_beginning_forgets_the_one_before(tmp_path):
    for _ in range(2):
        recorder = RunRecorder(tmp_path, {})
        recorder.begin(0)
        assert read_log(tmp_path) == []
        assert read_about(tmp_path)["resumed"] == []
        log(recorder, 1, loss=1.0)


def test_fields_that_changed_are_told(tiny_folder, tmp_path):
    told: list[str] = []
    fields = {"rate": 0.1, "out": tmp_path, "old": 1}
    train(replace(packed_run(tiny_folder, tmp_path, StopAfter(2)), recipe="packed", fields=fields))
    train(replace(packed_run(tiny_folder, tmp_path), fields={"rate": 0.2, "out": tmp_path}), told.append)
    assert told[1] == "warning: not as when the run began: old, rate"


def test_what_is_told_of_a_run(tiny_folder, tmp_path):
    fields = {"out": tmp_path, "rate": 0.1, "model": "", "none": None}
    run = replace(packed_run(tiny_folder, tmp_path, steps=2), recipe="packed", fields=fields, fingerprint="f" * 64)
    train(run)
    about = json.loads((tmp_path / ABOUT).read_text())
    assert about["recipe"] == "packed"
    assert about["fields"] == {"out": str(tmp_path), "rate": 0.1, "model": "", "none": None} == plain(fields)
    assert about["base"] == {"name": str(tiny_folder), "fingerprint": "f" * 64}
    assert 0 < about["trained_parameters"] < about["parameters"]
    assert about["versions"].keys() >= {"python", "torch", "transformers", "peft", "accelerate"}
    assert about["machine"].keys() == {"cpu", "cores", "gpus"}
    assert about["taken"]["words"]["documents"] > 0
    lines = read_log(tmp_path)
    assert [line["step"] for line in lines] == [1, 2]
    assert all({"loss", "grad_norm", "learning_rate", "tokens", "seconds"} <= line.keys() for line in lines)


def test_records_are_those_of_one_process(tmp_path):
    recorder = RunRecorder(tmp_path / "run", {}, writes=False)
    recorder.begin(0)
    log(recorder, 1, loss=1.0)
    recorder.end(1)
    assert not (tmp_path / "run").exists()
