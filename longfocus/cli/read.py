"""`longfocus read`: a document becomes a Book."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from longfocus.cli.options import Model


def read(
    document: Annotated[Path, typer.Argument(help="A txt, md, html, epub or pdf file.")],
    out: Annotated[Path | None, typer.Option(help="The Book's folder; by default one on the shelf.")] = None,
    model: Model = None,
    adapter: Annotated[
        str,
        typer.Option(
            help="A folder that `longfocus train` wrote; usual: the one that comes with the model; none: no adapter."
        ),
    ] = "usual",
    limit: Annotated[
        int | None, typer.Option(help="Most tokens to read; the middle of a longer document is left out.")
    ] = None,
    look_back: Annotated[
        int | None,
        typer.Option(
            help="Entries to look back at while reading: -1 for all, 0 for none; by default what suits the model."
        ),
    ] = None,
    memory_layers: Annotated[
        str | None, typer.Option(help="Layers that get a memory, such as 8,12,16; by default what suits the model.")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Tokens of the window; by default what suits the model.")] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Tokens of a window that stay in the next; by default what suits the model.")
    ] = None,
    memory_dtype: Annotated[
        str | None, typer.Option(help="int8: keys and values in half the disk; by default the model's own type.")
    ] = None,
    index: Annotated[str | None, typer.Option(help="Build an index as well: hnsw, ivf or sq8.")] = None,
) -> None:
    """Read a document once, into a book that can be asked."""
    from longfocus.cli.drawing import draw_indexing, draw_reading, say, waiting
    from longfocus.cli.options import adapter_of
    from longfocus.errors import RequestError
    from longfocus.loading.layer_numbers import layer_numbers
    from longfocus.memory.faiss_kinds import check_kind
    from longfocus.memory.library import shelf_folder
    from longfocus.reading.documents import load_document

    if memory_dtype not in (None, "int8"):
        raise RequestError(f"--memory-dtype is {memory_dtype!r}; give int8, or leave it out")
    if index is not None:
        check_kind(index)
    found = load_document(document)
    layers = layer_numbers(memory_layers)
    folder = out if out is not None else shelf_folder(document)
    with waiting("loading the model"):
        from longfocus.loading.load import load
        from longfocus.reading.reader import read_steps

        loaded = load(
            model,
            adapter=adapter_of(adapter),
            mem_layers=layers,
            window=window,
            window_overlap=overlap,
            progress=say,
        )
    depth: int | Literal["usual"] | None = "usual" if look_back is None else look_back if look_back >= 0 else None
    steps = read_steps(found, loaded, folder, look_back=depth, most=limit, packed=memory_dtype == "int8")
    last = draw_reading(steps, found.title)
    say(
        f"read {last.total:,} tokens of {found.title} in {last.seconds:,.1f} s "
        f"({last.speed:,.0f} tokens/s) into {folder}"
    )
    if index is not None:
        from longfocus.memory.book import StoredBook
        from longfocus.memory.index_files import index_trouble

        stored = StoredBook.open(folder)
        if index_trouble(stored, index) is not None:
            draw_indexing(stored, index)
    print(folder)
