"""How the command line draws the reading of many documents: one bar, a line for each, a table of what failed."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from longfocus.cli.drawing import say, status
from longfocus.cli.text import plain

if TYPE_CHECKING:
    from longfocus.reading.many import DocumentProgress, Outcome, Summary


def draw_many(events: "Iterable[DocumentProgress | Outcome]", count: int, on_book: Callable[[Path], None]) -> "Summary":
    """Draw the reading of so many documents as it goes on.

    Args:
        events: As they come.
        count: How many documents there are.
        on_book: Called with the folder of each Book that is complete.
    """
    from longfocus.reading.many import Outcome, Summary

    summary = Summary()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} documents", markup=False),
        TextColumn("{task.fields[place]}", markup=False),
    )
    with Progress(*columns, console=status, disable=not status.is_terminal) as bar:
        task = bar.add_task("reading", total=count, place="")
        for event in events:
            if not isinstance(event, Outcome):
                step = event.progress
                place = f"{plain(event.path.name)[:30]} {step.tokens:,} of {step.total:,} tokens, {step.speed:,.0f}/s"
                bar.update(task, place=place)
                continue
            summary = summary.plus(event)
            bar.update(task, completed=summary.read + summary.there + len(summary.failed))
            if line := _line(event):
                say(line)
            if not event.trouble:
                on_book(event.folder)
    return summary


def draw_summary(summary: "Summary") -> None:
    """Tell what became of all documents, and what failed as a table."""
    say(f"read {summary.read} ({summary.tokens:,} tokens), {summary.there} there before, {len(summary.failed)} failed")
    if summary.failed:
        table = Table("document", "trouble", box=None)
        for one in summary.failed:
            table.add_row(Text(plain(str(one.path))), Text(plain(one.trouble)))
        status.print(table, soft_wrap=True)


def _line(one: "Outcome") -> str:
    """What to tell at once; what failed for good stands in the table at the end."""
    if one.trouble:
        return "" if one.last else f"{one.path}: failed, and is tried again at the end"
    if one.there:
        return f"{one.path}: read before, into {one.folder}"
    return f"{one.path}: {one.tokens:,} tokens in {one.seconds:,.1f} s into {one.folder}"
