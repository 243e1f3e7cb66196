"""Options that several verbs share, turned into what the parts take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longfocus.errors import RequestError

INDEX_KINDS = ("hnsw", "ivf", "sq8")
"""Memories that need an index; named here too, so that this file needs no torch."""

if TYPE_CHECKING:
    from longfocus.asking.session import Session, Uses

Model = Annotated[str | None, typer.Option(help="A folder, a GGUF file or a hub name; by default the default model.")]
LookUp = Annotated[
    int | None,
    typer.Option(
        help="Passages to look up and put before a question; 0 for an answer from memory alone. By default what suits "
        "the model.",
        min=0,
    ),
]
Memory = Annotated[
    str, typer.Option(help="Which memory answers: dense, top-k, int8, hnsw, ivf, sq8, or auto for what suits the Book.")
]
Quantize = Annotated[
    str,
    typer.Option(
        help="How weights are packed, to write faster: int4, int8, none, or auto for int4 where nothing is lost by it."
    ),
]
KeyVariable = Annotated[
    str, typer.Option(help="Environment variable with the key of APIs; by default OPENAI_API_KEY and the like.")
]


def uses_of(no_memory: bool, window_only: bool) -> "Uses":
    """What an answer may rest on.

    Raises:
        RequestError: Both baselines at once.
    """
    if no_memory and window_only:
        raise RequestError("--no-memory and --window-only exclude each other; choose one")
    return "nothing" if no_memory else "window" if window_only else "memory"


def adapter_of(text: str) -> str | None:
    """What `load` takes for `--adapter`."""
    return None if text == "none" else text


def open_session(
    book: str | Path, model: str | None, adapter: str, memory: str = "auto", quantize: str = "none"
) -> "Session":
    """Open a Book and load the model and the adapter that read it."""
    from longfocus.cli.drawing import say, waiting
    from longfocus.reading.origin import book_of

    folder = book_of(book)
    if memory in INDEX_KINDS:
        _build_missing(folder, memory)
    with waiting("opening"):
        from longfocus.asking.session import Session
        from longfocus.books import load_for
        from longfocus.loading.packed_weights import for_writing
        from longfocus.memory.book import StoredBook

        stored = StoredBook.open(folder)
        loaded = for_writing(load_for(stored, model, adapter_of(adapter), say), quantize)
        session = Session(stored, loaded, memory=memory)
    for note in session.notes:
        say(note)
    return session


def _build_missing(folder: Path, kind: str) -> None:
    """Build an index that was named, where a Book has none that can be used; it is drawn, since it may take minutes."""
    from longfocus.cli.drawing import draw_indexing, say
    from longfocus.memory.book import StoredBook
    from longfocus.memory.index_files import index_trouble

    stored = StoredBook.open(folder)
    trouble = index_trouble(stored, kind) if stored.progress.entries else None
    if trouble is not None:
        say(f"the index {kind} of {folder} {trouble}; building it")
        draw_indexing(stored, kind)
