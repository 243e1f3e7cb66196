"""`longfocus index`: a Book that is asked often, or is very long, gets an index over its memory."""

from typing import Annotated

import typer


def index(
    book: Annotated[str, typer.Argument(help="A Book: its folder, its document, or its name on the shelf.")],
    kind: Annotated[str, typer.Option(help="hnsw, ivf or sq8; docs/memories.md tells them apart.")] = "ivf",
    anew: Annotated[bool, typer.Option("--anew", help="Build it even if there is one that can be used.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the index of this kind away.")] = False,
) -> None:
    """Build an index over a book's memory, for questions to long books."""
    from longfocus.cli.drawing import draw_indexing, say
    from longfocus.memory.book import StoredBook
    from longfocus.memory.faiss_kinds import check_kind
    from longfocus.memory.index_files import NOT_THERE, index_trouble, remove_index
    from longfocus.reading.origin import book_of

    check_kind(kind)
    folder = book_of(book)
    if remove:
        remove_index(folder, kind)
        say(f"{folder} has no index {kind} any more")
        return
    stored = StoredBook.open(folder)
    trouble = index_trouble(stored, kind)
    if trouble is None and not anew:
        say(f"the index {kind} of {folder} is up to date; --anew builds it anyway")
        return
    if trouble is not None and trouble != NOT_THERE:
        say(f"the index {kind} of {folder} {trouble}; building it anew")
    draw_indexing(stored, kind)
    print(folder)
