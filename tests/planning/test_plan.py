"""What is chosen so that it fits, and what is said where nothing does."""

import inspect
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.errors import BookError, RequestError
from longfocus.planning.ahead import check_room, reading_ahead
from longfocus.planning.counted import book_disk
from longfocus.planning.known_shapes import SHAPES
from longfocus.planning.plan import duration, gibibytes, plan_training, plan_uses, what_would_train, what_would_use
from longfocus.planning.rates import DEVICES, REFERENCE, rates_or_reference, write_rates
from longfocus.planning.training import KINDS, usual_lesson
from longfocus.planning.ways import usual_way, way_of
from longfocus.planning.work import entry_bytes
from longfocus.recipes.recall import recall

SMALL, LARGE = SHAPES["smollm2-135m-instruct"], SHAPES["llama-3.1-8b-instruct"]
GIB = 2**30


def by_name(shape, tokens, budget, device=REFERENCE, dtype=None):
    return {use.way.name: use for use in plan_uses(shape, tokens, [usual_way(shape)], device, budget, dtype)}


def test_without_a_bound_all_is_as_usual():
    uses = by_name(SMALL, 100_000, None)
    assert list(uses) == ["training-free", "full", "window", "retrieval"]
    assert all(use.fits and use.dtype == "bfloat16" for use in uses.values())
    assert uses["training-free"].way == usual_way(SMALL)
    assert uses["training-free"].reading_seconds < uses["full"].reading_seconds / 10
    assert uses["training-free"].tokens_per_second > 2 * uses["full"].tokens_per_second
    assert uses["window"].reading is None
    assert uses["full"].disk == 0
    assert "scaled positions" in uses["full"].note


def test_a_smaller_window_is_chosen_for_a_smaller_budget():
    whole = by_name(SMALL, 20_000, None)["training-free"]
    tight = by_name(SMALL, 20_000, whole.total - 1)["training-free"]
    assert tight.fits
    assert tight.way.window < whole.way.window
    assert tight.way.staying == tight.way.window // 2
    assert tight.total < whole.total


def test_numbers_are_chosen_by_speed():
    slow = replace(REFERENCE.rates["bfloat16"], products=1e9)
    device = replace(REFERENCE, rates={"bfloat16": slow, "float32": REFERENCE.rates["float32"]})
    whole = by_name(SMALL, 20_000, None, device)["training-free"]
    assert whole.dtype == "float32"
    assert by_name(SMALL, 20_000, whole.total - 200_000_000, device)["training-free"].dtype == "bfloat16"
    assert by_name(SMALL, 20_000, None, dtype="float32")["full"].dtype == "float32"


def test_full_attention_over_a_book_does_not_fit_where_memory_does():
    uses = by_name(LARGE, 100_000, 24 * GIB)
    assert uses["training-free"].fits
    assert not uses["full"].fits


def test_where_nothing_fits_it_says_what_would():
    uses = plan_uses(LARGE, 100_000, [usual_way(LARGE)], REFERENCE, 8 * GIB)
    assert not any(use.fits for use in uses)
    line = what_would_use(LARGE, 100_000, uses, REFERENCE, 8 * GIB)
    assert line.startswith("nothing fits 8.0 GiB: the least is 15.")
    assert "\n" not in line
    named = line.rpartition("; ")[2].removesuffix(" would fit")
    smaller = SHAPES[named]
    assert any(use.fits for use in plan_uses(smaller, 100_000, [usual_way(smaller)], REFERENCE, 8 * GIB))
    line = what_would_use(LARGE, 100_000, uses, REFERENCE, 1000)
    assert line.endswith("no smaller model that is known fits either")


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(SHAPES)),
    tokens=st.integers(1, 10**6),
    budget=st.integers(2**28, 2**38),
    device=st.sampled_from(sorted(DEVICES)),
)
def test_what_is_said_to_fit_does(name, tokens, budget, device):
    shape = SHAPES[name]
    tight = plan_uses(shape, tokens, [usual_way(shape)], DEVICES[device], budget)
    roomy = plan_uses(shape, tokens, [usual_way(shape)], DEVICES[device], 2 * budget)
    for one, two in zip(tight, roomy, strict=True):
        assert one.fits == (one.total <= budget)
        assert two.fits or not one.fits, "more memory never fits less"
        assert min(one.reading_seconds, one.first_token_seconds, one.tokens_per_second) >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_changed_until_it_fits(kind):
    way, lesson = usual_way(SMALL), usual_lesson(kind)
    usual = plan_training(SMALL, way, lesson, REFERENCE, None)
    assert (usual.lesson, usual.accumulation, usual.changes) == (lesson, 1, ())
    tight = plan_training(SMALL, way, lesson, REFERENCE, usual.bytes.total - 1)
    assert tight.fits
    assert tight.changes
    assert tight.lesson.rows * tight.accumulation == lesson.rows
    assert tight.bytes.total < usual.bytes.total
    none = plan_training(SMALL, way, lesson, REFERENCE, GIB // 2)
    assert not none.fits
    line = what_would_train(SMALL, way, none, GIB // 2, REFERENCE)
    assert line.startswith(f"{kind} does not fit 512 MiB: the least is ")


def test_an_adapter_is_what_would_fit():
    way, lesson = usual_way(LARGE), usual_lesson("fot")
    found = plan_training(LARGE, way, lesson, DEVICES["h100"], 80 * GIB)
    assert not found.fits
    assert what_would_train(LARGE, way, found, 80 * GIB, DEVICES["h100"]).endswith("an adapter (--rank 32) would fit")


def test_shorter_rows_are_what_would_fit():
    way, lesson = usual_way(SMALL), usual_lesson("full-attention")
    found = plan_training(SMALL, way, lesson, REFERENCE, 2 * GIB)
    line = what_would_train(SMALL, way, found, 2 * GIB, REFERENCE)
    assert "rows of " in line


def test_recipes_that_cannot_be_planned():
    with pytest.raises(RequestError, match="fot, recall, tuning, full-attention"):
        usual_lesson("nothing")


def test_recipes_are_those_that_there_are():
    from longfocus.recipes import RECIPES

    assert {kind.replace("-", "_") for kind in KINDS} <= RECIPES.keys()


def test_layers_as_they_were_trained():
    way = way_of(
        SMALL,
        {"mem_layers": [9, 14, 15, 18], "window_length": 1024, "window_overlap": 508, "sink_tokens": 4},
        {"look_back": 0, "top_k": None, "look_up": 4},
    )
    assert (way.name, way.memory_layers, way.stride, way.top_k) == ("memory", (9, 14, 15, 18), 512, None)
    assert book_disk(SMALL, way, 101_024, 2) - book_disk(SMALL, way, 1024, 2) == pytest.approx(307.2e6, rel=0.01)
    packed = replace(way, entry_item=1, entry_step=2)
    assert entry_bytes(SMALL, way) == 3072
    assert entry_bytes(SMALL, packed) == 2 * 4 * 3 * (64 + 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory_layers": [30]}, "layers 0 to 29"),
        ({"window": 9000}, "attend to 8192 at most"),
        ({"window": 64, "staying": 64}, "wanted 0 to 63"),
    ],
)
def test_ways_that_a_model_cannot_go(options, said):
    with pytest.raises(RequestError, match=said):
        usual_way(SMALL, **options)


def test_a_disk_without_room_is_refused_before_reading():
    ahead = reading_ahead(SMALL, usual_way(SMALL), 10**6, REFERENCE, "bfloat16")
    assert ahead.book < ahead.disk < 1.02 * ahead.book
    assert "1,000,000 tokens: 5.0 GiB on disk, 1.2 GiB of memory, in about" in str(ahead)
    assert "if this machine" in str(ahead)
    assert "if this machine" not in str(replace(ahead, sure=True))
    check_room(ahead, ahead.disk, "here")
    check_room(ahead, ahead.disk - 10**9, "here", written=10**9)
    with pytest.raises(BookError, match=r"needs 5\.1 GiB for 1,000,000 tokens, and 3\.0 GiB are free; make room"):
        check_room(ahead, 3 * GIB, "here")


def test_no_time_is_told_for_a_device_that_was_not_measured(tmp_path):
    """A GPU is not as fast as a CPU that was measured; what is counted holds for it as well."""
    device, note = rates_or_reference(tmp_path / "cuda-rates.json", "cuda")
    assert (device.kind, note) == ("cuda", "")
    told = str(reading_ahead(SMALL, usual_way(SMALL), 10**6, device, "bfloat16"))
    assert "GiB on disk" in told
    assert "in about" not in told and "as fast as" not in told
    write_rates(tmp_path / "cuda-rates.json", replace(device, name="a GPU", rates=REFERENCE.rates))
    device, _ = rates_or_reference(tmp_path / "cuda-rates.json", "cuda")
    assert "in about" in str(reading_ahead(SMALL, usual_way(SMALL), 10**6, device, "bfloat16"))
    assert "in about" not in str(reading_ahead(SMALL, usual_way(SMALL), 10**6, device, "float16"))
    (tmp_path / "cuda-rates.json").write_text("{")
    device, note = rates_or_reference(tmp_path / "cuda-rates.json", "cuda")
    assert not device.rates and "is damaged" in note


def test_amounts_for_people():
    assert gibibytes(640e9) == "596.0 GiB"
    assert gibibytes(100 * 2**20) == "100 MiB"
    assert [duration(seconds) for seconds in (0.5, 90, 7200, 3 * 86_400)] == ["0.50 s", "90.0 s", "2.0 h", "3.0 days"]


def test_recall_is_changed_by_what_it_can_be_told():
    """It has stages and no rows to choose."""
    way, lesson = usual_way(SMALL), usual_lesson("recall")
    usual = plan_training(SMALL, way, lesson, REFERENCE, None)
    least = plan_training(SMALL, way, lesson, REFERENCE, 1)
    assert plan_training(SMALL, way, lesson, REFERENCE, usual.bytes.total - 1).changes == ("--bank 12288",)
    assert least.changes == ("--long 0",)
    options = inspect.signature(recall).parameters
    assert {"bank", "long"} <= set(options)
    assert not {"rows", "accumulation"} & set(options)
