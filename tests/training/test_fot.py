"""The lesson of cross-batch training: its loss, what grows, what is masked, that it goes on exactly; and its recipe."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

import longfocus
from longfocus.errors import RequestError
from longfocus.loading.load import load
from longfocus.model.cache import LongLlamaCache
from longfocus.recipes.fot import fot
from longfocus.training.crossbatch import CrossBatch, CrossBatchMemory
from longfocus.training.engine import train
from longfocus.training.fot import FotLesson, Growth, check_rows
from tests.conftest import story
from tests.training.small_runs import StopAfter, losses

SEEN = partial(CrossBatch, packing=2)


@pytest.fixture
def model(tiny_folder):
    memory = {"window": 16, "window_overlap": 0, "sink_tokens": 0, "last_context_length": 16, "mem_layers": [1, 2]}
    return load(tiny_folder, dtype="float32", **memory).model.requires_grad_(True)


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    """Four rows; in the last, one document ends and another begins, and some tokens are no targets."""
    draw = torch.Generator().manual_seed(0)
    ids, labels = (torch.randint(3, 400, (4, 16), generator=draw) for _ in range(2))
    labels[3, 2:9] = -100
    documents = torch.tensor([0, 0, 1, 1])[:, None].repeat(1, 16)
    documents[3, 6:] = 2
    return {"input_ids": ids, "labels": labels, "document_ids": documents}


def test_the_loss_is_the_mean_of_the_means_of_rows(model, batch):
    lesson = FotLesson(model, SEEN, Growth.of("2")).train()
    memories = {layer: CrossBatchMemory(CrossBatch(2, packing=2)) for layer in (1, 2)}
    logits = model(batch["input_ids"], past_key_values=LongLlamaCache.of_memories(memories, 4), use_cache=False).logits
    rows = [cross_entropy(*row) for row in zip(logits, batch["labels"], strict=True)]
    told = lesson(**batch)
    assert_close(told["loss"], torch.stack(rows).mean())
    assert told["seen"] == 2
    assert told["loss"].requires_grad


def test_evaluation_sees_nothing_but_the_row_unless_told(model, batch):
    alone = FotLesson(model, SEEN, Growth.of("3")).eval()(**batch)["loss"]
    plain = torch.stack([cross_entropy(model(ids[None]).logits[0], labels)
                         for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)])  # fmt: skip
    assert_close(alone, plain.mean())
    trained = FotLesson(model, SEEN, Growth.of("3")).train()(**batch)["loss"]
    assert_close(FotLesson(model, SEEN, Growth.of("0"), evaluated_with=3).eval()(**batch)["loss"], trained)
    assert (alone - trained).abs() > 1e-4


def test_documents_are_kept_apart_in_a_row(model, batch):
    """Tokens of another document in the row change nothing; those of other rows are seen as before."""
    lesson = FotLesson(model, SEEN, Growth.of("1"), within_documents=True).train()
    labels = torch.full_like(batch["labels"], -100)
    labels[3, 6:] = batch["labels"][3, 6:].clamp_min(3)
    before = lesson(**{**batch, "labels": labels})["loss"]
    for row, changes in ((3, False), (2, True)):  # of row 3 another document, of row 2 as much of another
        ids = batch["input_ids"].clone()
        ids[row, :6] = 5
        after = lesson(**{**batch, "labels": labels, "input_ids": ids})["loss"]
        assert bool((after - before).abs() > 1e-5) == changes
    whole = {**batch, "document_ids": torch.zeros_like(batch["document_ids"])}
    assert_close(lesson(**whole)["loss"], FotLesson(model, SEEN, Growth.of("1")).train()(**batch)["loss"])


def test_what_does_not_fit_is_told(model, batch):
    with pytest.raises(RequestError, match="Rows have 20 tokens, the model's window 16"):
        FotLesson(model, SEEN, Growth.of("1"))(torch.ones(2, 20, dtype=torch.long), torch.ones(2, 20, dtype=torch.long))
    with pytest.raises(RequestError, match="the data does not tell them"):
        FotLesson(model, SEEN, Growth.of("1"), within_documents=True)(batch["input_ids"], batch["labels"])


def test_growth_is_a_function_of_the_step():
    paper = Growth.of("1, 63@450000")
    assert [paper.at(step) for step in (0, 449_999, 450_000, 499_999)] == [1, 1, 63, 63]
    drawn = Growth.of("0,1/7@10,3@40", seed=4)
    found = [drawn.at(step) for step in range(50)]
    assert set(found[:10]) == {0}
    assert set(found[10:40]) == {1, 7}
    assert set(found[40:]) == {3}
    assert found == [Growth.of("0,1/7@10,3@40", seed=4).at(step) for step in range(50)]
    assert found != [Growth.of("0,1/7@10,3@40", seed=5).at(step) for step in range(50)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "says nothing"),
        ("1,x", "says nothing"),
        ("-1", "says nothing"),
        ("1@5", "begin at"),
        ("1,2@9,3@9", "go up"),
    ],
)
def test_growth_that_makes_no_sense(text, message):
    with pytest.raises(RequestError, match=message):
        Growth.of(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two sources, and an evaluation set that one document is of."""
    folder = tmp_path_factory.mktemp("data")
    texts = [story(120, seed=number) for number in range(12)]
    (folder / "pages.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    (folder / "book.txt").write_text(story(900, seed=50), encoding="utf-8")
    (folder / "longchat").mkdir()
    held = json.dumps({"conversation": texts[3]})
    (folder / "longchat" / "conversations_30.jsonl").write_text(held, encoding="utf-8")
    return folder


def run_of(tiny_folder, folder, out, **fields):
    sources = f"{folder / 'pages.jsonl'}:3,{folder / 'book.txt'}:1"
    settings = {"data": sources, "evaluation": str(folder), "memory_layers": "1,2", "rows": 4, "row_tokens": 32,
                "pack": 2, "steps": 4, "save_every": 1, "warmup": 0, "rate": 1e-3, "rank": 2}  # fmt: skip
    return fot(out=out, model=str(tiny_folder), **{**settings, **fields})


def test_a_run_goes_on_exactly_and_leaves_an_adapter(tiny_folder, data, tmp_path):
    """With what grows, what is drawn for each step, two sources and documents kept apart."""
    fields = {
        "growth": "1,0/1/3@1",
        "within_documents": True,
        "held_out": str(data / "book.txt"),
        "held_out_batches": 2,
    }
    whole = train(run_of(tiny_folder, data, tmp_path / "whole", **fields))
    stopped = run_of(tiny_folder, data, tmp_path / "stopped", **fields)
    train(replace(stopped, callbacks=(*stopped.callbacks, StopAfter(2))))
    resumed = train(run_of(tiny_folder, data, tmp_path / "stopped", **fields))
    assert losses(resumed) == losses(whole)
    seen = [[line["seen"] for line in one.state.log_history if "seen" in line] for one in (whole, resumed)]
    assert seen[0] == seen[1] == [1.0, *(float(Growth.of("0/1/3", seed=1).at(step)) for step in (1, 2, 3))]
    assert [line["eval_loss"] for line in whole.state.log_history if "eval_loss" in line] != []
    adapted = longfocus.load(tiny_folder, adapter=tmp_path / "whole").model.config
    assert (adapted.mem_layers, adapted.window, adapted.window_overlap, adapted.sink_tokens) == ([1, 2], 32, 0, 0)


def test_a_whole_model_learns(tiny_folder, data, tmp_path):
    run = run_of(
        tiny_folder, data, tmp_path / "run", rank=0, steps=25, rate=1e-2, save_every=25, scheme="documents", growth="2"
    )
    found = losses(train(run))
    assert sum(found[-5:]) < 0.9 * sum(found[:5])
    assert all(weight.requires_grad for weight in run.lesson.parameters())
    loaded = longfocus.load(tmp_path / "run", dtype="float32")  # as its card says
    assert "longfocus.load(folder)" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert (loaded.model.config.mem_layers, loaded.model.config.window) == ([1, 2], 32)
    assert loaded.tokenizer.get_vocab() == run.tokenizer.get_vocab()
    assert_close(loaded.model.state_dict(), run.lesson.student.state_dict())


def test_what_is_tested_on_is_left_out(tiny_folder, data, tmp_path):
    run = run_of(tiny_folder, data, tmp_path / "run", steps=1)
    train(run)
    told = json.loads((tmp_path / "run" / "contamination.json").read_text(encoding="utf-8"))
    out = [one["document"] for part in told["parts"].values() for one in part["left_out"]]
    assert out == ["pages.jsonl:4"]
    batches = run_of(tiny_folder, data, tmp_path / "other").data
    for _, taken in zip(range(40), batches, strict=False):
        assert taken["input_ids"].shape == (4, 32)
    taken = batches.taken()
    assert all(one.tokens > 0 for one in taken.values())
    (data / "longchat" / "only.jsonl").write_text(json.dumps({"text": story(120, seed=3)}), encoding="utf-8")
    with pytest.raises(RequestError, match="All 1 documents"):
        run_of(tiny_folder, data, tmp_path / "none", data=str(data / "longchat" / "only.jsonl"))
    run_of(tiny_folder, data, tmp_path / "none", data=str(data / "longchat" / "only.jsonl"), evaluation="")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scheme": "all"}, "no scheme 'all'; wanted stepping"),
        ({"data": ","}, "names no data"),
        ({"data": "a.txt,a.txt:2"}, "names a source twice"),
        ({"rows": 5}, "cannot be made of packs"),
        ({"separator": "<|none|>"}, "no token '<|none|>'"),
        ({"growth": "many"}, "says nothing about growth"),
        ({"evaluate_every": 2}, "nothing to evaluate on"),
        ({"growth": "1,7@5"}, "No row would see 7 rows before it: 4 rows have 3. Give --rows 8,"),
        ({"growth": "3", "scheme": "documents"}, "windows of 3 documents: 4 rows have 2. Give --rows 6,"),
    ],
)
def test_fields_that_make_no_sense(tiny_folder, data, tmp_path, fields, message):
    with pytest.raises(RequestError, match=message.replace("|", r"\|")):
        run_of(tiny_folder, data, tmp_path, **fields)


def test_rows_of_a_process_have_to_hold_another_document(tiny_folder, data, tmp_path, monkeypatch):
    """Nothing is seen of other processes, so a batch that does for one may not do for two."""
    fields = {"rows": 8, "pack": 4}
    run_of(tiny_folder, data, tmp_path, **fields)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RequestError, match=r"No row would see another document: 8 rows are 4 for each of 2 processes"):
        run_of(tiny_folder, data, tmp_path, **fields)
    with pytest.raises(RequestError, match=r"No row would see 7 rows before it: .* Give --rows 16,"):
        run_of(tiny_folder, data, tmp_path, growth="7", rows=8, pack=2)
    with pytest.raises(RequestError, match="cannot be shared by 2 processes"):
        run_of(tiny_folder, data, tmp_path, growth="1", rows=6, pack=2)
    check_rows(SEEN, Growth.of("1,3@5"), 8, 2, 2)


def test_a_separator_stands_between_documents(tiny_folder, data, tmp_path):
    run = run_of(tiny_folder, data, tmp_path, separator="<|pad|>", data=str(data / "pages.jsonl"))
    batch = next(iter(run.data))
    ends = batch["document_ids"].diff(dim=1) != 0
    assert bool((batch["input_ids"][:, :-1][ends] == 0).all())
    assert not bool((batch["input_ids"] == 1).any())


def test_the_command_trains_and_goes_on(tiny_folder, data, tmp_path, monkeypatch, command_line):
    """`longfocus train fot`, given twice: the second time there is nothing left to do but what --merge adds."""
    monkeypatch.chdir(tmp_path)
    fields = {"data": data / "pages.jsonl", "evaluation": data, "model": tiny_folder, "out": "made", "steps": 3,
              "memory-layers": "1,2", "rows": 4, "row-tokens": 32, "pack": 2, "rank": 0}  # fmt: skip
    words = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    for more in ([], ["--merge", "merged"]):
        status, _, said = command_line("train", "fot", *words, *more)
        assert status == 0, said
    assert "over already" in said
    loaded = longfocus.load(tmp_path / "merged")
    assert (loaded.model.config.mem_layers, loaded.model.config.window) == ([1, 2], 32)
    assert loaded.habits.top_k is None
