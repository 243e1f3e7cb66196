"""What tells runs apart: whatever answers depend on, in words that a reader of a report can tell them by."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from longfocus.evaluation.identity import differences, identity_of, ranges


@pytest.mark.parametrize(
    "changed",
    [{"mem_discount": 0.7}, {"last_context_length": 48}, {"mem_layers": (1, 3)}],
)
def test_settings_of_memory_are_part_of_it(changed, tiny_model):
    config = type(tiny_model.model.config)(**{**tiny_model.model.config.to_dict(), **changed})
    other = replace(tiny_model, model=SimpleNamespace(config=config, dtype=tiny_model.model.dtype))
    (told,) = differences([identity_of(tiny_model), identity_of(other)])[1:]
    assert len(told.split()) == 1
    assert "=" in told


def test_what_is_looked_at_while_reading_is_part_of_it(tiny_model):
    habits = replace(tiny_model.habits, top_k=7)
    assert differences([identity_of(tiny_model), identity_of(replace(tiny_model, habits=habits))])[1] == "top-k=7"


@pytest.mark.parametrize(("numbers", "shown"), [((), ""), ((5,), "5"), ((5, 6, 7, 9), "5-7,9"), ((1, 3, 4), "1,3-4")])
def test_ranges(numbers, shown):
    assert ranges(numbers) == shown


def test_twins_are_told_apart_by_what_differs():
    same = "0123456789abcdef float32 window=512"
    assert differences([f"{same} discount=0", f"{same} discount=0.5"]) == ["discount=0", "discount=0.5"]
    assert differences([same, f"{same} int8"]) == ["otherwise the same", "int8"]
    assert differences([same, same.replace("0123", "9876")]) == ["01234567…", "98764567…"]
    assert differences([same, same.replace("9", "8")]) == [same, same.replace("9", "8")]  # shortened they are alike
