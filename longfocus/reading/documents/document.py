"""What every document reader returns: a text, the stretch of it worth reading, and its named sections."""

import hashlib
import re
from dataclasses import dataclass

from longfocus.memory.sections import Section

_BLANK = re.compile(r"[\s\ufeff]*")


@dataclass(frozen=True)
class Document:
    """A document as text.

    All positions are character offsets into `text`. `body` is the stretch that a model should read: it leaves
    out, for instance, the licence that surrounds a Project Gutenberg book, while offsets stay those of the file.
    """

    title: str
    text: str
    body: tuple[int, int]
    sections: tuple[Section, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the text in UTF-8, as hexadecimal digits."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The stretch `start` to `end` of the text without surrounding white space and byte order marks."""
    stretch = text[start:end]
    leading, trailing = (len(blank[0]) for side in (stretch, stretch[::-1]) if (blank := _BLANK.match(side)))
    return (start + leading, end - trailing) if leading < len(stretch) else (end, end)
