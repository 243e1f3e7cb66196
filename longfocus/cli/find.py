"""`longfocus find`: the passages that a question's words attend to."""

import json
from typing import Annotated

import typer

from longfocus.cli.options import Memory


def find(
    book: Annotated[str, typer.Argument(help="A Book: its folder, its document, or its name on the shelf.")],
    question: Annotated[str, typer.Argument(help="What to look for.")],
    model: Annotated[
        str | None, typer.Option(help="The model that read the Book, if it is not the default one.")
    ] = None,
    adapter: Annotated[str, typer.Option(help="The adapter that it read with, as for `longfocus read`.")] = "usual",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    most: Annotated[int, typer.Option(help="Most passages.", min=1)] = 5,
    memory: Memory = "auto",
) -> None:
    """Find the passages of a book that speak of something."""
    from longfocus.cli.drawing import draw_citations
    from longfocus.cli.options import open_session

    passages = open_session(book, model, adapter, memory).find(question, most)
    if as_json:
        print(json.dumps([passage.to_json() for passage in passages], ensure_ascii=False, indent=2))
    else:
        draw_citations(passages)
