"""Prose behind a long memory: passages of books to go on with, behind what the same book's memory holds.

Of a model that reads as it is, a Book is read once and serves every step: a row is a place in a book, the window there
is read anew, and memory is the Book's, from so far back. Some rows see a stretch of another book as well, which is the
Focused Transformer's negative (Tworkowski et al., 2023, section 3).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from longfocus.errors import RequestError
from longfocus.memory.book import StoredBook
from longfocus.training.recall import Bank

BOOKS = "books"
"""Where a run keeps the Books that it read, in its folder: texts of others, which are never passed on."""
_LEAST = 1024  # entries of a stretch
_OTHERS = 0.3  # of the rows see a stretch of another book
_WINDOWS = 3  # so many are read anew: what stands before them makes no difference to the last one


class Shelf:
    """Books of one reader, of which stretches of memory are taken.

    Args:
        books: Each of another document.

    Raises:
        RequestError: There are none.
    """

    def __init__(self, books: Sequence[StoredBook]) -> None:
        if not books:
            raise RequestError("there are no books to take prose from; give one of some thousand tokens or more")
        self.ids = [book.ids for book in books]
        self.sinks = books[0].manifest.reading.sinks
        self._memories = [book.memories() for book in books]

    def entries(self, stretches: Tensor) -> Bank:
        """What stands in memory of these stretches, by layer.

        Args:
            stretches: Book, first token and the one behind the last of each, [P, 3].
        """
        found: Bank = {}
        for layer in self._memories[0]:
            parts = []
            for book, first, stop in stretches.tolist():
                keys, values, _ = self._memories[book][layer].entries()
                here = slice(first - self.sinks, max(stop, first) - self.sinks)  # sinks never get into memory
                parts.append((keys[:, :, here], values[:, :, here]))
            found[layer] = (torch.cat([keys for keys, _ in parts], 2), torch.cat([values for _, values in parts], 2))
        return found


class LongProse(Dataset[dict[str, Tensor]]):
    """Batches that `RecallLesson` takes, by number: "documents" [B, N], "asked" and "labels" [B, T], "seen" [B, 2, 3].

    Args:
        shelf: The books.
        stride: Tokens of a window, and of a passage.
        batches: How many there are.
        rows: Passages of a batch.
        longest: Most tokens of the same book before a passage; the length is drawn anew for each, short ones as often
            as long ones (its logarithm is uniform).
        seed: What makes them repeatable.

    Raises:
        RequestError: No book is long enough.
    """

    def __init__(self, shelf: Shelf, stride: int, batches: int, rows: int, longest: int, seed: int) -> None:
        self._shelf = shelf
        self._stride = stride
        self._batches = batches
        self._rows = rows
        self._longest = longest
        self._seed = seed
        self._before = _WINDOWS * stride
        self._places = [max(len(ids) - self._before - stride, 0) for ids in shelf.ids]
        if not any(self._places):
            raise RequestError(f"no book has the {self._before + stride} tokens that a passage and its window take")

    def __len__(self) -> int:
        return self._batches

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if not 0 <= number < self._batches:
            raise IndexError(f"batch {number} of {self._batches}")
        chance = random.Random(f"prose {self._seed} {number}")
        documents, asked, seen = zip(*(self._row(chance) for _ in range(self._rows)), strict=True)
        return {
            "documents": torch.stack(documents),
            "asked": torch.stack(asked),
            "labels": torch.stack(asked),
            "seen": torch.tensor(seen),
        }

    def _row(self, chance: random.Random) -> tuple[Tensor, Tensor, list[list[int]]]:
        (book,) = chance.choices(range(len(self._places)), self._places)
        ids, sinks = self._shelf.ids[book], self._shelf.sinks
        place = self._before + chance.randrange(self._places[book])
        fresh = place - self._before + sinks  # the first token that is read anew, behind the sinks
        document = torch.cat((ids[:sinks], ids[fresh:place]))
        own = [book, min(max(place - self._length(chance), sinks), fresh), fresh]
        other = [book, fresh, fresh]  # nothing
        if chance.random() < _OTHERS:
            (which,) = chance.choices(range(len(self._places)), self._places)
            most = len(self._shelf.ids[which]) - self._before
            if which != book and most > sinks:
                first = chance.randrange(sinks, most)
                other = [which, first, min(first + self._length(chance) // 2, most)]
        return document, ids[place : place + self._stride], [own, other]

    def _length(self, chance: random.Random) -> int:
        return round(math.exp(chance.uniform(math.log(_LEAST), math.log(max(self._longest, _LEAST)))))
