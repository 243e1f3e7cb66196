"""Folders for others: with our code beside the weights, and plain."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from longfocus.errors import CheckpointError
from longfocus.loading.export import save, to_llama
from longfocus.loading.load import load

TOKENS = torch.arange(3, 60)[None]
ELSEWHERE = """
import sys
sys.modules["longfocus"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
assert model.config.mem_layers == [1, 2], model.config.mem_layers
assert AutoTokenizer.from_pretrained(sys.argv[1])("the worst").input_ids
with torch.no_grad():
    torch.save(model(torch.arange(3, 120)[None]).logits, sys.argv[2])
"""


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))


def test_saved_with_code_it_runs_without_longfocus(checkpoint, tmp_path, capfd):
    folder, _ = checkpoint("qwen3", head_dim=32)
    loaded = load(folder, mem_layers=[1, 2], window=32, dtype="float32", device="cpu")
    capfd.readouterr()
    save(loaded, tmp_path / "saved")
    assert capfd.readouterr() == ("", "")
    assert "modeling.py" in os.listdir(tmp_path / "saved")
    assert str(folder) not in (tmp_path / "saved" / "config.json").read_text()
    with torch.no_grad():
        expected = loaded.model(torch.arange(3, 120)[None]).logits

    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "saved"), str(tmp_path / "logits.pt")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    elsewhere = torch.load(tmp_path / "logits.pt", weights_only=True)
    torch.testing.assert_close(elsewhere, expected)

    again = load(tmp_path / "saved", dtype="float32", device="cpu")
    config = again.model.config
    assert (config.mem_layers, config.window, config.window_overlap) == ([1, 2], 32, 12)
    with torch.no_grad():
        torch.testing.assert_close(again.model(torch.arange(3, 120)[None]).logits, expected)


@pytest.mark.parametrize(
    ("kind", "written", "options"),
    [
        ("llama", "llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", "llama", {"tie_word_embeddings": True, "pad_token_id": -1}),
        ("mistral", "llama", {"head_dim": 24, "sliding_window": None}),
        ("qwen2", "qwen2", {"tie_word_embeddings": True}),
        ("qwen3", "qwen3", {"head_dim": 32}),
    ],
)
def test_written_plain_it_is_what_it_was(checkpoint, tmp_path, capfd, kind, written, options):
    folder, theirs = checkpoint(kind, **options)
    capfd.readouterr()
    to_llama(load(folder, dtype="float32", device="cpu"), tmp_path / "plain")
    assert capfd.readouterr() == ("", "")
    fields = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert fields["model_type"] == written
    assert not {"mem_layers", "auto_map", "window_length"} & fields.keys()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(TOKENS).logits, theirs(TOKENS).logits)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    assert tokenizer("the worst").input_ids == AutoTokenizer.from_pretrained(folder)("the worst").input_ids


def test_a_head_of_its_own_stays_that(checkpoint, tmp_path):
    """A configuration that ties a head which the file holds apart: transformers believes the file."""
    folder, theirs = checkpoint(tie_word_embeddings=True)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] * 2
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    loaded = load(folder, dtype="float32", device="cpu")
    save(loaded, tmp_path / "saved")
    to_llama(loaded, tmp_path / "plain")
    with torch.no_grad():
        expected = 2 * theirs(TOKENS).logits
        for path in (folder, tmp_path / "saved", tmp_path / "plain"):
            model = load(path, dtype="float32", device="cpu").model
            torch.testing.assert_close(model(TOKENS).logits, expected, atol=1e-4, rtol=1e-4)


def test_nothing_is_overwritten(checkpoint, tmp_path):
    loaded = load(checkpoint()[0], device="cpu")
    (tmp_path / "there").mkdir()
    save(loaded, tmp_path / "there")
    for write in (save, to_llama):
        with pytest.raises(CheckpointError, match="exists already; name a new folder"):
            write(loaded, tmp_path / "there")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="Cannot write the model"):
        save(loaded, tmp_path / "file" / "below")


def test_unusual_generation_settings_can_be_saved(checkpoint, tmp_path):
    """LLaMA 2 was published with sampling numbers beside greedy decoding, which transformers refuses to save."""
    folder, _ = checkpoint()
    settings = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "eos_token_id": 2}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    loaded = load(folder, device="cpu")
    for number, write in enumerate((save, to_llama)):
        write(loaded, tmp_path / str(number))
        again = load(tmp_path / str(number), device="cpu").model.generation_config
        assert (again.do_sample, again.eos_token_id) == (False, 2)
