"""`longfocus probe`: how a checkpoint that was never trained to use memory best uses it, found by tests on it."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from longfocus.evaluation.probing import Probed


def probe(
    model: Annotated[
        str | None, typer.Argument(help="A folder, a GGUF file or a hub name; by default the default model.")
    ] = None,
    budget: Annotated[float, typer.Option(help="Minutes that it should take, about.", min=0.1)] = 5.0,
    window: Annotated[int | None, typer.Option(help="Tokens of the window; by default what suits the model.")] = None,
    seed: Annotated[int, typer.Option(help="Draws other texts.")] = 0,
    dry: Annotated[bool, typer.Option("--dry", help="Keep nothing; only tell what was found.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Find out which layers of a model need memory, by tests on it."""
    from functools import partial

    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from longfocus.cli.drawing import say, status, waiting

    with waiting("loading the model"):
        from longfocus.evaluation.probing import Extent, Probed, probe
        from longfocus.loading.load import load
        from longfocus.loading.profiles import write_profile

    steps = probe(partial(load, model, adapter=None, progress=say), Extent(60 * budget, window=window), seed)
    last = None
    shown = (TextColumn("probing"), BarColumn(), TimeElapsedColumn())
    with Progress(*shown, console=status, disable=not status.is_terminal) as bar:
        task = bar.add_task("probing", total=1.0)
        for step in steps:
            if isinstance(step, Probed):
                last = step
                continue
            bar.update(task, completed=step.share)
            say(step.told)
    assert last is not None
    _show(last, as_json)
    if not dry:
        path = write_profile(last.fingerprint, last.profile)
        say(f"kept in {path}; `longfocus read` uses it from now on, for this model without an adapter")


def _show(probed: "Probed", as_json: bool) -> None:
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from longfocus.cli.text import plain
    from longfocus.evaluation.intervals import wilson

    if as_json:
        print(json.dumps(asdict(probed), indent=1))
        return
    profile = probed.profile
    layers = ", ".join(map(str, profile.memory_layers))
    print(f"{plain(profile.model)}: {profile.layers} layers, probed in {probed.seconds / 60:.1f} minutes")
    print(
        f"  memory layers  {layers}" + (" (the usual ones; none were found that find better)" if probed.usual else "")
    )
    print(f"  window         {profile.window} tokens, {profile.overlap} of them and {profile.sinks} sinks staying")
    print(f"  entries        the best {profile.top_k} for each query")
    print(f"  disk           {probed.entry_bytes:,} bytes a token")
    print(f"  perplexity     {probed.perplexity:.2f}, at the end of a short story")
    table = Table("found", "right", "asked", "share", "95 %", box=None)
    for one in profile.found:
        low, high = wilson(one.right, one.asked)
        share = one.right / one.asked
        table.add_row(one.measure, str(one.right), str(one.asked), f"{share:.2f}", f"{low:.2f} to {high:.2f}")
    Console(width=100, markup=False, highlight=False).print(table)
