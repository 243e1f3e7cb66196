"""`longfocus train`: recipes are verbs, their parameters options; a run leaves an adapter."""

import gzip
import json
import logging
import os
import subprocess
import sys
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from longfocus import recipes
from longfocus.cli.train import COMMON, command
from longfocus.errors import RequestError
from tests.conftest import story
from tests.training.small_runs import REPOSITORY


@pytest.fixture
def train(command_line):
    """Runs `longfocus train ARGUMENTS` here."""
    return partial(command_line, "train")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with one book and a question about it, as the recipes want them."""
    folder = tmp_path_factory.mktemp("data")
    words = [f"{one}{two}{three}en" for one in "bdkl" for two in "aeiou" for three in "lmnrst"]
    text = story(3000) + " ".join(words * 60)
    (folder / "books").mkdir()
    (folder / "books" / "one.txt").write_text(text, encoding="utf-8")
    about = {"file": "one.txt", "title": "One", "body_start": 0, "body_end": len(text)}
    split = {"narrativeqa_document_id": "d1", "narrativeqa_set": "valid"}
    (folder / "books" / "index.json").write_text(json.dumps([about | split]), encoding="utf-8")
    question = {"id": "q1", "document_id": "d1", "set": "valid", "question": "Who?", "answers": ["Nobody."]}
    (folder / "narrativeqa").mkdir()
    (folder / "narrativeqa" / "qa_valid_test.jsonl.gz").write_bytes(gzip.compress(json.dumps(question).encode()))
    return folder


def test_recipes_are_listed_with_their_fields(train):
    status, listed, said = train("--help")
    assert status == 0, said
    for name, words in recipes.RECIPES.items():
        assert name.replace("_", "-") in listed
        assert words.split(";")[0][:40] in " ".join(listed.split())
    _, fields, _ = train("recall", "--help")
    assert "--memory-layers" in fields
    for name in COMMON:
        assert f"--{name}" in fields
    assert "Batches of 2 documents of 8,192 tokens; of 4" in " ".join(fields.split())


def test_a_field_that_makes_no_sense(train):
    status, _, said = train("recall", "--rank", "many")
    assert status == 2
    assert "'--rank'" in said
    assert train("nothing")[0] == 2


def test_training_uses_large_pages_unless_told_otherwise(monkeypatch):
    """torch reads it before its first allocation, so it is set before a recipe is imported."""
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    command()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    command()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipes_leave_the_common_options_alone(name):
    recipe = getattr(import_module(f"longfocus.recipes.{name}"), name)
    assert not COMMON.keys() & signature(recipe).parameters.keys()


def test_what_cannot_be_pushed_or_written_is_told_before_training(train, tiny_folder, data, tmp_path):
    fields = ("--data", data, "--model", tiny_folder, "--memory-layers", "1,2", "--first-layer", 1, "--out", tmp_path)
    for option, told in ((("--push", "owner/name"), "switched off"), (("--merge", data), "exists already")):
        status, _, said = train("recall", *fields, *option)
        assert status == 1
        last = said.splitlines()[-1]
        assert last.startswith("longfocus: ")
        assert told in last
        assert "training in" not in said
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["fot", "recall", "tuning"])
def test_layers_that_are_none_are_told_before_anything_is_opened(name, tmp_path):
    recipe = getattr(import_module(f"longfocus.recipes.{name}"), name)
    with pytest.raises(RequestError, match=r"\Alayers 'all' cannot be read; write them as [^\n]+\Z"):
        recipe(memory_layers="all", out=tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--reads", "--long-prose", 1), "Leave out --reads or --long-prose"),
        (("--keep", 0.5), "Leave out --keep, or give --reads as well"),
    ],
)
def test_what_would_have_no_effect_is_refused_before_anything_is_opened(train, tmp_path, given, told):
    status, _, said = train("recall", "--out", tmp_path / "out", "--data", tmp_path, *given)
    assert status == 1
    assert told in said.splitlines()[-1]
    assert not any(tmp_path.iterdir())


def test_data_that_is_not_there(train, tmp_path):
    status, _, said = train("recall", "--data", tmp_path, "--model", tmp_path)
    assert status == 1
    assert said.startswith("longfocus: ")
    assert said.count("\n") == 1


def test_a_run_leaves_an_adapter(train, tiny_folder, data, tmp_path, monkeypatch):
    """In a process of its own; what is left to do later, here."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    fields = ("--memory-layers", "1,2", "--first-layer", 1, "--rank", 2, "--short", 1, "--middle", 0, "--long", 0)
    recall = ("recall", "--data", data, "--model", tiny_folder, "--out", "made", *fields)
    command = [sys.executable, "-c", "import longfocus_cli; longfocus_cli.main()", "train", *map(str, recall)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "made"
    assert "training in made" in done.stderr
    assert "FutureWarning" not in done.stderr
    assert json.loads(Path("made/adapter_config.json").read_text(encoding="utf-8"))["r"] == 2
    assert Path("made/adapter_model.safetensors").stat().st_size > 1000
    about = json.loads(Path("made/run.json").read_text(encoding="utf-8"))
    assert about["recipe"] == "recall"
    assert about["fields"] | {"out": "made", "rank": 2, "memory_layers": "1,2"} == about["fields"]
    assert about["steps"] == 1

    status, printed, said = train(*recall, "--merge", "whole")  # the run is over: only this is left to do
    assert status == 0, said
    assert printed.splitlines() == ["whole"]
    assert "over already" in said
    assert json.loads(Path("whole/run.json").read_text(encoding="utf-8")) == about
    assert json.loads(Path("whole/config.json").read_text(encoding="utf-8"))["mem_layers"] == [1, 2]


def test_books_read_for_long_prose_are_told(train, tiny_folder, data, tmp_path):
    """Reading them takes long, and comes before the training."""
    fields = ("--memory-layers", "1,2", "--first-layer", 1, "--rank", 2, "--short", 0, "--middle", 0, "--long", 0)
    others = ("--mem-discount", 0.25, "--evaluation", tmp_path / "sets")
    status, _, said = train(
        "recall",
        "--data",
        data,
        "--model",
        tiny_folder,
        "--out",
        tmp_path / "made",
        *fields,
        "--long-prose",
        1,
        *others,
    )
    assert status == 0, said
    assert said.index("reading One, book 1 of 1 for long prose; kept in") < said.index("training in")
    assert json.loads((tmp_path / "made/memory.json").read_text("utf-8"))["memory"]["mem_discount"] == 0.25
    assert f"there are no evaluation sets in {tmp_path / 'sets'}" in said
    assert not logging.getLogger("longfocus.recipes").handlers


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_several_processes_share_the_batches_and_read_books_once(launcher, tiny_folder, data, tmp_path):
    """With accelerate data parallel, with torchrun weights are divided as well. Without a GPU both use CPUs."""
    launch = {
        "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_machines=1", "--mixed_precision=no"],
        "torchrun": ["torch.distributed.run", "--standalone"],
    }[launcher]
    count = {"accelerate": "--num_processes=2", "torchrun": "--nproc_per_node=2"}[launcher]
    fields = ("--memory-layers", "1,2", "--first-layer", 1, "--rank", 2, "--short", 3, "--middle", 0, "--long", 0)
    recall = ("recall", "--data", data, "--model", tiny_folder, "--out", tmp_path / "made", *fields, "--long-prose", 1)
    shard = ["--shard"] if launcher == "torchrun" else []
    command = [sys.executable, "-m", *launch, count, "-m", "longfocus", "train", *map(str, recall), *shard]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=300, cwd=REPOSITORY, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("reading One, book 1 of 1") == 1
    about = json.loads((tmp_path / "made" / "run.json").read_text(encoding="utf-8"))
    assert (about["processes"], about["steps"]) == (2, 2), "four batches"
    assert (tmp_path / "made" / "adapter_model.safetensors").is_file()
