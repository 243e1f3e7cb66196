"""`longfocus plan`: bytes and time of reading, asking and training, before anything is loaded. Never imports torch,
unless it is asked to measure.
"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longfocus.errors import RequestError

if TYPE_CHECKING:
    from longfocus.loading.shapes import FoundShape
    from longfocus.planning.plan import Training, Use
    from longfocus.planning.rates import Device
    from longfocus.planning.training import Lesson
    from longfocus.planning.ways import Way


def plan(
    model: Annotated[
        str | None,
        typer.Option(
            help="A folder, a GGUF file, a hub name, or a name such as llama-3.1-8b-instruct; by default the default "
            "model."
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(help="Of the document, 100,000 unless told; with --train of a row or a document.", min=1),
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="Plan a step of this recipe instead: fot, recall, tuning or full-attention.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="What everything is to fit in, such as 8GiB; by default what is available.")
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="What computes: cpu, h100, h200, a100, rtx4090, or its figures as in cuda:650TFLOPS,3.35TB/s,80GiB."
        ),
    ] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="bfloat16 or float32; by default the fastest that fits.")] = None,
    memory_layers: Annotated[
        str | None, typer.Option(help="Layers that get a memory, such as 8,12,16; by default what suits the model.")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Tokens of the window; by default what suits the model.")] = None,
    rank: Annotated[
        int | None,
        typer.Option(help="With --train: of a LoRA adapter, 0 for all weights; by default the recipe's.", min=0),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(help="With --train: rows of a batch; by default the recipe's.", min=1)
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure this machine's rates first (some ten seconds), and keep them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Tell the bytes and the time of a job before it is begun."""
    from dataclasses import replace

    from longfocus.loading.shapes import find_shape
    from longfocus.planning.plan import plan_training, plan_uses, what_would_train, what_would_use
    from longfocus.planning.rates import parse_bytes
    from longfocus.planning.training import recipe_layers
    from longfocus.planning.ways import usual_way

    machine = _device(device, measure)
    if dtype is not None:
        machine.rates_of(dtype)
    budget = parse_bytes(memory) if memory is not None else machine.memory
    found = find_shape(model)
    ways = _ways(found, memory_layers, window)
    if train is None:
        length = tokens or 100_000
        uses = plan_uses(found.shape, length, ways, machine, budget, dtype)
        verdict = ""
        if budget is not None and not any(use.fits for use in uses):
            verdict = what_would_use(found.shape, length, uses, machine, budget, dtype)
        _show_uses(found, length, uses, machine, budget, verdict, as_json)
        return
    lesson = _lesson(train, tokens, rank, rows)
    way = (
        ways[0]
        if memory_layers is not None
        else usual_way(found.shape, memory_layers=recipe_layers(lesson, found.shape))
    )
    lesson = replace(lesson, memory_layers=len(way.memory_layers))
    training = plan_training(found.shape, way, lesson, machine, budget)
    verdict = ""
    if budget is not None and not training.fits:
        verdict = what_would_train(found.shape, way, training, budget, machine)
    _show_training(found, training, machine, budget, verdict, as_json)


def _device(text: str, measure: bool) -> "Device":
    """The device: measured now, as it was measured before, or by its name."""
    from dataclasses import replace

    from longfocus.cli.drawing import say
    from longfocus.loading.cache import cache_dir
    from longfocus.planning.machine import memory_here
    from longfocus.planning.rates import RATES_FILE, parse_device, read_rates, write_rates

    if measure:
        from longfocus.planning.measure import measure as measured

        if text not in ("cpu", "cuda"):
            raise RequestError(f"only a device of this machine can be measured, cpu or cuda; not {text!r}")
        write_rates(cache_dir() / f"{text}-{RATES_FILE}", measured(text, say=say))
    kept = None
    if text in ("cpu", "cuda"):
        try:
            kept = read_rates(cache_dir() / f"{text}-{RATES_FILE}")
        except RequestError as error:  # a plan by usual rates is better than none
            say(str(error))
    found = kept or parse_device(text)
    if found.kind == "cpu" and found.memory is None:
        here = memory_here()
        return replace(found, memory=here.available if here else None)
    return found


def _ways(found: "FoundShape", memory_layers: str | None, window: int | None) -> list["Way"]:
    """The ways with memory that the model goes: its own, as it was trained, or the usual one."""
    from longfocus.loading.layer_numbers import layer_numbers
    from longfocus.loading.shapes import way_with_memory

    return [way_with_memory(found, layer_numbers(memory_layers), window)]


def _lesson(kind: str, tokens: int | None, rank: int | None, rows: int | None) -> "Lesson":
    from dataclasses import replace

    from longfocus.planning.training import usual_lesson

    lesson = usual_lesson(kind, tokens)
    if rank is not None:
        lesson = replace(lesson, rank=rank)
    if rows is not None:
        lesson = replace(lesson, rows=rows, labelled=max(lesson.labelled * rows // lesson.rows, 1))
    return lesson


def _show_uses(
    found: "FoundShape",
    tokens: int,
    uses: "tuple[Use, ...]",
    machine: "Device",
    budget: int | None,
    verdict: str,
    as_json: bool,
) -> None:
    from longfocus.planning.plan import duration, gibibytes

    if as_json:
        told = [{**asdict(use), "total_bytes": use.total, "disk_bytes": use.disk} for use in uses]
        print(json.dumps({**_head(found, machine, budget, verdict), "tokens": tokens, "ways": told}, indent=2))
        return
    _print_head(found, machine, f"{tokens:,} tokens", budget)
    rows: list[tuple[str, ...]] = [
        ("way", "window", "layers", "dtype", "memory", "disk", "reading", "first token", "writing", "")
    ]
    for use in uses:
        rows.append(
            (
                use.way.name,
                f"{use.way.window:,}",
                str(len(use.way.memory_layers) or ""),
                use.dtype,
                gibibytes(use.total),
                gibibytes(use.disk) if use.disk else "",
                duration(use.reading_seconds),
                duration(use.first_token_seconds),
                f"{use.tokens_per_second:,.1f}/s",
                "" if use.fits else "does not fit",
            )
        )
    _print_table(rows)
    for use in uses:
        if use.note:
            print(f"  {use.way.name}: {use.note}")
    best = next((use for use in uses if use.fits), None)
    if best is not None:
        print(f"\nbytes of {best.way.name}")
        parts: list[tuple[str, ...]] = [("", "reading", "asking") if best.reading else ("", "asking")]
        for name, asked in best.asking.parts():
            values = ([dict(best.reading.parts())[name]] if best.reading else []) + [asked]
            if any(values):
                parts.append((name, *(gibibytes(value) if value else "" for value in values)))
        _print_table(parts)
    if verdict:
        print(f"\n{verdict}")


def _show_training(
    found: "FoundShape", training: "Training", machine: "Device", budget: int | None, verdict: str, as_json: bool
) -> None:
    from longfocus.planning.plan import duration, gibibytes

    if as_json:
        told = {**asdict(training), "total_bytes": training.bytes.total}
        print(json.dumps({**_head(found, machine, budget, verdict), "training": told}, indent=2))
        return
    lesson = training.lesson
    rows = "1 row" if lesson.rows == 1 else f"{lesson.rows} rows"
    what = f"{lesson.kind}, {rows} of {lesson.tokens:,} tokens"
    learns = f"a LoRA adapter of rank {lesson.rank}" if lesson.rank else "all weights"
    _print_head(found, machine, f"{what}, {learns}", budget)
    parts = [(name, gibibytes(value)) for name, value in training.bytes.parts() if value]
    _print_table([*parts, ("in all", gibibytes(training.bytes.total)), ("on disk", gibibytes(training.bytes.disk))])
    print(f"a step takes {duration(training.seconds)}")
    if training.changes and training.fits:
        print(f"to fit: {', '.join(training.changes)}")
    if verdict:
        print(f"\n{verdict}")


def _head(found: "FoundShape", machine: "Device", budget: int | None, verdict: str) -> dict[str, Any]:
    shape = {**asdict(found.shape), "parameters": found.shape.parameters}
    device = {"name": machine.name, "kind": machine.kind, "rates": machine.origin}
    return {
        "model": found.name,
        "source": found.source,
        "shape": shape,
        "device": device,
        "budget_bytes": budget,
        "verdict": verdict,
    }


def _print_head(found: "FoundShape", machine: "Device", what: str, budget: int | None) -> None:
    from longfocus.cli.text import plain
    from longfocus.planning.plan import gibibytes

    room = f" in {gibibytes(budget)}" if budget is not None else ""
    print(plain(f"{found.name}: {found.shape.parameters / 1e9:,.2f} B weights ({found.source})"))
    print(f"{what} on {plain(machine.name)}{room}")
    if machine.origin != "measured":
        print(f"times by rates that were {machine.origin}; `longfocus plan --measure` measures those of this machine")
    print()


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be, the first at the left and the others at the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print(("  " + "  ".join(cells)).rstrip())
