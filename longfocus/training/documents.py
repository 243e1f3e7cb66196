"""Documents to train on, by number.

A collection knows how many documents it has and gives any of them, so that an order can be drawn by seed and a place in
it is one number. `open_documents` (`document_files.py`) and `hub_documents` (`document_tables.py`) make them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longfocus.errors import DocumentError


@dataclass(frozen=True)
class TrainingDocument:
    """One document.

    Attributes:
        text: All of it.
        id: What it is called where it comes from, for reports.
    """

    text: str
    id: str


class Documents(ABC):
    """A collection of documents that can be asked for by number, from 0."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> TrainingDocument:
        """The document of that number.

        Raises:
            DocumentError: It cannot be read, or has no text where text was expected.
        """

    def __iter__(self) -> Iterator[TrainingDocument]:
        return (self[index] for index in range(len(self)))


class ListedDocuments(Documents):
    """Documents that are in memory already."""

    def __init__(self, documents: Iterable[TrainingDocument]) -> None:
        self._documents = list(documents)

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index: int) -> TrainingDocument:
        return self._documents[index]


class JoinedDocuments(Documents):
    """Several collections as one, each after the other."""

    def __init__(self, parts: Sequence[Documents]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._parts else 0

    def __getitem__(self, index: int) -> TrainingDocument:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part][index - int(self._ends[part]) + len(self._parts[part])]


class LeftOut(Documents):
    """A collection without some of its documents, given by number: those that a check has found."""

    def __init__(self, documents: Documents, numbers: Iterable[int]) -> None:
        self._documents = documents
        self._kept = np.setdiff1d(np.arange(len(documents)), np.fromiter(numbers, np.int64))

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> TrainingDocument:
        return self._documents[int(self._kept[index])]


def document_of_record(
    record: dict[str, Any], where: str, numbered: str, text: str, id: str | None
) -> TrainingDocument:
    """The document in a record; `where` is said of one without such fields, `numbered` is its id where none is asked.

    Raises:
        DocumentError: It lacks the fields, or has no text in the first.
    """
    for field in (text, id):
        if field is not None and field not in record:
            raise DocumentError(f"Cannot use {where}: it has no {field!r}; it has {', '.join(map(repr, record))}.")
    if not isinstance(record[text], str):
        raise DocumentError(f"Cannot use {where}: {text!r} is {type(record[text]).__name__}; wanted text.")
    return TrainingDocument(record[text], numbered if id is None else str(record[id]))
