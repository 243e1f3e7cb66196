"""`longfocus inspect`: what a Book holds, and what each kind of memory finds in it."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from longfocus.memory.quality import Quality


def inspect(
    book: Annotated[str, typer.Argument(help="A Book: its folder, its document, or its name on the shelf.")],
    questions: Annotated[
        list[str] | None, typer.Argument(help="Questions whose words are looked for; by default the Book's last words.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model that read the Book, if it is not the default one.")
    ] = None,
    adapter: Annotated[str, typer.Option(help="The adapter that it read with, as for `longfocus read`.")] = "usual",
    memory: Annotated[
        str,
        typer.Option(help="Which kinds of memory to compare, such as top-k,int8,ivf; none for what the Book holds."),
    ] = "usual",
    k: Annotated[
        int | None, typer.Option(help="Entries that a query sees; by default what suits the model.", min=1)
    ] = None,
    queries: Annotated[int, typer.Option(help="Most queries of each head and layer.", min=1)] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Tell what a book holds, and what each memory finds of it."""
    from longfocus.cli.drawing import waiting
    from longfocus.cli.text import plain
    from longfocus.memory.book import StoredBook
    from longfocus.memory.inspection import facts_of
    from longfocus.reading.origin import book_of

    stored = StoredBook.open(book_of(book), complete=False)
    facts = facts_of(stored)
    found: list[Quality] = []
    if memory != "none" and stored.progress.tokens == stored.manifest.tokens and stored.progress.entries:
        from longfocus.cli.options import open_session
        from longfocus.memory.inspection import compare, kinds_to_compare, questions_or_last_words

        kinds = kinds_to_compare(stored, memory)
        session = open_session(book, model, adapter)
        with waiting("asking each kind of memory"):
            reader = session.loaded.reader
            asked = [session.question_ids(question) for question in questions or []]
            heard = questions_or_last_words(reader.model.model, stored, asked, session.state, queries)
            found = list(compare(stored, kinds, k or reader.habits.top_k, heard))
    told: dict[str, Any] = asdict(facts) | {"folder": str(facts.folder)}
    if as_json:
        print(json.dumps(told | {"memories": [asdict(each) for each in found]}, ensure_ascii=False, indent=2))
        return
    for name, value in told.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        shown = f"{shown:,}" if isinstance(shown, int) and not isinstance(shown, bool) else shown
        print(plain(f"{name.replace('_', ' '):16} {shown}"))
    if found:
        _draw(found)


def _draw(found: "list[Quality]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("memory", "recall", "mass", "error", "ms a layer", "bytes more", box=None)
    for each in found:
        figures = (f"{each.recall:.3f}", f"{each.mass:.3f}", f"{each.error:.4f}", f"{each.ms:.2f}")
        table.add_row(each.kind, *figures, f"{each.more_bytes:,}")
    print()
    Console(width=100, markup=False).print(table)
