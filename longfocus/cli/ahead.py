"""What `read`, `serve` and `train` need of this machine, told or refused before a model is loaded.

The planner counts (`longfocus.planning`), here is what it is asked. Nothing is said of a model whose shape is not known
yet, such as one that is to be fetched: the verb goes on, and what is wrong with it is told by what loads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longfocus.cli.drawing import say
from longfocus.errors import UserError

if TYPE_CHECKING:
    from longfocus.planning.rates import Device
    from longfocus.planning.shapes import Shape
    from longfocus.planning.training import Lesson
    from longfocus.planning.ways import Way

ITEM = 2
"""Bytes of a number, the fewest that a model is computed in: what is refused would not fit in any type."""


def check_reading(
    model: str | None,
    memory_layers: Sequence[int] | None,
    window: int | None,
    characters: int | None = None,
    most: int | None = None,
) -> None:
    """Refuse to read what there is no memory for; how long it takes is told when its tokens are counted.

    Args:
        model: The model's name, as for `load`.
        memory_layers: In place of its own.
        window: In place of its own.
        characters: Of the document; None for one that is not known yet.
        most: Most tokens that are read of it.

    Raises:
        RequestError: There is too little memory.
    """
    from longfocus.planning import counted
    from longfocus.planning.ahead import check_memory

    found = _shape_and_way(model, memory_layers, window)
    if found is None:
        return
    shape, way = found
    tokens = way.window if characters is None else int(characters / counted.LETTERS)
    device, room, bound = _machine()
    needed = counted.reading(shape, way, min(tokens, most or tokens), device, ITEM).total
    check_memory("reading", needed, room, bound, _smaller("--window"))


def check_serving(
    model: str | None,
    memory_layers: Sequence[int] | None,
    window: int | None,
    quantize: str,
    max_tokens: int,
    at_once: int,
) -> None:
    """Tell what serving needs, with as many questions at once as are answered together and the longest Book there is.

    Args:
        model: The model's name, as for `load`.
        memory_layers: In place of its own.
        window: In place of its own.
        quantize: How weights are packed for writing, as for `for_writing`.
        max_tokens: Most tokens of an answer.
        at_once: Most answers that are written together.

    Raises:
        RequestError: There is too little memory.
    """
    from longfocus.memory.library import list_books
    from longfocus.planning import counted
    from longfocus.planning.ahead import check_memory
    from longfocus.planning.plan import QUESTION, gibibytes
    from longfocus.serving.limits import Limits

    found = _shape_and_way(model, memory_layers, window)
    if found is None:
        return
    shape, way = found
    longest = max((listed.tokens for listed in list_books()), default=way.window)
    device, room, bound = _machine()
    answer = min(max_tokens, Limits().usual_tokens)
    needed = counted.asking(shape, way, longest, QUESTION, answer, device, ITEM, at_once).total
    needed += Limits().open_books * counted.kept_keys(shape, shape.layers, way.staying, ITEM)
    needed += counted.packed_weights(shape, _packing(model, quantize, device))
    smaller = "take a smaller model, --window or --at-once; `longfocus plan` tells what would fit"
    check_memory(f"answering {at_once} questions at once", needed, room, bound, smaller)
    free = f" of {gibibytes(room)} that are available" if room is not None else ""
    say(f"{at_once} questions at once take about {gibibytes(needed)}{free}")


def check_training(recipe: str, fields: Mapping[str, Any]) -> None:
    """Tell what a step of a recipe needs and takes.

    Args:
        recipe: Its name, as in `longfocus.recipes.RECIPES`.
        fields: Its parameters.

    Raises:
        RequestError: There is too little memory.
    """
    from longfocus.loading.cache import cache_dir
    from longfocus.planning.ahead import check_memory
    from longfocus.planning.plan import duration, gibibytes
    from longfocus.planning.rates import RATES_FILE, rates_or_reference
    from longfocus.planning.training import recipe_layers, step_bytes, step_seconds

    layers = _layers(fields.get("memory_layers"))
    found = _shape_and_way(fields.get("model") or None, layers, fields.get("window") or None)
    if found is None:
        return
    shape, way = found
    lessons = lessons_of(recipe, fields, way.stride)
    if not lessons:
        return
    if layers is None and lessons[0].kind != "tuning":
        way = replace(way, memory_layers=recipe_layers(lessons[0], shape))
    device, room, bound = _machine()
    lessons = [replace(lesson, memory_layers=len(way.memory_layers)) for lesson in lessons]
    lesson = max(lessons, key=lambda one: step_bytes(shape, way, one, device).total)
    needed = step_bytes(shape, way, lesson, device).total
    plan = f"`longfocus plan --train {lesson.kind}` tells what would fit"
    check_memory(f"a step of {lesson.kind}", needed, room, bound, plan)
    free = f" of {gibibytes(room)} that are available" if room is not None else ""
    told = f"a step needs about {gibibytes(needed)}{free}"
    if device.kind == "cpu":
        measured, note = rates_or_reference(cache_dir() / f"cpu-{RATES_FILE}")
        rates = measured.rates_of(measured.dtype)
        each = step_seconds(shape, way, lesson, rates) * (fields.get("accumulation") or 1)
        told += f", and takes about {duration(each)}"
        told += "" if measured.origin == "measured" else ", if this machine is as fast as one that was measured"
        told += f" ({note})" if note else ""
    say(told)


def lessons_of(recipe: str, fields: Mapping[str, Any], stride: int) -> list[Lesson]:
    """The kinds of steps that a recipe with these parameters takes, in one process of as many as there are.

    Args:
        recipe: Its name; one that cannot be planned has none.
        fields: Its parameters.
        stride: New tokens of a window, as passages of long prose are.

    Raises:
        RequestError: A parameter makes no sense.
    """
    from longfocus.planning.training import FOT, FULL_ATTENTION, KINDS, RECALL, TUNING, usual_lesson

    kind = recipe.replace("_", "-")
    if kind not in KINDS:
        return []
    if kind == FOT:
        return [_fot(fields)]
    if kind == RECALL:
        return _recall(fields, stride)
    rank = fields["rank"]
    if kind == TUNING:
        rows, row = fields["rows"], max(fields["longest"], fields["books_length"] if fields["books"] else 0)
        lesson = usual_lesson(FULL_ATTENTION if fields["full_attention"] else TUNING, row)
        return [replace(lesson, rows=rows, rank=rank, first_layer=fields["first_layer"], labelled=rows * row)]
    from longfocus.recipes.full_attention import usual_optimizer

    lesson = usual_lesson(FULL_ATTENTION, -(-fields["length"] // fields["context_parallel"]))
    eight_bit = "8bit" in (fields["optimizer"] or usual_optimizer())
    return [replace(lesson, rank=rank, offload=bool(fields["offload"]), eight_bit=eight_bit)]


def _fot(fields: Mapping[str, Any]) -> Lesson:
    from longfocus.planning.training import FOT, usual_lesson
    from longfocus.training.fot import Growth
    from longfocus.training.parallel import processes

    rows, row = max(fields["rows"] // processes()[1], 1), fields["row_tokens"]
    most = Growth.of(fields["growth"]).largest
    seen = most * (fields["pack"] - 1) if fields["scheme"] == "documents" else most  # documents, or rows
    lesson = replace(usual_lesson(FOT, row), rows=rows, rank=fields["rank"], seen=seen, labelled=rows * row)
    return replace(lesson, anew=fields["checkpointing"])


def _recall(fields: Mapping[str, Any], stride: int) -> list[Lesson]:
    from longfocus.planning.training import RECALL, usual_lesson

    reads = fields["reads"]
    longest = (2, 8192) if reads else (4, 16_384)
    stages = (fields["short"], 4, 2048), (fields["middle"], 4, 4096), (fields["long"], *longest)
    usual = replace(usual_lesson(RECALL), rank=fields["rank"], first_layer=fields["first_layer"])
    lessons = [
        replace(usual, rows=rows, tokens=tokens, labelled=usual.labelled * rows // usual.rows, bank=fields["bank"])
        for batches, rows, tokens in stages
        if batches
    ]
    if fields["long_prose"]:
        # each passage with what comes before it, and for some half as much of another book
        seen = fields["furthest"] + fields["furthest"] // 2
        lessons.append(replace(usual, tokens=3 * stride, asked=stride, labelled=usual.rows * stride, bank=seen))
    return lessons


def _shape_and_way(
    model: str | Path | None, memory_layers: Sequence[int] | None, window: int | None
) -> tuple[Shape, Way] | None:
    """What is known of a model before it is loaded; None where that is too little."""
    from longfocus.loading.shapes import find_shape, way_with_memory

    try:
        found = find_shape(model)
        return found.shape, way_with_memory(found, memory_layers, window)
    except UserError:
        return None


def _packing(model: str | None, quantize: str, device: Device) -> str:
    """How weights will be packed: as it is told, or, where that is left to the model, as its file tells."""
    from longfocus.loading.packed_weights import AUTO, NONE, packs_by_itself
    from longfocus.loading.shapes import find_shape

    if quantize != AUTO:
        return quantize
    source = Path(find_shape(model).source)
    return "int4" if device.kind == "cpu" and source.is_file() and packs_by_itself(source) else NONE


def _machine() -> tuple[Device, int | None, str]:
    """What computes, the bytes of its memory that can be had, and what bounds them."""
    import torch

    from longfocus.planning.machine import memory_here
    from longfocus.planning.rates import REFERENCE

    if torch.cuda.is_available():
        return replace(REFERENCE, kind="cuda"), torch.cuda.mem_get_info()[0], "the GPU"
    here = memory_here()
    return (REFERENCE, here.available, here.bound) if here else (REFERENCE, None, "")


def _layers(text: str | None) -> list[int] | None:
    """Layers as a recipe takes them; None for its own, and for what the recipe refuses."""
    from longfocus.loading.layer_numbers import layer_numbers

    try:
        return layer_numbers(text or None)
    except UserError:
        return None


def _smaller(option: str) -> str:
    return f"take a smaller model or {option}; `longfocus plan` tells what would fit"
