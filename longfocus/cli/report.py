"""`longfocus report`: runs of `longfocus eval` side by side, with what others have published."""

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `longfocus eval --out` named.")],
    plots: Annotated[
        Path | None, typer.Option(help="Folder for pictures, as PNG and SVG: curves by length, heatmaps by depth.")
    ] = None,
    others: Annotated[
        bool, typer.Option("--others/--no-others", help="Whether to show what others have published as well.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Compare runs of `eval`, and set published figures beside them."""
    from longfocus.cli.drawing import draw_grid, say
    from longfocus.evaluation.results import attempts_in, grids

    attempts = attempts_in(folders)
    made = grids(attempts, others)
    if as_json:
        found = [each for grid in made for each in grid.to_json()]
        print(json.dumps(found, indent=2))
    else:
        for grid in made:
            draw_grid(grid)
    if plots is not None:
        from longfocus.evaluation.plots import save_pictures

        for path in save_pictures(attempts, made, plots):
            say(str(path))
