"""Cards: what the records say, whatever stands in them; a header that the hub takes."""

import json
import re

import pytest
from huggingface_hub import ModelCard

from longfocus.training.engine import train
from longfocus.training.model_card import write_card
from longfocus.training.run_records import ABOUT, LOG
from tests.training.small_runs import packed_run

EVIL = "a|b\n```\n# Not a heading\n---\nlicense: mit\n<script>`x` ```` [link](http://a) \\ é 🦊 ${x}"


def write_records(folder, base="owner/model", fields=None, log=(), **more):
    about = {
        "recipe": "recall",
        "fields": fields or {"rank": 4},
        "base": {"name": base, "fingerprint": "f" * 64},
        "parameters": 1000,
        "trained_parameters": 10,
        "processes": 1,
        "machine": {"cpu": "A processor", "cores": 2, "gpus": []},
        "versions": {"torch": "2.13.0"},
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T02:00:00+00:00",
        "steps": 1200,
        "seconds": 4500.0,
        **more,
    }
    (folder / ABOUT).write_text(json.dumps(about))
    (folder / LOG).write_text("".join(f"{json.dumps(line)}\n" for line in log))


@pytest.fixture
def adapter(tmp_path):
    for name in ("adapter_config.json", "memory.json"):
        (tmp_path / name).write_text("{}")
    return tmp_path


def made(folder):
    write_card(folder)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_card_tells_what_the_records_say(adapter):
    log = [{"step": step, "seconds": 1.0, "loss": 4.0 - step / 10, "accuracy": step / 40} for step in range(1, 31)]
    log += [{"step": 30, "seconds": 1.0, "eval_lines_200": 0.95, "eval_passkey": 1.0, "epoch": 1.0}]
    write_records(adapter, log=log, taken={"books": {"documents": 1234, "tokens": 5678901}})
    text = made(adapter)
    assert made(adapter) == text
    for said in (
        "# An adapter for `owner/model`",
        "by the recipe `recall` to use a memory beside its window: 10 of 1,000 weights were trained",
        "| steps | 1,200 |",
        "| time | 1 h 15 min |",
        "| processor | A processor, 2 cores |",
        "| data: books | 1,234 documents, 5,678,901 tokens |",
        "| loss, first and last 10 logged | 3.45, 1.45 |",
        "| accuracy, first and last 10 logged | 0.1375, 0.6375 |",
        "After step 30",
        "| lines\\_200 | 0.95 |",
        "| passkey | 1 |",
        'longfocus.load("owner/model", adapter=folder)',
        "PeftModel.from_pretrained(base, folder)",
    ):
        assert said in text, said
    card = ModelCard.load(adapter / "README.md")
    assert card.data.base_model == "owner/model"
    assert card.data.library_name == "peft"
    assert card.data.tags == ["longfocus", "lora", "memory"]


def test_whatever_is_in_fields_means_nothing(adapter):
    write_records(
        adapter,
        base=EVIL,
        fields={"data": EVIL, EVIL: 1},
        recipe=EVIL,
        machine={"cpu": EVIL, "cores": 1, "gpus": [EVIL]},
        log=[{"step": 1, "loss": 1.0, EVIL: 1.0}, {"step": 1, f"eval_{EVIL}": 1.0}],
        taken={EVIL: {"documents": 1, "tokens": 2}},
    )
    text = made(adapter)
    card = ModelCard.load(adapter / "README.md")
    assert card.data.to_dict().keys() == {"library_name", "pipeline_tag", "tags"}
    headings = re.findall(r"^#+ .*", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    assert [heading.split()[0] for heading in headings] == ["#", "##", "##", "##", "##"]
    block = re.search(r"^```json\n(.*?)\n^```$", text, re.MULTILINE | re.DOTALL)[1]
    assert json.loads(block)["fields"] == {"data": EVIL, EVIL: 1}
    rows = [line for line in text.split("\n") if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    assert "<script>" not in re.sub(r"^```.*?^```$|(`+) .*? \1", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"^```python\n(.*?)\n^```$", text, re.MULTILINE | re.DOTALL):
        compile(code, "card", "exec")


@pytest.mark.parametrize(
    ("base", "repository"),
    [
        ("owner/model", "owner/model"),
        ("owner/model@main", "owner/model"),
        ("smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("/a/folder", None),
        ("model.gguf", None),
        ("", None),
    ],
)
def test_only_repositories_are_named_in_the_header(base, repository, adapter):
    write_records(adapter, base=base)
    write_card(adapter)
    assert ModelCard.load(adapter / "README.md").data.base_model == repository


def test_an_adapter_for_stretched_positions_is_loaded_with_its_configuration(adapter):
    write_records(adapter)
    assert "config=config" not in made(adapter)
    (adapter / "full_attention.json").write_text("{}")
    card = made(adapter)
    assert 'AutoConfig.from_pretrained(f"{folder}/full_attention.json")' in card
    assert 'from_pretrained("owner/model", config=config)' in card


def test_a_run_replaces_the_card_that_peft_leaves(tiny_folder, tmp_path):
    train(packed_run(tiny_folder, tmp_path, steps=1))
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "[More Information Needed]" not in text
    assert "longfocus.load" not in text  # it has no memory, so only peft reads it
    assert "PeftModel.from_pretrained" in text


def test_a_model_whose_own_weights_were_trained(tiny_folder, tmp_path):
    train(packed_run(tiny_folder, tmp_path, steps=1, whole=True))
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "# A model made from" in text
    assert "AutoModelForCausalLM.from_pretrained(folder)" in text
    assert "put into" not in text
    assert ModelCard.load(tmp_path / "README.md").data.library_name == "transformers"
