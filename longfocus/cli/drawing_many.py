"""How the command line draws the reading of many documents: one bar, a line for each, and at the end what failed."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn

from longfocus.cli.drawing import say, status
from longfocus.cli.text import plain

if TYPE_CHECKING:
    from longfocus.reading.many import DocumentProgress, Outcome, Summary


def draw_many(
    events: "Iterable[DocumentProgress | Outcome]", count: int, finish: "Callable[[Outcome], Outcome]"
) -> "Summary":
    """Draw the reading of so many documents as it goes on.

    Args:
        events: As they come.
        count: How many documents there are.
        finish: Called with the outcome of each Book that is complete; returns it, or with what kept it from ending
            well.
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
            if line := _line(event):
                say(line)
            summary = summary.plus(event if event.trouble else finish(event))
            bar.update(task, completed=summary.read + summary.there + len(summary.failed))
    return summary


def draw_summary(summary: "Summary") -> None:
    """Tell what became of all documents, and what failed, a line for each."""
    say(f"read {summary.read} ({summary.tokens:,} tokens), {summary.there} there before, {len(summary.failed)} failed")
    for one in summary.failed:
        say(f"{one.path}: {one.trouble}")


def _line(one: "Outcome") -> str:
    """What to tell at once; what failed for good stands at the end."""
    if one.trouble:
        return "" if one.last else f"{one.path}: failed, and is tried again at the end"
    told = f"{one.path}: {one.tokens:,} tokens in {one.seconds:,.1f} s into {one.folder}"
    if one.there:
        told = f"{one.path}: read before, into {one.folder}"
    if one.left_out is not None:
        begin, end = one.left_out
        told += f"; warning: characters {begin:,} to {end:,} are left out"
    return told
