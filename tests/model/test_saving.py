"""Checkpoints: out and in again, with transformers alone, and as a LLaMA."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaForCausalLM,
)

import longfocus
from longfocus.model import modeling
from longfocus.model.config import LongLlamaConfig
from longfocus.model.modeling import AUTO_CLASSES, LongLlamaForCausalLM, LongLlamaForSequenceClassification
from longfocus.model.registration import register

CODE = Path(modeling.__file__).parent
OURS = {
    AutoModel: modeling.LongLlamaModel,
    AutoModelForCausalLM: LongLlamaForCausalLM,
    AutoModelForSequenceClassification: LongLlamaForSequenceClassification,
}

WITHOUT_US = """
import json, sys
from pathlib import Path

sys.modules["longfocus"] = None  # importing it is an error
first, second, expected = sys.argv[1:]

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

wanted = load_file(expected)
torch.set_grad_enabled(False)
torch.set_num_threads(1)
for folder in (first, second):
    given = {"trust_remote_code": True, "local_files_only": True}
    config = AutoConfig.from_pretrained(folder, **given)
    assert type(config).__name__ == "LongLlamaConfig", type(config)
    assert type(config).__module__.startswith("transformers_modules."), type(config)
    causal = AutoModelForCausalLM.from_pretrained(folder, **given).eval()
    assert type(causal).__module__.startswith("transformers_modules."), type(causal)
    logits = causal(wanted["ids"]).logits
    assert torch.equal(logits, wanted["logits"])
    tokens = causal.generate(wanted["ids"], do_sample=False, max_new_tokens=20)
    assert torch.equal(tokens, wanted["tokens"])
    states = AutoModel.from_pretrained(folder, **given).eval()(wanted["ids"]).last_hidden_state
    assert torch.equal(causal.lm_head(states), wanted["logits"])
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, **given).eval()
    assert classifier(wanted["ids"]).logits.shape == (1, 3)
    if folder == first:  # what transformers alone saves can be loaded so again
        causal.save_pretrained(second)
        Path(second, "auto_map.json").write_text(json.dumps(causal.config.auto_map))
print("as expected")
"""


def test_a_saved_model_is_the_same(tiny, some_ids, tmp_path):
    model = tiny(window_overlap=3, mem_layers=[1], qk_norm=True, attention_bias=True, attention_out_bias=False)
    with torch.no_grad():
        model.model.embed_tokens.weight[0] = 1.0  # the padding's row is loaded like any other
    model.save_pretrained(tmp_path)
    ids = some_ids(1, 40)
    for load in (AutoModelForCausalLM, LongLlamaForCausalLM):
        again = load.from_pretrained(tmp_path)
        assert type(again) is LongLlamaForCausalLM
        assert not again.training
        assert torch.equal(again(ids).logits, model(ids).logits)
    assert model.state_dict().keys() == again.state_dict().keys()


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings(tiny, some_ids, tmp_path, tied):
    model = tiny(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) != tied
    again = LongLlamaForCausalLM.from_pretrained(tmp_path)
    assert (again.lm_head.weight.data_ptr() == again.model.embed_tokens.weight.data_ptr()) == tied
    ids = some_ids(1, 20)
    assert torch.equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize("auto", OURS, ids=lambda auto: auto.__name__)
def test_auto_classes(tiny, some_ids, tmp_path, auto):
    """Each gives ours, from a checkpoint of any of them; weights that both have are taken over."""
    model = tiny()
    model.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is OURS[auto]
    body = loaded if auto is AutoModel else loaded.model
    ids = some_ids(1, 20)
    assert torch.equal(body(ids).last_hidden_state, model.model(ids).last_hidden_state)
    assert type(auto.from_config(loaded.config)) is OURS[auto]


def test_registering_again_changes_nothing():
    register()
    assert AutoConfig.for_model("longllama").__class__ is LongLlamaConfig
    assert {auto.__name__: kind.__name__ for auto, kind in OURS.items()} == AUTO_CLASSES
    assert longfocus.LongLlamaForCausalLM is LongLlamaForCausalLM


def test_fields_are_changed_by_keywords(tiny, some_ids, tmp_path):
    """Any field, as LongLLaMA's documentation shows it."""
    tiny().save_pretrained(tmp_path)
    ids = some_ids(1, 40)
    for fields in (
        {"mem_layers": []},
        {"mem_layers": (1,)},
        {"mem_dtype": torch.bfloat16},
        {"mem_attention_grouping": (1, 2)},
        {"last_context_length": 3, "window_overlap": 5},
        {"mem_positionals": False, "torch_attention": True},
    ):
        changed = AutoModelForCausalLM.from_pretrained(tmp_path, **fields)
        assert torch.equal(changed(ids).logits, tiny(**fields)(ids).logits)
    with pytest.raises(ValueError, match="mem_layers has layer 9"):
        AutoModelForCausalLM.from_pretrained(tmp_path, mem_layers=[9])


@pytest.mark.parametrize("kind", [LongLlamaForCausalLM, modeling.LongLlamaModel, LongLlamaForSequenceClassification])
def test_code_is_saved_beside_the_weights(tiny, tmp_path, kind):
    """All of it, and for all Auto classes, whichever of the models is saved."""
    tiny(kind).save_pretrained(tmp_path)
    saved = {path.name: path.read_text("utf-8") for path in tmp_path.glob("*.py")}
    ours = {path.name: path.read_text("utf-8") for path in CODE.glob("*.py")}
    assert saved == {name: ours[name] for name in ours.keys() - {"__init__.py", "registration.py"}}
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["auto_map"] == {
        "AutoConfig": "config.LongLlamaConfig",
        "AutoModel": "modeling.LongLlamaModel",
        "AutoModelForCausalLM": "modeling.LongLlamaForCausalLM",
        "AutoModelForSequenceClassification": "modeling.LongLlamaForSequenceClassification",
    }


@pytest.mark.timeout(180)
def test_transformers_alone_loads_it(tiny, some_ids, tmp_path):
    """In a process of its own that has neither our package nor a network; and what it saves is as good."""
    from safetensors.torch import save_file

    model = tiny(window_overlap=4)
    model.save_pretrained(tmp_path / "first")
    ids = some_ids(1, 40)
    with torch.no_grad():
        expected = {"ids": ids, "logits": model(ids).logits}
    expected["tokens"] = model.generate(ids, do_sample=False, max_new_tokens=20)
    save_file(expected, tmp_path / "expected.safetensors")
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    paths = [str(tmp_path / name) for name in ("first", "second", "expected.safetensors")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_US, *paths],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "as expected"
    assert (tmp_path / "modules" / "transformers_modules").is_dir()
    auto_map = json.loads((tmp_path / "second" / "auto_map.json").read_text("utf-8"))
    assert auto_map.keys() == {"AutoConfig", *AUTO_CLASSES}
    # and with our package it is ours again, without running the code that lies beside it
    shutil.rmtree(tmp_path / "modules")
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "second")) is LongLlamaForCausalLM


def test_drop_in_for_llama_and_back(tiny, llama_of, some_ids, tmp_path):
    """Weights by name and by file, both ways."""
    ours = tiny(last_context_length=16)
    theirs = llama_of(ours)
    ids = some_ids(2, 16)
    assert_close(theirs(ids).logits, ours(ids).logits, rtol=0, atol=1e-5)
    back = tiny(last_context_length=16, initializer_range=0.01)
    assert (back(ids).logits - ours(ids).logits).abs().max() > 0.1
    assert not any(back.load_state_dict(theirs.state_dict()))
    assert torch.equal(back(ids).logits, ours(ids).logits)
    # a LLaMA checkpoint, loaded as LongLLaMA with a memory of one's choice
    theirs.save_pretrained(tmp_path / "llama")
    loaded = LongLlamaForCausalLM.from_pretrained(
        tmp_path / "llama", mem_layers=[0, 2], mem_dtype="float32", last_context_length=8
    )
    long = some_ids(1, 50)
    assert torch.equal(loaded(long).logits, tiny()(long).logits)
    # and ours, loaded as a LLaMA
    ours.save_pretrained(tmp_path / "ours")
    llama = LlamaForCausalLM.from_pretrained(tmp_path / "ours")
    assert_close(llama(ids).logits, theirs(ids).logits, rtol=0, atol=1e-6)


def test_llama_files_with_a_rope_of_their_own(tmp_path, some_ids, tiny, llama_of):
    ours = tiny(last_context_length=16, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5})
    llama_of(ours).save_pretrained(tmp_path)
    loaded = LongLlamaForCausalLM.from_pretrained(tmp_path, last_context_length=16)
    assert loaded.config.rope_parameters["factor"] == 2.0
    assert torch.equal(loaded(some_ids(1, 16)).logits, ours(some_ids(1, 16)).logits)
