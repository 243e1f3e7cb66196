"""`longfocus train`: recipes are verbs, their parameters options; a run leaves an adapter."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from longfocus import recipes
from tests.conftest import story


def train(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import longfocus_cli; longfocus_cli.main()", "train", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=100)


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


def test_recipes_are_listed_with_their_fields():
    listed = train("--help")
    assert listed.returncode == 0, listed.stderr
    for name, words in recipes.RECIPES.items():
        assert name in listed.stdout
        assert words.split(";")[0][:40] in " ".join(listed.stdout.split())
    fields = train("recall", "--help").stdout
    assert "--memory-layers" in fields
    assert "Batches of 2 documents of 8,192 tokens." in " ".join(fields.split())


def test_a_field_that_makes_no_sense():
    done = train("recall", "--rank", "many")
    assert done.returncode == 2
    assert "'--rank'" in done.stderr
    assert train("nothing").returncode == 2


def test_data_that_is_not_there(tmp_path):
    done = train("recall", "--data", tmp_path, "--model", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("longfocus: ")
    assert done.stderr.count("\n") == 1


def test_a_run_leaves_an_adapter(tiny_folder, data, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    fields = ("--memory-layers", "1,2", "--first-layer", 1, "--rank", 2, "--short", 1, "--middle", 0, "--long", 0)
    done = train("recall", "--data", data, "--model", tiny_folder, "--out", "made", *fields)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "made"
    assert "training in made" in done.stderr
    assert json.loads(Path("made/adapter_config.json").read_text(encoding="utf-8"))["r"] == 2
    assert Path("made/adapter_model.safetensors").stat().st_size > 1000
