"""From attention on tokens to passages: sentences of the text, quoted as they stand there."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from longfocus.memory.book import StoredBook

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|\n[ \t]*\n\s*")
_BLOCK = re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|\Z))+")
_LIST = 3  # fewest lines of a list
_PAGE = 50  # fewest characters of a page's longest line
_LISTED = 0.6  # of a list's lines have room behind them, or begin or end alike; a few of a page's do
_SHORTEST = 60
_LONGEST = 600


@dataclass(frozen=True)
class Citation:
    """A passage of the document.

    Attributes:
        text: The passage as it stands in the document.
        start: Its first character in the document's text.
        end: One past its last character.
        score: The share of the document's (squared) attention that fell on it, between 0 and 1.
        chapter: The chapter it stands in, where known.
        page: The page it stands on, where known.
    """

    text: str
    start: int
    end: int
    score: float
    chapter: str | None = None
    page: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For machines; places that are not known are left out."""
        return {name: held for name, held in asdict(self).items() if held is not None}


def split_sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Stretches of `text` between `start` and `end` that end with a sentence or a paragraph.

    White space between them belongs to none. Short sentences of one paragraph are put together, very long ones are
    cut at a space. Lines of a list, a table or a poem stand for themselves.
    """
    pieces: list[tuple[int, int]] = []
    position = start
    gaps = {match.span() for match in _SENTENCE_END.finditer(text, start, end)}
    items = set(_list_items(text, start, end))
    for gap_start, gap_end in [*sorted(gaps | {(place, place + 1) for place in items}), (end, end)]:
        if gap_start < position:  # a sentence ends with its line
            continue
        quote = re.match(r"[\"'”’)\]]*", text[gap_start:gap_end])
        stop = gap_start + (quote.end() if quote else 0)
        pieces.extend(_cut_long(text, position, stop))
        position = gap_end
    joined: list[tuple[int, int]] = []
    for piece in pieces:
        near = joined and not items.intersection(range(joined[-1][1], piece[0]))
        if near and joined[-1][1] - joined[-1][0] < _SHORTEST and "\n\n" not in text[joined[-1][1] : piece[0]]:
            joined[-1] = (joined[-1][0], piece[1])
        else:
            joined.append(piece)
    return joined


def _list_items(text: str, start: int, end: int) -> Iterator[int]:
    """Line breaks that were not made to fit a page.

    That is so where lines are short, where the next line's first word would mostly have had room, or where most lines
    begin alike or end with the same mark, as those of data do.
    """
    for block in _BLOCK.finditer(text, start, end):
        lines = block[0].rstrip("\n").split("\n")
        if len(lines) < _LIST:
            continue
        width = max(map(len, lines))
        firsts = [line.split(maxsplit=1)[0] if line.strip() else "" for line in lines[1:]]
        roomy = sum(len(line) + 1 + len(first) <= width for line, first in zip(lines[:-1], firsts, strict=True))
        alike = max(Counter(firsts).values())
        marks = Counter(line[-1] for line in map(str.rstrip, lines) if line and not line[-1].isalnum())
        ended = max(marks.values(), default=0)
        if width < _PAGE or max(roomy, alike, ended) >= _LISTED * (len(lines) - 1):
            place = block.start()
            for line in lines[:-1]:
                place += len(line)
                yield place
                place += 1


def _cut_long(text: str, start: int, end: int) -> list[tuple[int, int]]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    pieces = []
    while end - start > _LONGEST:
        space = text.rfind(" ", start + _LONGEST // 2, start + _LONGEST)
        stop = space if space > start else start + _LONGEST
        pieces.append((start, stop))
        start = stop + 1 if space > start else stop
    return [*pieces, (start, end)] if end > start else pieces


@lru_cache(maxsize=2)  # a question is looked up and then cited in the same text
def _sentences_of(text: str, spans: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    return tuple(sentence for span in spans for sentence in split_sentences(text, *span))


def find_passages(book: StoredBook, attention: Tensor, most: int, *, join: bool = True) -> tuple[Citation, ...]:
    """The passages on which attention lies most, best first.

    Args:
        book: What was read.
        attention: For each token of the Book, [tokens]; what lies on the prompt's opening is left out.
        most: How many passages at most.
        join: Whether neighbours are given as one.
    """
    sentences = _sentences_of(book.text, book.manifest.spans)
    inside = (book.starts >= 0) & (attention > 0)
    total = float(attention[inside].sum())
    if not sentences or total <= 0:
        return ()
    begins = torch.tensor([start for start, _ in sentences])
    # a token that starts in white space counts for the sentence that it goes on with
    owner = (torch.searchsorted(begins, book.ends[inside] - 1, right=True) - 1).clamp_min(0)
    shares = torch.bincount(owner, weights=attention[inside].double(), minlength=len(sentences)) / total
    best = torch.topk(shares, min(most, len(sentences))).indices.tolist()
    chosen = sorted(index for index in best if shares[index] > 0)
    groups: list[list[int]] = []
    for index in chosen:
        if (
            join
            and groups
            and groups[-1][-1] == index - 1
            and sentences[index][1] - sentences[groups[-1][0]][0] <= _LONGEST
        ):
            groups[-1].append(index)
        else:
            groups.append([index])
    citations = []
    for group in groups:
        start, end = sentences[group[0]][0], sentences[group[-1]][1]
        score = float(shares[group].sum())
        citations.append(Citation(book.text[start:end], start, end, round(score, 6), **book.place(start)))
    return tuple(sorted(citations, key=lambda citation: -citation.score))
