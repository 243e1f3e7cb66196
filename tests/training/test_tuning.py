"""Tuning: what is answered is learnt, with memory layers and with full attention, on records that were checked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

import longfocus
from longfocus.errors import RequestError
from longfocus.loading.load import load
from longfocus.model.config import LongLlamaConfig
from longfocus.model.modeling import LongLlamaForCausalLM
from longfocus.recipes.tuning import tuning
from longfocus.training.engine import train
from longfocus.training.examples import IGNORED
from longfocus.training.tuning_lesson import TuningLesson
from tests.conftest import story, write_tiny_model
from tests.training.small_runs import StopAfter, losses
from tests.training.test_full_attention import data  # noqa: F401 - a fixture

CHATML = (
    "{% for message in messages %}<|begin|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
WAYS = {
    "memory": {"memory_layers": "1,2", "window": 128, "last_context": 80},
    "full attention": {"full_attention": True},
}
HELD = "Conversations that stand in a set which models are tested on are never to be learnt from."
STEPS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The tiny model with a chat template."""
    folder = write_tiny_model(tmp_path_factory.mktemp("chatting") / "model")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": CHATML}))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Instructions as OpenOrca has them, conversations as ShareGPT has them, and an evaluation set that both touch."""
    folder = tmp_path_factory.mktemp("instruct")
    orca = [
        {
            "system_prompt": "Be brief.",
            "question": f"{story(40, seed=40 + n)} Who?",
            "response": "The captain.",
            "lang": "en",
        }
        for n in range(8)
    ]
    orca[2]["response"] = HELD
    orca[5]["lang"] = "de"
    talks = [
        {
            "id": f"talk{n}",
            "conversations": [
                {"from": "human", "value": f"{story(25, seed=20 + n)} Where?"},
                {"from": "gpt", "value": "At the harbour."},
                {"from": "human", "value": HELD if n == 3 else "And then?"},
                {"from": "gpt", "value": "Over the bridge."},
            ],
        }
        for n in range(6)
    ]
    paths = {name: folder / name for name in ("orca.jsonl", "talks.json")}
    paths["orca.jsonl"].write_text("\n".join(map(json.dumps, orca)), encoding="utf-8")
    paths["talks.json"].write_text(json.dumps(talks), encoding="utf-8")
    (folder / "longchat").mkdir()
    (folder / "longchat/conversations_30.jsonl").write_text(json.dumps({"conversation": HELD}), encoding="utf-8")
    return paths


def run_of(model, files, out, *callbacks, way="memory", **changes):
    fields = {
        "data_path": ",".join(map(str, files.values())),
        "data_type": "instructions,chat",
        "data_filter": "lang<M>en<,>",
        "data_proportions": "0.5,0.5",
        "evaluation": str(files["orca.jsonl"].parent),
        "longest": 400,
        "rank": 4,
        "rate": 2e-2,
        "warmup": 0,
        "steps": STEPS,
        "rows": 2,
        "accumulation": 2,
        "save_every": 1,
    }
    run = tuning(out=out, model=str(model), **{**fields, **WAYS[way], **changes})
    return replace(run, callbacks=(*run.callbacks, *callbacks))


@pytest.mark.parametrize(
    ("way", "template"),
    [
        ("memory", "chat"),
        ("full attention", "longllama"),
        pytest.param("memory", "longllama", marks=pytest.mark.slow),
        pytest.param("full attention", "chat", marks=pytest.mark.slow),
    ],
)
def test_responses_are_learnt(model, files, tmp_path, way, template):
    run = run_of(model, files, tmp_path / "run", way=way, template=template, steps=8)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    said = set()
    for number in range(8):
        batch = run.data[number]
        assert batch["input_ids"].shape == batch["labels"].shape
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            said.add(tokenizer.decode(ids[labels != IGNORED]))
    answers = {"The captain.<|end|>", "At the harbour.<|end|>Over the bridge.<|end|>"}
    assert said == answers
    found = losses(train(run))
    assert sum(found[-3:]) < 0.6 * sum(found[:3])


def test_what_holds_evaluation_data_is_left_out(model, files, tmp_path):
    run = run_of(model, files, tmp_path / "run")
    orca, talks = map(str, files.values())
    assert run.callbacks[0].left_out == {orca: {2}, talks: {3}, "books": frozenset(), "questions": frozenset()}
    assert [line.partition(" left")[0] for line in run.callbacks[0].lines()[:2]] == [
        f"{orca}: 1 of 8",
        f"{talks}: 1 of 6",
    ]
    unchecked = run_of(model, files, tmp_path / "run", evaluation="")
    assert unchecked.callbacks[0].lines() == (
        "not checked for contamination: no folder with evaluation sets was named",
    )


@pytest.mark.parametrize("way", ["memory", pytest.param("full attention", marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_with_the_same_losses(model, files, tmp_path, way):
    whole = losses(train(run_of(model, files, tmp_path / "whole", way=way)))
    assert len(whole) == STEPS
    train(run_of(model, files, tmp_path / "stopped", StopAfter(1), way=way))
    assert losses(train(run_of(model, files, tmp_path / "stopped", way=way))) == whole


@pytest.mark.parametrize("way", WAYS)
def test_long_examples_beside_short_ones(model, files, data, tmp_path, way):  # noqa: F811
    run = run_of(
        model, files, tmp_path / "run", way=way,
        books=str(data), books_share=0.4, books_length=480, longest=300, evaluation=str(data), rows=1, steps=1,
    )  # fmt: skip
    mixture = (run.data.batches if way == "memory" else run.data).rows
    assert [len(one) for one in mixture.datasets] == [7, 6, 4]  # a filter took one, another book's question two
    lengths = [len(row["input_ids"]) for row in mixture]
    assert max(lengths) > 300
    assert sum(length < 200 for length in lengths) > 5
    assert len(losses(train(run))) == 1


def test_padding_to_one_length(model, files, tmp_path):
    """Which wants a tokenizer that says what stands in padding."""
    with pytest.raises(RequestError, match="neither a padding token nor an unknown token"):
        run_of(model, files, tmp_path / "run", always_pad=True)
    padded = write_tiny_model(tmp_path / "model")
    path = padded / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": "<|pad|>"}))
    run = run_of(padded, files, tmp_path / "run", always_pad=True, longest=250, template="longllama")
    assert {run.data[number]["input_ids"].shape for number in range(3)} == {(2, 250)}


def test_the_border_of_memory_is_drawn_for_each_batch(model, files, tmp_path):
    run = run_of(model, files, tmp_path / "run", steps=30)
    drawn = [int(run.data[number]["last_context_length"]) for number in range(60)]
    assert len(set(drawn)) > 20
    assert 1 <= min(drawn) <= max(drawn) <= 80
    fixed = run_of(model, files, tmp_path / "run", fixed_border=True)
    assert "last_context_length" not in fixed.data[0]
    batch = run.data[0]
    run.lesson.eval()
    with torch.no_grad():
        one, other = (run.lesson(**{**batch, "last_context_length": torch.tensor(last)})["loss"] for last in (5, 80))
    assert one != other


def test_gradients_reach_earlier_windows_although_layers_are_checkpointed():
    """Each layer is computed anew, labels are in the last window alone, and what the first two wrote is learnt."""
    torch.manual_seed(0)
    fields = {
        "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 2, "initializer_range": 0.3, "pad_token_id": None,
    }  # fmt: skip
    config = LongLlamaConfig(**fields, mem_layers=[1], mem_dtype="float32", window_length=16, last_context_length=16)
    ids = torch.arange(48)[None]  # so that each token stands in one window alone
    labels = torch.where(ids < 40, IGNORED, ids)
    lesson = TuningLesson(LongLlamaForCausalLM(config)).train()
    calls = []
    lesson.model.model.layers[1].register_forward_pre_hook(lambda *_: calls.append(1))
    loss = lesson(ids, labels, torch.ones_like(ids))["loss"]
    loss.backward()
    assert len(calls) == 6, "three windows, each computed anew"
    reached = lesson.model.model.embed_tokens.weight.grad.abs().sum(dim=1)
    assert (reached[:47] > 1e-4).all()
    plain = LongLlamaForCausalLM(config).train()
    plain.load_state_dict(lesson.model.state_dict())
    expected = plain(ids, labels=labels).loss
    expected.backward()
    assert_close(loss, expected)
    for (name, weight), other in zip(plain.named_parameters(), lesson.model.parameters(), strict=True):
        assert_close(other.grad, weight.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_what_was_trained_is_loaded_with_its_memory(model, files, tmp_path):
    run = run_of(model, files, tmp_path / "run", steps=2)
    train(run)
    loaded = longfocus.load(model, adapter=tmp_path / "run", dtype="float32")
    assert loaded.model.config.mem_layers == [1, 2]
    assert loaded.model.config.window_length == 128
    bare = load(model, mem_layers=[1, 2], window=128, last_context_length=80, dtype="float32").model
    ids = torch.randint(3, 400, (1, 300), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found, untrained = (
            one(ids).logits for one in (run.lesson.eval().student.float(), loaded.model, bare)
        )
    taught = (untrained - expected).abs().mean()
    assert taught > 0.2
    assert (found - expected).abs().mean() < taught / 5, "but for the rounding of the model that was trained"
    begun = run_of(model, files, tmp_path / "next", start=str(tmp_path / "run"))
    with torch.no_grad():
        assert_close(begun.lesson.eval().student.float()(ids).logits, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "mine"}, "no template 'mine'; there are chat, longllama"),
        ({"data_proportions": "half,half"}, "data_proportions is 'half,half'"),
        ({"data_type": "chat"}, "lists are for different numbers of data sets"),
        ({"way": "full attention", "longest": 600}, "has positions for 512 tokens, 600 are wanted"),
        ({"way": "full attention", "memory_layers": "1,2"}, "has no memory.* Leave out --memory-layers"),
        ({"way": "full attention", "window": 128, "last_context": 9}, "Leave out --window, --last-context"),
        ({"way": "full attention", "targets": "q_proj", "first_layer": 1}, "Leave out --targets, --first-layer"),
        ({"way": "full attention", "fixed_border": True}, "Leave out --fixed-border"),
        ({"extension": "yarn"}, "for full attention alone. Leave out --extension"),
        ({"books_length": 480}, "no long examples. Leave out --books-length"),
    ],
)
def test_fields_that_make_no_sense(model, files, tmp_path, changes, message):
    with pytest.raises(RequestError, match=message):
        run_of(model, files, tmp_path / "run", **changes)
