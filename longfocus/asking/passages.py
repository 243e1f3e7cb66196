"""From attention on tokens to passages: sentences of the text, quoted as they stand there."""

import re
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from longfocus.memory.book import StoredBook

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|\n[ \t]*\n\s*")
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
    cut at a space.
    """
    pieces: list[tuple[int, int]] = []
    position = start
    for match in [*_SENTENCE_END.finditer(text, start, end), None]:
        gap_start, gap_end = match.span() if match else (end, end)
        quote = re.match(r"[\"'”’)\]]*", text[gap_start:gap_end])
        stop = gap_start + (quote.end() if quote else 0)
        pieces.extend(_cut_long(text, position, stop))
        position = gap_end
    joined: list[tuple[int, int]] = []
    for piece in pieces:
        if joined and joined[-1][1] - joined[-1][0] < _SHORTEST and "\n\n" not in text[joined[-1][1] : piece[0]]:
            joined[-1] = (joined[-1][0], piece[1])
        else:
            joined.append(piece)
    return joined


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


def find_passages(book: StoredBook, attention: Tensor, most: int) -> tuple[Citation, ...]:
    """The passages on which attention lies most, best first.

    Args:
        book: What was read.
        attention: For each token of the Book, [tokens]; what lies on the prompt's opening is left out.
        most: How many passages at most; neighbours are given as one.
    """
    sentences = [sentence for span in book.manifest.spans for sentence in split_sentences(book.text, *span)]
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
        if groups and groups[-1][-1] == index - 1 and sentences[index][1] - sentences[groups[-1][0]][0] <= _LONGEST:
            groups[-1].append(index)
        else:
            groups.append([index])
    citations = []
    for group in groups:
        start, end = sentences[group[0]][0], sentences[group[-1]][1]
        score = float(shares[group].sum())
        citations.append(Citation(book.text[start:end], start, end, round(score, 6), **book.place(start)))
    return tuple(sorted(citations, key=lambda citation: -citation.score))
