"""How the command line draws what the parts yield: progress, answers, citations. Text from outside is never markup."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from longfocus.cli.text import plain

if TYPE_CHECKING:
    from longfocus.asking.passages import Citation
    from longfocus.evaluation.figures import Figure
    from longfocus.evaluation.results import Grid
    from longfocus.memory.book import StoredBook
    from longfocus.reading.reader import ReadProgress

status = Console(stderr=True, highlight=False)
"""Where everything goes that is not a result."""


def say(line: str) -> None:
    """Tell the user something on stderr, as it stands; a terminal folds long lines itself, a file keeps them whole."""
    status.print(Text(plain(line)), soft_wrap=True)


def draw_reading(steps: "Iterable[ReadProgress]", title: str) -> "ReadProgress":
    """Draw reading as it goes on; returns the last step."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} tokens", markup=False),
        TextColumn("{task.fields[speed]:,.0f}/s", markup=False),
        TimeRemainingColumn(),
        console=status,
        disable=not status.is_terminal,
    )
    last = None
    with bar:
        task = None
        for step in steps:
            if task is None:
                task = bar.add_task(f"reading {plain(title)[:40]}", total=step.total, completed=step.tokens, speed=0.0)
                if step.tokens < step.total:
                    say(f"{plain(title)[:60]}, {step.ahead}")
                if 0 < step.resumed < step.total:
                    say(f"going on at token {step.resumed:,}")
                if step.left_out is not None:
                    first, end = step.left_out
                    say(f"warning: the document is longer than the limit; characters {first:,} to {end:,} are left out")
            bar.update(task, completed=step.tokens, speed=step.speed)
            last = step
    assert last is not None
    return last


def draw_indexing(book: "StoredBook", kind: str) -> None:
    """Build an index and draw it as it goes on."""
    from longfocus.memory.index_files import build_index, index_bytes

    steps = build_index(book, kind)
    with counting(f"index {kind}", next(steps).total) as advance:
        for _ in steps:
            advance()
    say(f"built the index {kind}, {index_bytes(book.folder, kind) / 1e6:,.1f} MB, for `longfocus ask --memory {kind}`")


def draw_citations(citations: "Iterable[Citation]") -> None:
    """Print passages with their place and score."""
    for number, citation in enumerate(citations, 1):
        place = [part for part in (citation.chapter, citation.page and f"page {citation.page}") if part]
        place.append(f"characters {citation.start:,} to {citation.end:,}")
        print(f"  [{number}] {citation.score:.2f}  {plain(', '.join(place))}")
        print(f"      “{plain(' '.join(citation.text.split()))}”")


def stream_text(pieces: Iterator[object]) -> object:
    """Print pieces of text as they come; returns what is no text, which comes last."""
    last: object = None
    begun = False
    for piece in pieces:
        if isinstance(piece, str):
            shown = piece if begun else piece.lstrip()
            begun = begun or bool(shown)
            sys.stdout.write(plain(shown))
            sys.stdout.flush()
        else:
            last = piece
    print()
    return last


def draw_figures(figures: "Iterable[Figure]") -> None:
    """Print results as a table; examples are questions, `on` so many documents where these are fewer."""
    table = Table("task", "subject", "length", "examples", "score", "95 %", "reading", "answer", "memory", box=None)
    for figure in figures:
        if not figure.examples:
            table.add_row(figure.task, plain(figure.subject), figure.length, "0", figure.nothing, "", "", "", "")
            continue
        table.add_row(
            figure.task,
            plain(figure.subject),
            figure.length,
            figure.counted,
            f"{figure.score:.3f}",
            f"{figure.low:.3f} to {figure.high:.3f}",
            f"{figure.reading_seconds:.1f} s",
            f"{figure.seconds:.2f} s",
            _gigabytes(figure.peak_bytes),
        )
    Console(width=160, markup=False).print(table)


def draw_grid(grid: "Grid") -> None:
    """Print one task's results: subjects by lengths, and below them what others have published."""
    from longfocus.evaluation.published import SOURCES

    table = Table("subject", *grid.lengths, "memory", title=grid.task, title_justify="left", box=None)
    for name, row in grid.rows:
        cells = ["" if f is None else _cell(f) for f in row]
        table.add_row(plain(name), *cells, _gigabytes(max((f.peak_bytes for f in row if f), default=0)))
    for model, source, scores in grid.others:
        table.add_row(f"{model}, published by {source}", *("" if score is None else f"{score:.3g}" for score in scores))
    # a width in which no cell is folded, since a table of figures is read by its columns
    Console(width=60 + 50 * len(grid.lengths), markup=False).print(table)
    for source in dict.fromkeys(source for _, source, _ in grid.others):
        print(f"  {source}: {SOURCES[source]}")
    print()


def _gigabytes(peak: int) -> str:
    return f"{peak / 1e9:.2f} GB" if peak else ""


def _cell(figure: "Figure") -> str:
    if not figure.examples:
        return figure.nothing
    return f"{figure.score:.3g} ({figure.low:.3g} to {figure.high:.3g}; {figure.counted})"


@contextmanager
def counting(title: str, total: int) -> "Iterator[Callable[[], bool]]":
    """A bar with the time left, on a terminal; gives what moves it on and tells whether there is one."""
    columns = (BarColumn(), TextColumn("{task.completed} of {task.total}", markup=False), TimeRemainingColumn())
    described = TextColumn("{task.description}", markup=False)
    with Progress(described, *columns, console=status, disable=not status.is_terminal) as bar:
        task = bar.add_task(plain(title), total=total)

        def advance() -> bool:
            bar.advance(task)
            return status.is_terminal

        yield advance


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show that something is going on, on a terminal."""
    if not status.is_terminal:
        yield
        return
    with status.status(Text(text)):
        yield
