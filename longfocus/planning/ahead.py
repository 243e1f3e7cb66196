"""What reading a document takes, told before it begins; and a disk or a memory without room, refused in one line."""

from __future__ import annotations

from dataclasses import dataclass

from longfocus.errors import BookError, RequestError
from longfocus.planning.counted import book_disk, reading, reading_disk
from longfocus.planning.plan import duration, gibibytes
from longfocus.planning.rates import ITEM_BYTES, Device
from longfocus.planning.shapes import Shape
from longfocus.planning.times import reading_seconds
from longfocus.planning.ways import Way


@dataclass(frozen=True)
class Ahead:
    """What lies ahead.

    Attributes:
        tokens: To be read.
        disk: The most bytes that the Book takes while it is read.
        book: Those it has in the end.
        seconds: Expected; None on a device whose rates are not known.
        sure: Whether the device's rates were measured.
        memory: The most bytes that must be in memory.
        note: What is wrong with the rates that were measured; empty where nothing is.
    """

    tokens: int
    disk: int
    book: int
    seconds: float | None
    sure: bool
    memory: int = 0
    note: str = ""

    def __str__(self) -> str:
        told = "" if self.seconds is None else f", in about {duration(self.seconds)}"
        told += "" if self.sure or self.seconds is None else ", if this machine is as fast as one that was measured"
        told += f" ({self.note})" if self.note else ""
        held = f", {gibibytes(self.memory)} of memory" if self.memory else ""
        return f"{self.tokens:,} tokens: {gibibytes(self.book)} on disk{held}{told}"


def reading_ahead(shape: Shape, way: Way, tokens: int, device: Device, dtype: str, note: str = "") -> Ahead:
    """What reading `tokens` tokens takes, with weights and memory of that dtype; `note` as in `Ahead`.

    Nothing is said of time on a device that has no rates for that dtype.
    """
    item, rates = ITEM_BYTES[dtype], device.rates.get(dtype)
    return Ahead(
        tokens,
        reading_disk(shape, way, tokens, item),
        book_disk(shape, way, tokens, item),
        None if rates is None else reading_seconds(shape, way, tokens, rates, item),
        device.origin == "measured",
        reading(shape, way, tokens, device, item).total,
        note,
    )


def check_room(ahead: Ahead, free: int, place: object, written: int = 0) -> None:
    """Refuse what there is no room for.

    Args:
        ahead: What is to be read.
        free: Bytes free on the disk.
        place: The Book's folder.
        written: Bytes that an earlier run has written already.

    Raises:
        BookError: There is too little room.
    """
    wanted = ahead.disk - written
    if wanted > free:
        raise BookError(
            f"{place} needs {gibibytes(wanted)} for {ahead.tokens:,} tokens, and {gibibytes(free)} are free; "
            "make room, name a folder on another disk with --out, or read less with --limit"
        )


CERTAIN = 0.9
"""A plan may be a tenth more than what is needed (docs/planning.md); only what certainly does not fit is refused."""


def check_memory(what: str, needed: int, room: int | None, bound: str, advice: str) -> None:
    """Refuse what there is no memory for.

    Args:
        what: Is to be done, as the sentence begins.
        needed: Bytes, as planned.
        room: Bytes that can be had; None where the system does not tell.
        bound: What bounds them.
        advice: What to do.

    Raises:
        RequestError: There is too little.
    """
    if room is not None and CERTAIN * needed > room:
        raise RequestError(
            f"{what} needs about {gibibytes(needed)} of memory, and {bound} has {gibibytes(room)} available; {advice}"
        )
