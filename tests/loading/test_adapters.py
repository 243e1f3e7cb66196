"""Adapters: what a run saved is what `load` puts into the model, and nothing else is taken for one."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from torch.testing import assert_close
from transformers import LlamaForCausalLM

from longfocus.asking.generation import Sampling
from longfocus.asking.session import Session
from longfocus.books import Book, read
from longfocus.errors import CheckpointError
from longfocus.loading import adapters, whereabouts
from longfocus.loading.adapters import NOTE, WEIGHTS, AdapterNote
from longfocus.loading.default_model import DEFAULT_MODEL
from longfocus.loading.defaults import UNTRAINED, BookHabits
from longfocus.loading.load import load
from longfocus.memory.book import StoredBook
from longfocus.training.lessons import RecallLesson, with_lora

HOW = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def made(tiny_folder, tmp_path_factory):
    """An adapter's folder and the model that it was made with, its weights far from zero."""
    folder = tmp_path_factory.mktemp("adapter")
    loaded = load(tiny_folder, window=48, mem_layers=[2], **HOW)
    student = with_lora(loaded.model, 4, ["q_proj", "v_proj"], first_layer=1)
    torch.manual_seed(0)
    for name, parameter in student.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    note = AdapterNote.of(loaded.fingerprint, loaded.model.config, BookHabits(0, 24))
    RecallLesson(student, note=note).save(folder)
    return folder, student.eval()


@pytest.fixture
def folder(made, tmp_path):
    """A copy that may be damaged."""
    for path in made[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_the_model_is_the_one_that_was_trained(tiny_folder, made):
    folder, student = made
    loaded = load(tiny_folder, adapter=folder, **HOW)
    ids = torch.arange(200)[None] % 300
    with torch.no_grad():
        assert_close(loaded.model(ids).logits, student(ids).logits, rtol=1e-4, atol=1e-4)
        plain = load(tiny_folder, window=48, mem_layers=[2], **HOW)
        assert not torch.allclose(plain.model(ids).logits, loaded.model(ids).logits, atol=0.1)
    config = loaded.model.config
    assert (config.mem_layers, config.window, config.window_overlap, config.sink_tokens) == ([2], 48, 20, 4)
    assert loaded.habits == BookHabits(0, 24)
    assert loaded.fingerprint != plain.fingerprint
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


@pytest.fixture(scope="module")
def asking(made, tmp_path_factory):
    """The same adapter as one that leaves reading to the model as it is."""
    folder = tmp_path_factory.mktemp("asking")
    for path in made[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    note = AdapterNote.read(folder)
    replace(note, reads=False).write(folder)
    return folder


def test_an_adapter_may_leave_reading_to_the_model(tiny_folder, made, asking):
    plain = load(tiny_folder, window=48, mem_layers=[2], **HOW)
    loaded, always = (load(tiny_folder, adapter=folder, **HOW) for folder in (asking, made[0]))
    ids = torch.arange(200)[None] % 300
    with torch.no_grad():
        assert_close(loaded.model(ids).logits, always.model(ids).logits)
        assert torch.equal(loaded.reader.model(ids).logits, plain.model(ids).logits)
    assert loaded.reader.fingerprint == plain.fingerprint != loaded.fingerprint == always.fingerprint
    assert (loaded.reader.habits, loaded.habits) == (UNTRAINED, BookHabits(0, 24))
    assert always.reader is always
    held = dict(loaded.reader.model.named_parameters())
    own = {name for name, weight in loaded.model.named_parameters() if weight is not held[name]}
    assert own == {f"model.layers.{layer}.self_attn.{which}_proj.weight" for layer in (1, 2, 3) for which in "qv"}


def test_a_book_that_was_read_without_it_is_asked_with_it(tiny_folder, asking, tmp_path):
    book = tmp_path / "a.txt"
    book.write_text("The captain lived in Bergen. He had a red boat. " * 20, encoding="utf-8")
    how = {"window": 96, "window_overlap": 44, "mem_layers": [2]}
    read(book, load(tiny_folder, adapter=None, **how, **HOW), tmp_path / "book")
    plain, taught = (load(tiny_folder, adapter=adapter, **how, **HOW) for adapter in (None, asking))
    answers = [
        Book(Session(StoredBook.open(tmp_path / "book"), loaded)).ask("Where?", sampling=Sampling(8), look_up=0).ids
        for loaded in (plain, taught)
    ]
    assert answers[0] != answers[1]
    again = read(book, taught, tmp_path / "other")
    assert again.ask("Where?", sampling=Sampling(8), look_up=0).ids == answers[1]
    assert again.find("Where?") == Book(Session(StoredBook.open(tmp_path / "book"), plain)).find("Where?")


def test_arguments_override_the_adapters_memory(tiny_folder, made):
    config = load(tiny_folder, adapter=made[0], mem_layers=[1, 2], window=32, **HOW).model.config
    assert (config.mem_layers, config.window, config.last_context_length) == ([1, 2], 32, 24)


def test_transformers_and_peft_load_it_alone(tiny_folder, made):
    folder, student = made
    theirs = PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32), folder
    ).eval()
    ids = torch.arange(40)[None]  # within one window
    with torch.no_grad():
        assert_close(theirs(ids).logits, student(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.fixture
def shipped(made, tiny_folder, tmp_path, monkeypatch):
    """The adapter as one that comes with the package, and the small model as the default one."""
    folder = tmp_path / "adapters" / DEFAULT_MODEL
    shutil.copytree(made[0], folder)
    monkeypatch.setattr(adapters, "SHIPPED", folder.parent)
    monkeypatch.setattr(whereabouts, "default_model_dir", lambda say: tiny_folder)
    return folder


def test_the_default_model_comes_with_its_adapter(shipped, made):
    usual = load(**HOW)
    assert usual.fingerprint == load(adapter=made[0], **HOW).fingerprint
    assert usual.habits == BookHabits(0, 24)
    assert load(mem_layers=[2], window=32, **HOW).fingerprint == usual.fingerprint
    plain = load(adapter=None, **HOW)
    assert plain.fingerprint != usual.fingerprint
    assert plain.habits == UNTRAINED
    assert load(mem_layers=[1, 2], **HOW).fingerprint == plain.fingerprint


def test_an_adapter_that_is_shipped_fits_another_conversion_of_its_model(shipped, made):
    for folder in (shipped, made[0]):
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        (shipped / NOTE).write_text(json.dumps(note | {"base": "0" * 64}), encoding="utf-8")
    assert load(**HOW).habits == BookHabits(0, 24)
    with pytest.raises(CheckpointError, match="was trained on another model"):
        load(adapter=shipped, **HOW)


def test_another_folder_of_the_same_weights_has_no_adapter(shipped, tiny_folder):
    assert load(tiny_folder, **HOW).habits == UNTRAINED


def test_a_book_is_opened_with_the_adapter_that_read_it(shipped, tiny_document, tmp_path):
    for name, adapter in (("usual", "usual"), ("plain", None)):
        read(tiny_document, load(adapter=adapter, **HOW), tmp_path / name)
    assert Book.open(tmp_path / "usual").session.loaded.habits == BookHabits(0, 24)
    assert Book.open(tmp_path / "plain").session.loaded.habits == UNTRAINED


def test_another_model_is_refused(made, tmp_path):
    from tests.conftest import write_tiny_model

    with pytest.raises(CheckpointError, match="was trained on another model"):
        load(write_tiny_model(tmp_path / "other", seed=5), adapter=made[0], **HOW)


def test_a_folder_that_is_no_adapter(tiny_folder, tmp_path):
    with pytest.raises(CheckpointError, match=f"has no {NOTE}"):
        load(tiny_folder, adapter=tmp_path, **HOW)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "has format 9"),
        ({"habits": {}}, "is damaged"),
        ({"habits": {"look_back": "all", "top_k": None}}, "is damaged"),
        ({"memory": {"mem_layers": [1]}}, "is damaged"),
        ({"memory": None}, "is damaged"),
    ],
)
def test_a_note_that_makes_no_sense(tiny_folder, folder, change, message):
    note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    (folder / NOTE).write_text(json.dumps(note | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        load(tiny_folder, adapter=folder, **HOW)


@pytest.mark.parametrize("damage", ["missing", "cut", "no config", "text"])
def test_damaged_weights_are_one_line(tiny_folder, folder, damage):
    path = folder / WEIGHTS
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("not weights")
    else:
        (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError) as refused:
        load(tiny_folder, adapter=folder, **HOW)
    assert len(str(refused.value).splitlines()) == 1
