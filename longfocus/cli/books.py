"""`longfocus books`: what is on the shelf."""

import json
from dataclasses import asdict
from typing import Annotated

import typer


def books(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the books that have been read."""
    from longfocus.cli.drawing import say
    from longfocus.cli.text import plain
    from longfocus.memory.library import books_dir, list_books

    shelf = list(list_books())
    if as_json:
        print(json.dumps([asdict(book) | {"folder": str(book.folder)} for book in shelf], ensure_ascii=False, indent=2))
        return
    for book in shelf:
        read = "" if book.done == book.tokens else f", read to token {book.done:,}"
        facts = f"{book.tokens:,} tokens{read}, {book.bytes / 1e6:,.0f} MB, {book.model}"
        print(plain(f"{book.name}: {book.title} ({facts})"))
    if not shelf:
        say(f"no books in {books_dir()}; `longfocus read` makes one")
