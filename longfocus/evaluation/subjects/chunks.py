"""A text in chunks of a number of tokens, ending where a sentence or a line ends."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from longfocus.errors import RequestError
from longfocus.loading.prompts import encode_with_places

_ENDS = re.compile(r"""[.!?]["'”’)\]]*\s+|\n+|[。！？]""")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Chunk:
    """A stretch of a text.

    Attributes:
        text: As it stands there.
        start: Its first character.
        end: One past its last character.
    """

    text: str
    start: int
    end: int


class Chunks:
    """All chunks of a text, in its order.

    A chunk ends behind the last sentence or line that ends in its second half; failing that between words, failing that
    between tokens.

    Args:
        text: To be cut.
        tokenizer: Whose tokens count.
        size: Most tokens of a chunk.
        overlap: About how many of a chunk's last tokens the next one begins with; 0 for chunks that together are the
            text.

    Raises:
        RequestError: Size and overlap leave nothing.
    """

    def __init__(self, text: str, tokenizer: Any, size: int, overlap: int = 0) -> None:
        if size < 2 or not 0 <= overlap <= size // 4:
            raise RequestError(
                f"chunks of {size} tokens of which {overlap} overlap were asked for; "
                "wanted 2 tokens or more, of which a quarter at most overlap"
            )
        self._text = text
        _, places = encode_with_places(tokenizer, text)
        ends = np.fromiter((end for _, end in places), dtype=np.int64, count=len(places))
        self._ends = np.maximum.accumulate(ends) if len(ends) else ends
        self.all = tuple(self._cut(size, overlap))

    def _cut(self, size: int, overlap: int) -> list[Chunk]:
        text, ends, chunks = self._text, self._ends, []
        start = 0
        while start < len(text):
            token = int(np.searchsorted(ends, start, side="right"))  # the first that is not wholly before
            if token + size >= len(ends):
                end = len(text)
            else:
                least = max(int(ends[token + size // 2 - 1]), start + 1)
                most = max(int(ends[token + size - 1]), least)
                end = _last_end(text, least, most)
            chunks.append(Chunk(text[start:end], start, end))
            if end == len(text):
                break
            behind = int(np.searchsorted(ends, end, side="right"))  # at least half a chunk
            start = int(ends[behind - overlap - 1]) if overlap else end
        return chunks

    def joined(self, chosen: Iterable[Chunk]) -> str:
        """The text of one chunk or more as they stand in it, with an empty line where something is left out."""
        stretches: list[tuple[int, int]] = []
        for chunk in sorted(chosen, key=lambda chunk: chunk.start):
            if stretches and chunk.start <= stretches[-1][1]:
                stretches[-1] = stretches[-1][0], chunk.end
            else:
                stretches.append((chunk.start, chunk.end))
        first, *others = (self._text[start:end] for start, end in stretches)
        return reduce(lambda before, after: before.rstrip("\n") + "\n\n" + after.lstrip("\n"), others, first)

    def last(self, tokens: int) -> str:
        """The text's last so many tokens."""
        return self._text[int(self._ends[-tokens - 1]) if len(self._ends) > tokens else 0 :]


def _last_end(text: str, least: int, most: int) -> int:
    """The last good place to cut from `least` to `most`, of the best kind that there is."""
    for kind in (_ENDS, _SPACE):
        found = [match.end() for match in kind.finditer(text, least, most)]
        if found:
            return found[-1]
    return most
