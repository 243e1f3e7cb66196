"""Two processes give what one process gives: data parallel and sharded; what cannot be is refused."""

from dataclasses import replace

import pytest
import torch

from longfocus.errors import RequestError
from longfocus.training import parallel
from longfocus.training.engine import last_checkpoint, train
from longfocus.training.run_records import read_about, read_log
from tests.training.small_runs import answers_run, fot_run, losses, packed_run, recall_run, started

RUNS = {
    "recall": {"steps": 3, "batches": 6, "bank": 0},
    "packed": {"steps": 3, "dropout": 0.0, "gradient_accumulation_steps": 2},
    "fot": {"steps": 3},
}


@pytest.fixture(scope="module")
def one_process(tiny_folder, tmp_path_factory):
    """What one process logs; of batches by number it takes as many at a step as two processes do."""
    folder = tmp_path_factory.mktemp("one")
    recall = recall_run(tiny_folder, folder / "recall", **RUNS["recall"], gradient_accumulation_steps=2)
    return {
        "recall": losses(train(recall)),
        "packed": losses(train(packed_run(tiny_folder, folder / "packed", **RUNS["packed"]))),
        "fot": losses(train(fot_run(tiny_folder, folder / "fot", **RUNS["fot"], one=True))),
    }


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True], ids=["data_parallel", "sharded"])
def test_two_processes_give_the_losses_of_one(shard, one_process, tiny_folder, tmp_path):
    """Also when they are stopped on the way and go on; what they save is read by one process."""
    runs = [{"kind": kind, "model": tiny_folder, "out": tmp_path / kind, "shard": shard} | RUNS[kind] for kind in RUNS]
    process = started(*(run | {"stop": 2} for run in runs), *runs, processes=2)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    for kind, expected in one_process.items():
        log = read_log(tmp_path / kind)
        assert [line["step"] for line in log] == [1, 2, 3]
        assert [line["loss"] for line in log] == pytest.approx(expected, rel=1e-5)
        about = read_about(tmp_path / kind)
        assert about["processes"] == 2
        assert [one["step"] for one in about["resumed"]] == [2]
        assert last_checkpoint(tmp_path / kind).name == "checkpoint-3"
        assert ("pytorch_model_fsdp.bin" in {path.name for path in last_checkpoint(tmp_path / kind).iterdir()}) is shard
    arguments = {name: given for name, given in RUNS["recall"].items() if name != "steps"}
    again = train(recall_run(tiny_folder, tmp_path / "recall", steps=3, **arguments))
    assert again.state.global_step == 3
    assert (tmp_path / "recall" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_two_processes_that_share_each_row_give_the_losses_of_one(tiny_folder, tmp_path):
    """Wherever in a row the labels are: those of an answer are all in one process."""
    expected = train(answers_run(tiny_folder, tmp_path / "one", steps=3)).state.log_history[:3]
    run = {"kind": "answers", "model": tiny_folder, "out": tmp_path / "two", "steps": 3, "context_parallel": 2}
    process = started(run, processes=2)
    _, told = process.communicate(timeout=200)
    assert process.returncode == 0, told
    for line, wanted in zip(read_log(tmp_path / "two"), expected, strict=True):
        assert line["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
        assert line["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4)


def test_what_processes_are_told(monkeypatch):
    assert parallel.processes() == (0, 1)
    assert parallel.parallel_arguments() == {}
    with pytest.raises(RequestError, match="there is one"):
        parallel.parallel_arguments(shard=True)
    with pytest.raises(RequestError, match="2 processes were to share a batch, and there are 1"):
        parallel.parallel_arguments(context_parallel=2)
    monkeypatch.setenv("WORLD_SIZE", "6")
    monkeypatch.setenv("RANK", "5")
    assert parallel.processes(context_parallel=2) == (2, 3)
    assert "parallelism_config" not in parallel.parallel_arguments(shard=True)
    config = parallel.parallel_arguments(context_parallel=2)["parallelism_config"]
    assert (config.dp_shard_size, config.cp_size) == (3, 2)


def test_context_parallelism_is_refused_where_it_cannot_be(tiny_folder, tmp_path, monkeypatch):
    """What the command line of accelerate says counts as well."""
    monkeypatch.setenv("ACCELERATE_USE_PARALLELISM_CONFIG", "true")
    monkeypatch.setenv("PARALLELISM_CONFIG_CP_SIZE", "2")
    with pytest.raises(RequestError, match="RecallLesson is another way"):
        train(recall_run(tiny_folder, tmp_path))
    with pytest.raises(RequestError, match="needs GPUs"):
        train(packed_run(tiny_folder, tmp_path))
    eager = packed_run(tiny_folder, tmp_path)
    eager.lesson.model.config._attn_implementation = "eager"
    with pytest.raises(RequestError, match="the model's is eager"):
        train(eager)
    sliding = packed_run(tiny_folder, tmp_path)
    sliding.lesson.model.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(RequestError, match="the model has sliding_attention"):
        train(sliding)
    assert not any(tmp_path.iterdir())


def test_rows_that_cannot_be_divided():
    parallel.check_length({"input_ids": torch.zeros(1, 12)}, 3)
    with pytest.raises(RequestError, match="a multiple of 6"):
        parallel.check_length({"input_ids": torch.zeros(1, 10)}, 3)


def test_several_gpus_want_several_processes(tiny_folder, tmp_path):
    run = recall_run(tiny_folder, tmp_path)
    run.arguments._n_gpu = 2
    with pytest.raises(RequestError, match="torchrun --nproc_per_node 2"):
        train(replace(run, recipe="any"))
