"""Full attention: the numbers of transformers' own model without its squares, and a recipe that learns and resumes."""

import contextlib
import gzip
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import longfocus
from longfocus.errors import CheckpointError, RequestError
from longfocus.recipes.full_attention import full_attention
from longfocus.training.checked import FILE
from longfocus.training.engine import train
from longfocus.training.examples import IGNORED
from longfocus.training.full_attention import (
    CONFIGURATION,
    CausalCollator,
    FullAttentionLesson,
    load_extended,
    with_anima_lora,
)
from longfocus.training.merged import write_merged
from tests.conftest import story, write_tiny_model
from tests.training.small_runs import StopAfter, losses
from tests.training.test_extend import Largest

DOCS = Path(__file__).parents[2] / "docs"
FIELDS = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.3,
    "attn_implementation": "sdpa",
}


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**FIELDS)).train()


def row(length, seed, learnt=5):
    ids = torch.randint(3, 61, (length,), generator=torch.Generator().manual_seed(seed))
    labels = torch.where(torch.arange(length) < length - learnt, IGNORED, ids)
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("offload", [False, True], ids=["in memory", "on disk"])
def test_the_loss_and_gradients_of_transformers(offload, tmp_path):
    """Rows of unequal length in a batch without a mask, in pieces of 16 tokens, against each row by itself."""
    rows = [row(90, 1), row(40, 2, learnt=20)]
    model = llama()
    counts = torch.tensor([5.0, 20.0])
    alone = [model(**{name: tensor[None] for name, tensor in each.items()}, use_cache=False).loss for each in rows]
    expected = (torch.stack(alone) * counts).sum() / counts.sum()
    expected.backward()
    lesson = FullAttentionLesson(llama(), tokens=16, offload=str(tmp_path) if offload else "")
    loss = lesson(**CausalCollator()(rows))["loss"]
    loss.backward()
    assert_close(loss, expected)
    for found, weight in zip(lesson.student.parameters(), model.parameters(), strict=True):
        assert_close(found.grad, weight.grad, rtol=1e-3, atol=1e-5)
    assert not list(tmp_path.iterdir())


def test_nothing_is_as_large_as_a_mask_or_the_logits():
    """A step on two rows, the second with padding: all tensors stay far below T x T and below T x V."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**FIELDS, "vocab_size": 1200}))
    lesson = FullAttentionLesson(with_anima_lora(model, 4, 4), tokens=256).train()
    batch = CausalCollator()([row(1500, 1), row(1100, 2)])
    with Largest() as largest:
        lesson(**batch)["loss"].backward()
    assert largest.numbers < 1500 * 1200 / 4


@pytest.mark.filterwarnings("error::FutureWarning")
def test_adapters_come_without_warnings():
    assert with_anima_lora(llama(), 4, 4).peft_config


def test_batches_want_padding_at_the_right():
    rows = [row(10, 1), row(7, 2)]
    batch = CausalCollator(multiple=4)(rows)
    assert batch.keys() == {"input_ids", "labels"}
    assert batch["input_ids"].shape == (2, 12)
    assert (batch["labels"][1, 7:] == IGNORED).all()
    rows[1]["attention_mask"][:2] = 0
    with pytest.raises(RequestError, match="a mask of 10 x 10 would be needed"):
        CausalCollator()(rows)


@pytest.mark.parametrize(("extension", "kind"), [("linear", "linear"), ("yarn", "yarn"), ("dynamic", "dynamic")])
def test_positions_are_stretched(tiny_folder, extension, kind):
    pupil = load_extended(str(tiny_folder), 1400, extension)
    rope = pupil.model.config.rope_parameters
    assert (rope["rope_type"], rope["factor"]) == (kind, 3.0)
    assert pupil.model.config._attn_implementation == "sdpa"
    assert pupil.model.dtype == torch.bfloat16
    assert pupil.fingerprint == longfocus.load(tiny_folder).fingerprint
    assert load_extended(str(tiny_folder), 512, "none").model.config.rope_parameters["rope_type"] == "default"


@pytest.mark.parametrize(
    ("changes", "length", "extension", "error", "message"),
    [
        ({}, 600, "more", RequestError, "no extension 'more'; there are linear, dynamic, yarn, none"),
        ({}, 600, "none", RequestError, "has positions for 512 tokens, 600 are wanted. Name an extension"),
        ({"model_type": "longllama", "mem_layers": [1]}, 600, "linear", RequestError, "attends by its memory layers"),
        ({"model_type": "mistral", "sliding_window": 64}, 600, "linear", RequestError, "attend to 64 tokens, 600 are"),
        ({"model_type": "gpt2"}, 600, "linear", CheckpointError, "architecture 'gpt2'"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            600, "linear", RequestError, "positions are scaled already",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_taught_full_attention(tmp_path, changes, length, extension, error, message):
    path = write_tiny_model(tmp_path / "model") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(error, match=message):
        load_extended(str(tmp_path / "model"), length, extension)


def test_a_gpu_s_machine_is_no_place_without_a_gpu():
    if not torch.cuda.is_available():
        with pytest.raises(RequestError, match="Name a folder on a disk"):
            FullAttentionLesson(llama(), offload="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two books with three questions each, in the form of NarrativeQA's files, and one that is for reporting."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("books", "narrativeqa"):
        (folder / name).mkdir()
    books, questions = [], []
    for number, split in enumerate(("valid", "valid", "test")):
        text = story(400, seed=number)
        (folder / f"books/{number}.txt").write_text(text, encoding="utf-8")
        span = {"file": f"{number}.txt", "title": f"Book {number}", "body_start": 0, "body_end": len(text)}
        books.append(span | {"narrativeqa_document_id": f"d{number}", "narrativeqa_set": split})
        for lamp in range(3):
            asked = {"question": f"Who lit lamp {lamp} on the bridge ?", "answers": ["The captain of the island."]}
            questions.append({"id": f"q{number}{lamp}", "document_id": f"d{number}", "set": split, **asked})
    for asked in (questions[-1], questions[-3]):
        asked["question"] = "Why ?"
    (folder / "books/index.json").write_text(json.dumps(books), encoding="utf-8")
    lines = "\n".join(map(json.dumps, questions)).encode()
    (folder / "narrativeqa/qa_valid_test.jsonl.gz").write_bytes(gzip.compress(lines))
    return folder


STEPS = 3


def run_of(model, data, out, *callbacks, **changes):
    """Books of some 900 tokens in rows of 550 to 650, of a model that has positions for 512."""
    fields = {"length": 650, "shortest": 550, "steps": STEPS, "rate": 1e-2, "accumulation": 2, "rank": 4, "alpha": 4}
    run = full_attention(out=out, data=data, model=str(model), save_every=1, **{**fields, **changes})
    return replace(run, callbacks=(*run.callbacks, *callbacks))


def test_it_learns_from_books_that_were_checked(tiny_folder, data, tmp_path):
    """One question is also asked of a book for reporting, and so left out of both that are trained on."""
    run = run_of(tiny_folder, data, tmp_path / "run", steps=9)
    assert run.callbacks[0].lines()[1].startswith("questions: 2 of 6 left out as evaluation data, such as q")
    lengths = set()
    for number in range(8):
        batch = run.data[number]
        assert (batch["labels"] != IGNORED).sum() < 40
        lengths.add(batch["input_ids"].shape[1])
    assert min(lengths) >= 540
    assert max(lengths) <= 650
    found = losses(train(run))
    assert sum(found[-3:]) < 0.7 * sum(found[:3])
    told = json.loads((tmp_path / "run" / FILE).read_text(encoding="utf-8"))
    assert [each["evaluation"] for each in told["parts"]["questions"]["left_out"]] == 2 * ["NarrativeQA test questions"]


def test_a_stopped_run_goes_on_with_the_same_losses(tiny_folder, data, tmp_path):
    whole = losses(train(run_of(tiny_folder, data, tmp_path / "whole")))
    assert len(whole) == STEPS
    train(run_of(tiny_folder, data, tmp_path / "stopped", StopAfter(1)))
    assert losses(train(run_of(tiny_folder, data, tmp_path / "stopped"))) == whole
    one, other = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == other


def test_what_was_trained_is_loaded_with_its_positions(tiny_folder, data, tmp_path):
    """The adapter by peft with the configuration beside it, and merged by transformers and by longfocus."""
    run = run_of(tiny_folder, data, tmp_path / "run", steps=2, rate=3e-2)
    train(run)
    ids = torch.randint(3, 400, (1, 640), generator=torch.Generator().manual_seed(0))
    bare = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
    extended = AutoConfig.from_pretrained(tmp_path / "run" / CONFIGURATION)
    with torch.no_grad():
        expected = run.lesson.eval().student(ids).logits.float()
        found = []
        for config in (extended, AutoConfig.from_pretrained(tiny_folder)):
            base = AutoModelForCausalLM.from_pretrained(tiny_folder, config=config, **bare)
            found.append(PeftModel.from_pretrained(base, str(tmp_path / "run")).eval()(ids).logits.float())
        adapted, unstretched = ((logits - expected).abs().mean() for logits in found)
        assert adapted < 1e-3
        assert unstretched > 0.3
        write_merged(run, tmp_path / "merged")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", **bare)(ids).logits.float()
        loaded = longfocus.load(tmp_path / "merged", mem_layers=[], window=640)
        ours = loaded.model.float()(ids, last_context_length=640).logits
    assert (merged - expected).abs().mean() < 0.1
    assert (ours - expected).abs().mean() < 0.1


def test_prompts_with_completions(tiny_folder, tmp_path):
    """A file of records; its folder has an evaluation set, and a run may begin with an adapter and wait on a disk."""
    asked = "how many lamps stood in the harbour that winter"
    records = [{"prompt": f"{story(60, seed=n)} How many?", "completion": f" {n}."} for n in range(3)]
    records[1]["prompt"] += f" Tell us {asked}."
    data = tmp_path / "long.jsonl"
    data.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    (tmp_path / "webquestions").mkdir()
    (tmp_path / "webquestions/test.jsonl").write_text(json.dumps({"question": asked}), encoding="utf-8")
    first = run_of(tiny_folder, data, tmp_path / "first", steps=1, extension="none", length=100)
    assert first.callbacks[0].left_out == {"long.jsonl": {1}}
    assert {first.data[number]["input_ids"].shape[1] for number in range(2)} == {100}
    train(first)
    where = str(tmp_path / "first")
    run = run_of(tiny_folder, data, tmp_path / "run", steps=1, extension="none", length=100, start=where, offload=where)
    weights = [
        {name: weight for name, weight in one.lesson.named_parameters() if "lora" in name} for one in (first, run)
    ]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert len(losses(train(run))) == 1


def test_the_figures_in_the_docs():
    """The blocks of the section are run, and print what stands behind them."""
    page = (DOCS / "training.md").read_text("utf-8")
    section = page.partition("## Full attention to 100K\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert "596" in section
    assert "782" in section
    names: dict[str, object] = {}
    told = []
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block, names)
        told += [comment.strip() for comment in re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)]
        assert printed.getvalue().splitlines() == told[len(told) - len(printed.getvalue().splitlines()) :]
    saved = [pair for line in told if ";" in line for pair in line.split("; ")]
    assert len(saved) == 8
    assert all(f"| {pair} |" in section for pair in saved), "the table says what was computed"
