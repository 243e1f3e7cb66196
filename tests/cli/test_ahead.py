"""What `read`, `serve` and `train` need is told, and refused in one line where there is no memory for it."""

from inspect import signature

import pytest
import torch
from safetensors.torch import load_file, save_file

from longfocus.asking.together import AT_ONCE
from longfocus.cli import ahead
from longfocus.cli.ahead import check_serving, check_training, lessons_of
from longfocus.errors import RequestError
from longfocus.loading.cache import CACHE_VARIABLE
from longfocus.loading.packed_matrix import GROUP
from longfocus.planning import machine
from longfocus.planning.machine import Memory
from longfocus.recipes import full_attention as full_attention_recipe
from longfocus.recipes.fot import SCHEMES, fot
from longfocus.recipes.full_attention import full_attention
from longfocus.recipes.recall import recall
from longfocus.recipes.tuning import tuning
from longfocus.training.fot import Growth
from tests.conftest import write_tiny_model

GIB = 1 << 30
RECIPES = {"fot": fot, "recall": recall, "tuning": tuning, "full_attention": full_attention}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFOCUS_BOOKS", str(tmp_path / "shelf"))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def little(monkeypatch):
    """A machine that has next to nothing left."""
    monkeypatch.setattr(machine, "memory_here", lambda: Memory(8 * GIB, 100 << 20, "its control group"))


@pytest.fixture
def said(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(ahead, "say", lines.append)
    return lines


def fields_of(recipe, **given):
    return {name: one.default for name, one in signature(RECIPES[recipe]).parameters.items()} | given


def only(recipe, **given):
    (lesson,) = lessons_of(recipe, fields_of(recipe, **given), 512)
    return lesson


def test_reading_what_does_not_fit_is_refused_before_a_model_is_loaded(command_line, little, tiny_folder, home):
    (home / "story.txt").write_text("A story. " * 50, encoding="utf-8")
    status, out, err = command_line("read", "story.txt", "--model", tiny_folder)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "reading needs about" in err
    assert "its control group has 100 MiB available" in err
    assert not (home / "shelf").exists()


def test_reading_tells_of_memory_and_does_not_mind_rates_that_are_damaged(command_line, tiny_folder, home):
    (home / "story.txt").write_text("A story of a lamp. " * 50, encoding="utf-8")
    (home / "cache").mkdir()
    (home / "cache" / "cpu-rates.json").write_text("{")
    status, _, err = command_line("read", "story.txt", "--model", tiny_folder)
    assert status == 0, err
    assert "MiB of memory, in about" in err
    assert "cpu-rates.json is damaged" in err
    status, out, err = command_line("plan", "--model", tiny_folder)
    assert status == 0
    assert "is damaged" in err
    assert out


def test_serving_counts_the_questions_that_are_answered_together(said, little, monkeypatch):
    with pytest.raises(RequestError, match=f"answering {AT_ONCE} questions at once needs about"):
        check_serving(None, None, None, "auto", 256, AT_ONCE)
    monkeypatch.setattr(machine, "memory_here", lambda: Memory(64 * GIB, 64 * GIB, "the machine"))
    check_serving(None, None, None, "none", 256, AT_ONCE)
    check_serving(None, None, None, "int8", 256, AT_ONCE)
    packed, plain = (float(line.split("about ")[1].split()[0].replace(",", "")) for line in said[::-1])
    assert packed > plain


def told(said):
    """Mebibytes that the last line tells."""
    number, unit = said[-1].split("about ")[1].split()[:2]
    return float(number.replace(",", "")) * {"MiB": 1, "GiB": 1024}[unit]


def test_serving_counts_as_many_answers_as_are_written_together(said, monkeypatch):
    monkeypatch.setattr(machine, "memory_here", lambda: Memory(64 * GIB, 64 * GIB, "the machine"))
    check_serving(None, None, None, "none", 256, 1)
    assert said[-1].startswith("1 questions at once take about ")
    one = told(said)
    check_serving(None, None, None, "none", 256, 64)
    assert told(said) > 2 * one
    monkeypatch.setattr(machine, "memory_here", lambda: Memory(2 * GIB, 2 * GIB, "the machine"))
    with pytest.raises(RequestError, match=r"answering 64 questions at once needs about .* --at-once"):
        check_serving(None, None, None, "none", 256, 64)


def test_serving_counts_weights_that_are_packed_because_their_file_was(said, tmp_path, monkeypatch):
    """As the model will be: one whose numbers have 4 bits is packed by itself, another is not."""
    monkeypatch.setattr(machine, "memory_here", lambda: Memory(64 * GIB, 64 * GIB, "the machine"))
    size = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 8}
    folder = write_tiny_model(tmp_path / "model", **size)
    check_serving(str(folder), None, None, "none", 256, 1)
    plain = told(said)
    check_serving(str(folder), None, None, "auto", 256, 1)
    assert told(said) == plain
    check_serving(str(folder), None, None, "int4", 256, 1)
    packed = told(said)
    assert packed > plain
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: rounded(held) if "_proj" in name else held for name, held in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    check_serving(str(folder), None, None, "auto", 256, 1)
    assert told(said) == packed


def rounded(weight):
    """As numbers of 4 bits come out: 16 steps in each group."""
    groups = weight.unflatten(1, (-1, GROUP))
    least, step = groups.amin(-1, keepdim=True), (groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)) / 15
    return (least + ((groups - least) / step).round() * step).flatten(1).contiguous()


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_tells_what_a_step_takes_or_is_refused(said, recipe, monkeypatch):
    monkeypatch.setattr(machine, "memory_here", lambda: Memory(640 * GIB, 640 * GIB, "the machine"))
    check_training(recipe, fields_of(recipe))
    (line,) = said
    assert line.startswith("a step needs about ")
    assert "640.0 GiB that are available, and takes about" in line
    monkeypatch.setattr(machine, "memory_here", lambda: Memory(GIB, 100 << 20, "the machine"))
    with pytest.raises(RequestError, match="`longfocus plan --train"):
        check_training(recipe, fields_of(recipe))


def test_a_step_is_planned_with_the_parameters_that_are_given(said, monkeypatch):
    few = only("tuning", rows=1, longest=512, rank=8)
    assert (few.rows, few.tokens, few.rank, few.labelled) == (1, 512, 8, 512)
    assert only("tuning", full_attention=True).kind == "full-attention"
    assert only("tuning", books="b").tokens == 8192
    assert only("full_attention", offload="here", optimizer="adamw_8bit").offload
    assert only("full_attention", length=1000, context_parallel=2).tokens == 500
    assert lessons_of("another", {}, 512) == []


def test_cross_batch_is_planned_with_the_rows_that_a_process_has_and_sees(monkeypatch):
    """Which are those that `CrossBatch` and `CrossDocuments` lay beside a row."""
    for fields in ({"pack": 8}, {"growth": "1,7@50"}, {"growth": "2", "scheme": "documents", "pack": 4}, {}):
        given = fields_of("fot", **fields)
        lesson = only("fot", **fields)
        keys = torch.zeros(lesson.rows, 1, 1, 1)
        beside = SCHEMES[given["scheme"]](given["pack"])(Growth.of(given["growth"]).largest).gather(keys, keys)
        assert lesson.seen == beside.keys.shape[2]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (only("fot", rows=16).rows, only("fot", rows=16).labelled) == (8, 8 * 1024)


def test_recall_is_planned_with_its_largest_kind_of_step(said, monkeypatch):
    monkeypatch.setattr(machine, "memory_here", lambda: Memory(640 * GIB, 640 * GIB, "the machine"))
    short, long = lessons_of("recall", fields_of("recall", middle=0), 512)
    assert (short.tokens, long.tokens, short.bank, long.bank) == (2048, 16_384, 24_576, 24_576)
    prose = only("recall", short=0, middle=0, long=0, long_prose=9, furthest=1000)
    assert (prose.tokens, prose.asked, prose.labelled, prose.bank) == (1536, 512, 2048, 1500)
    assert [one.rows for one in lessons_of("recall", fields_of("recall", reads=True, short=0, middle=0), 512)] == [2]
    for given in ({}, {"bank": 0}, {"bank": 0, "long_prose": 9}):
        check_training("recall", fields_of("recall", middle=0, long=0, **given))
    banked, bare, prosaic = (float(line.split("about ")[1].split()[0].replace(",", "")) for line in said)
    assert bare < banked
    assert bare < prosaic


def test_adamw_has_the_states_on_a_gpu_that_the_recipe_gives_it(monkeypatch):
    assert not only("full_attention").eight_bit
    monkeypatch.setattr(full_attention_recipe, "usual_optimizer", lambda: "paged_adamw_8bit")
    assert only("full_attention").eight_bit
    assert not only("full_attention", optimizer="adamw_torch").eight_bit


def test_a_model_that_is_not_here_is_left_to_what_loads_it(said, little):
    check_training("fot", fields_of("fot", model="nobody/nothing"))
    check_serving("nobody/nothing", None, None, "auto", 256, AT_ONCE)
    assert not said
