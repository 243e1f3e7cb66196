"""`longfocus plan`, by way of the function that the verb is made of; and that it does without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from longfocus.cli.plan import plan
from longfocus.errors import UserError
from longfocus.loading.cache import CACHE_VARIABLE
from longfocus.planning.known_shapes import SHAPES
from longfocus.planning.rates import REFERENCE, write_rates
from tests.loading.conftest import TinyGguf


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs `plan ARGUMENTS` with an empty cache and gives what it printed."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    app = typer.Typer()
    app.command()(plan)

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(app, [*map(str, arguments)])
        if isinstance(done.exception, UserError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def told(run, *arguments):
    return json.loads(run(*arguments, "--json"))


def test_the_default_model_need_not_be_here(run):
    found = told(run)
    assert (found["model"], found["source"]) == ("smollm2-135m-instruct", "known by name")
    assert found["tokens"] == 100_000
    assert found["shape"]["parameters"] == 134_515_008
    assert [use["way"]["name"] for use in found["ways"]] == ["memory", "full", "window", "retrieval"], (
        "as its adapter has it"
    )
    assert found["verdict"] == ""


def test_a_table_for_people(run):
    out = run("--model", "llama-2-7b", "--memory", "24GiB")
    assert "llama-2-7b: 6.74 B weights (known by name)" in out
    assert "longfocus plan --measure" in out, "the rates are not of this machine"
    (line,) = (line for line in out.splitlines() if line.lstrip().startswith("full "))
    assert line.endswith("does not fit")
    assert "plain attention makes 596.0 GiB of scores in a layer, fused kernels keep 12 MiB" in out
    assert "weights" in out
    out = run("--model", "llama-2-7b", "--memory", "8GiB")
    assert out.splitlines()[-1].startswith("nothing fits 8.0 GiB: the least is ")


def test_training(run):
    out = run("--train", "full-attention", "--memory", "4GiB")
    assert "1 row of 100,000 tokens, a LoRA adapter of rank 32" in out
    assert "to fit: " in out
    found = told(run, "--train", "fot", "--rank", 16, "--rows", 4, "--tokens", 512)
    assert found["training"]["lesson"]["labelled"] == 4 * 512
    assert found["training"]["lesson"]["memory_layers"] == 4
    assert told(run, "--train", "recall", "--memory-layers", "5-9")["training"]["lesson"]["memory_layers"] == 5
    out = run("--train", "recall", "--memory", "600MiB")
    assert out.splitlines()[-1].startswith("recall does not fit 600 MiB")


def test_folders_files_and_names(run, tmp_path, tiny_folder):
    found = told(run, "--model", tiny_folder, "--tokens", 5000, "--window", 64, "--memory-layers", "1,2")
    config = json.loads((tiny_folder / "config.json").read_text())
    assert found["shape"]["hidden"] == config["hidden_size"]
    assert found["ways"][0]["way"]["memory_layers"] == [1, 2]
    note = {"memory": {"mem_layers": [3], "window_length": 128, "window_overlap": 60, "sink_tokens": 4},
            "habits": {"look_back": 0, "top_k": None}}  # fmt: skip
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "memory.json").write_text(json.dumps(note))
    way = told(run, "--model", folder)["ways"][0]["way"]
    assert (way["name"], way["memory_layers"], way["window"], way["staying"]) == ("memory", [3], 128, 64)
    assert told(run, "--model", "long-llama-3b-v1.1")["ways"][0]["way"]["memory_layers"] == [6, 12, 18]
    assert told(run, "--model", "meta-llama/Llama-3.1-8B-Instruct")["model"] == "llama-3.1-8b-instruct"


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file(run, tmp_path, tied):
    tiny = TinyGguf()
    model = tiny.model("qwen3", tied=tied)
    path = tmp_path / "tiny.gguf"
    tiny.write(path, model, tiny.tokenizer("smollm"))
    found = told(run, "--model", path)
    assert found["shape"]["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert found["shape"]["head_dim"] == 32


def test_rates_that_were_measured_are_taken(run, tmp_path):
    slow = told(run)["ways"][0]["reading_seconds"]
    fast = {
        name: type(rates)(**{field: 2 * value for field, value in vars(rates).items()} | {"call": rates.call / 2})
        for name, rates in REFERENCE.rates.items()
    }
    write_rates(tmp_path / "cache" / "cpu-rates.json", type(REFERENCE)("mine", "cpu", fast))
    found = told(run)
    assert found["device"] == {"name": "mine", "kind": "cpu", "rates": "measured"}
    assert found["ways"][0]["reading_seconds"] == pytest.approx(slow / 2)
    assert "--measure" not in run()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nobody/nothing"], "nothing is fetched for a plan"),
        (["--model", "/nowhere/at/all"], "There is no model"),
        (["--memory", "much"], "write it as 8GiB"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--dtype", "int3"], "no rates of"),
        (["--train", "juggling"], "no recipe 'juggling'"),
        (["--window", 10**6], "attend to 8192 at most"),
        (["--device", "h100", "--measure"], "only a device of this machine"),
    ],
)
def test_what_cannot_be_planned_ends_in_one_line(run, arguments, said):
    with pytest.raises(UserError, match=said) as raised:
        run(*arguments)
    assert "\n" not in str(raised.value)


def test_planning_does_without_torch(tmp_path, tiny_folder):
    """As the installed command starts; for a folder, a GGUF file and a name."""
    tiny = TinyGguf()
    path = tmp_path / "tiny.gguf"
    tiny.write(path, tiny.model(), tiny.tokenizer("smollm"))
    code = """
import sys
import longfocus_cli
from longfocus.cli.plan import plan
for name in sys.argv[1:]:
    plan(name, None, None, None, "cpu", None, None, None, None, None, False, True)
    plan(name, 4096, "fot", "4GiB", "h100", None, None, None, None, None, False, False)
heavy = {"torch", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""
    names = [str(tiny_folder), str(path), "llama-3.1-8b-instruct"]
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert set(SHAPES) >= {"llama-3.1-8b-instruct"}
