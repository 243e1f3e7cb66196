"""`longfocus models`: what is on this machine, and what would suit it."""

import json
from dataclasses import asdict
from typing import Annotated

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    memory: Annotated[
        float | None, typer.Option(help="GiB of memory to choose for; by default this machine's.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of the longest document.", min=0)] = 100_000,
) -> None:
    """List the models that can read, and where they are."""
    import os

    from longfocus.loading.cache import is_intact, models_dir
    from longfocus.loading.catalogue import suitable
    from longfocus.loading.default_model import DEFAULT_MODEL

    total = int(memory * 2**30) if memory is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shelf = models_dir()
    folders = sorted(folder for folder in shelf.iterdir() if is_intact(folder)) if shelf.is_dir() else []
    fitting = suitable(total, tokens)
    if as_json:
        cached = [{"name": folder.name, "folder": str(folder)} for folder in folders]
        print(
            json.dumps({"default": DEFAULT_MODEL, "cached": cached, "suitable": [asdict(m) for m in fitting]}, indent=2)
        )
        return
    print("on this machine:")
    for folder in folders:
        print(f"  {folder.name}{' (default)' if folder.name == DEFAULT_MODEL else ''}: {folder}")
    if not folders:
        print("  none yet; the default model is fetched when it is first needed")
    print(
        f"\nthese suit {total / 2**30:.0f} GiB of memory and documents of {tokens:,} tokens; larger ones answer better:"
    )
    for model in fitting:
        print(f"  {model.repo}: {model.parameters_billion:g} B parameters, {model.note}")
