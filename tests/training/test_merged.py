"""Merged checkpoints: the same logits as adapter and model together, by our loader and by transformers'."""

import json
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from longfocus.errors import RequestError
from longfocus.loading.adapters import AdapterNote
from longfocus.loading.load import load
from longfocus.training.engine import train
from longfocus.training.merged import is_merged, write_merged
from tests.training.small_runs import packed_run, recall_run


@pytest.fixture(scope="module")
def taught(tiny_folder, tmp_path_factory):
    """A run that is over and was merged, its folder and that of the merged model."""
    folder = tmp_path_factory.mktemp("taught")
    run = replace(recall_run(tiny_folder, folder / "adapter", steps=3, rate=3e-2), recipe="recall")
    train(run)
    write_merged(run, folder / "merged")
    return run, folder / "adapter", folder / "merged"


def test_logits_are_those_of_model_and_adapter(taught, tiny_folder):
    _, adapter, merged = taught
    together = load(tiny_folder, adapter=adapter, dtype="float32")
    whole = load(merged, dtype="float32")
    assert whole.model.config.mem_layers == together.model.config.mem_layers == [1, 2]
    assert whole.model.config.window_length == together.model.config.window_length
    assert whole.habits == together.habits
    ids = together.tokenizer("stone lamp captain winter " * 60, return_tensors="pt").input_ids  # several windows
    assert torch.equal(whole.tokenizer("stone lamp captain winter " * 60, return_tensors="pt").input_ids, ids)
    with torch.no_grad():
        wanted = together.model(ids).logits
        assert torch.allclose(whole.model(ids).logits, wanted, atol=1e-5)
        assert not torch.allclose(load(tiny_folder, mem_layers=[1, 2], dtype="float32").model(ids).logits, wanted, 1e-2)


@pytest.mark.parametrize("auto", [AutoModelForCausalLM, LlamaForCausalLM])
def test_transformers_loads_it(auto, taught, tiny_folder):
    """Within the window, where memory holds nothing yet, a plain LLaMA computes the same."""
    _, adapter, merged = taught
    together = load(tiny_folder, adapter=adapter, dtype="float32")
    ids = together.tokenizer("stone lamp captain winter ", return_tensors="pt").input_ids
    assert ids.shape[1] < together.model.config.last_context_length
    with torch.no_grad():
        logits = auto.from_pretrained(merged, dtype=torch.float32)(ids).logits
        assert torch.allclose(logits, together.model(ids).logits, atol=1e-5)


def test_it_carries_note_records_and_card(taught):
    run, adapter, merged = taught
    assert AdapterNote.read(merged) == run.lesson.note
    assert (merged / "run.json").read_bytes() == (adapter / "run.json").read_bytes()
    card = ModelCard.load(merged / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.tags == ["longfocus", "memory"]
    assert "and put into the model's own" in card.text
    assert not (merged / "adapter_config.json").exists()


def test_a_folder_in_use_is_refused(taught, tmp_path):
    run, adapter, merged = taught
    assert is_merged(adapter, merged)
    write_merged(run, merged)  # it is there already
    assert not is_merged(adapter, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="exists already"):
        write_merged(run, tmp_path)
    about = json.loads((merged / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(about | {"steps": 7}))
    with pytest.raises(RequestError, match="exists already"):
        is_merged(adapter, tmp_path)


def test_full_attention_and_a_tokenizer_of_its_own(tiny_folder, tmp_path):
    """A student of transformers' own, with or without an adapter; the run's tokenizer counts."""
    tokenizer = load(tiny_folder).tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|extra|>"]})
    for whole in (False, True):
        run = replace(packed_run(tiny_folder, tmp_path / f"run{whole}", steps=2, whole=whole), tokenizer=tokenizer)
        train(run)
        ids = torch.arange(3, 40)[None]
        with torch.no_grad():
            wanted = run.lesson.student.eval()(ids).logits
        folder = tmp_path / f"merged{whole}"
        write_merged(run, folder)
        with torch.no_grad():
            assert torch.allclose(LlamaForCausalLM.from_pretrained(folder)(ids).logits, wanted, atol=1e-4)
        assert load(folder).tokenizer.convert_tokens_to_ids("<|extra|>") == len(tokenizer) - 1
        assert not (folder / "memory.json").exists()
