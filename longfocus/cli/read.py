"""`longfocus read`: a document becomes a Book, a folder of documents a shelf of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longfocus.cli.options import Model

if TYPE_CHECKING:
    from longfocus.loading.load import LoadedModel
    from longfocus.reading.many import Outcome


def read(
    document: Annotated[Path, typer.Argument(help="A txt, md, html, epub or pdf file, or a folder of them.")],
    out: Annotated[
        Path | None, typer.Option(help="The Book's folder, or the one for all Books; by default on the shelf.")
    ] = None,
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
    from longfocus.cli.ahead import check_reading
    from longfocus.cli.drawing import draw_reading, say, waiting
    from longfocus.cli.options import adapter_of
    from longfocus.errors import RequestError
    from longfocus.loading.layer_numbers import layer_numbers
    from longfocus.memory.faiss_kinds import check_kind
    from longfocus.memory.library import shelf_folder
    from longfocus.reading.documents import load_document
    from longfocus.reading.origin import file_hash, note_origin

    if memory_dtype not in (None, "int8"):
        raise RequestError(f"--memory-dtype is {memory_dtype!r}; give int8, or leave it out")
    if index is not None:
        check_kind(index)
    layers = layer_numbers(memory_layers)

    def loaded(device: str | None = None) -> "LoadedModel":
        with waiting("loading the model"):
            from longfocus.loading.load import load

            return load(
                model,
                adapter=adapter_of(adapter),
                mem_layers=layers,
                window=window,
                window_overlap=overlap,
                device=device,
                progress=say,
            )

    options: dict[str, Any] = {"most": limit, "packed": memory_dtype == "int8"}
    if look_back is not None:
        options["look_back"] = look_back if look_back >= 0 else None
    if document.is_dir():
        check_reading(model, layers, window)
        _read_all(document, out, loaded, index, options)
        return
    digest, found = file_hash(document), load_document(document)
    folder = out if out is not None else shelf_folder(document)
    check_reading(model, layers, window, len(found.text), limit)
    reader = loaded()
    from longfocus.reading.reader import read_steps

    last = draw_reading(read_steps(found, reader, folder, **options), found.title)
    note_origin(folder, digest)
    if last.resumed == last.total:
        say(f"{found.title} was read before: {last.total:,} tokens, into {folder}")
    else:  # both figures with earlier runs, where it was stopped
        speed = last.total / last.seconds if last.seconds else 0.0
        spent = f"in {last.seconds:,.1f} s ({speed:,.0f} tokens/s)"
        say(f"read {last.total:,} tokens of {found.title} {spent} into {folder}")
    _finish(folder, index)


def _read_all(
    documents: Path,
    out: Path | None,
    loaded: "Callable[[str | None], LoadedModel]",
    index: str | None,
    options: dict[str, Any],
) -> None:
    """Read the documents of a folder, or this process's share of them."""
    from longfocus.cli.drawing_many import draw_many, draw_summary
    from longfocus.errors import UserError
    from longfocus.reading.many import Share, documents_in, read_many, shared_out
    from longfocus.reading.siblings import Siblings

    share = Share.here()
    mine = shared_out(documents_in(documents, out), share)
    with Siblings.here(share) as siblings:
        events = read_many(mine, loaded(share.device), **options)
        summary = siblings.together(draw_many(events, len(mine), lambda outcome: _finished(outcome, index)))
        draw_summary(summary)
    if summary.failed:
        raise UserError(f"{len(summary.failed)} documents could not be read; those that could are not read again")


def _finished(outcome: "Outcome", index: str | None) -> "Outcome":
    """Finish one Book of many: an index that cannot be built is a trouble of this document and of no other."""
    from longfocus.reading.many import trouble_of

    try:
        _finish(outcome.folder, index)
    except Exception as error:
        return replace(outcome, trouble=f"its Book is there, but not finished: {trouble_of(error)}")
    return outcome


def _finish(folder: Path, index: str | None) -> None:
    """Build the index that was asked for, unless there is one that can be used, and tell the Book's folder.

    A Book that has nothing in memory needs none.
    """
    if index is not None:
        from longfocus.cli.drawing import draw_indexing, say
        from longfocus.memory.book import StoredBook
        from longfocus.memory.index_files import NOT_THERE, index_trouble

        stored = StoredBook.open(folder)
        searched = stored.progress.entries and stored.manifest.reading.memory_layers
        trouble = index_trouble(stored, index) if searched else None
        if not searched:
            say(f"{folder} has nothing in memory, since all of it fits the window: it needs no index")
        elif trouble is not None:
            if trouble != NOT_THERE:
                say(f"the index {index} of {folder} {trouble}; building it anew")
            draw_indexing(stored, index)
    print(folder)
