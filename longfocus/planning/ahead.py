"""What reading a document takes, told before it begins; and a disk without room for it, refused in one line."""

from __future__ import annotations

from dataclasses import dataclass

from longfocus.errors import BookError
from longfocus.planning.counted import book_disk, reading_disk
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
        seconds: Expected.
        sure: Whether the device's rates were measured.
    """

    tokens: int
    disk: int
    book: int
    seconds: float
    sure: bool

    def __str__(self) -> str:
        told = "" if self.sure else ", if this machine is as fast as one that was measured"
        return f"{self.tokens:,} tokens: {gibibytes(self.book)} on disk, in about {duration(self.seconds)}{told}"


def reading_ahead(shape: Shape, way: Way, tokens: int, device: Device, dtype: str) -> Ahead:
    """What reading `tokens` tokens takes, with weights and memory of that dtype."""
    item = ITEM_BYTES[dtype]
    return Ahead(
        tokens,
        reading_disk(shape, way, tokens, item),
        book_disk(shape, way, tokens, item),
        reading_seconds(shape, way, tokens, device.rates_of(dtype), item),
        device.origin == "measured",
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
