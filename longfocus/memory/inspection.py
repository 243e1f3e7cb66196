"""What `longfocus inspect` tells of a Book: what it holds, and what each kind of memory finds in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from longfocus.errors import RequestError
from longfocus.memory.approximate import ApproximateMemory, LayerIndex
from longfocus.memory.book import StoredBook
from longfocus.memory.faiss_kinds import INDEX_KINDS
from longfocus.memory.index_files import index_bytes, index_trouble, indexes_in
from longfocus.memory.kinds import FEW, MEMORY_KINDS, Memories, memories_of
from longfocus.memory.layout import layer_files
from longfocus.memory.library import file_sizes
from longfocus.memory.quality import Quality, Queries, last_tokens, quality, queries_of
from longfocus.model.cache import LongLlamaCache
from longfocus.model.modeling import LongLlamaModel


@dataclass(frozen=True)
class Facts:
    """What a Book holds.

    Attributes:
        title: The document's.
        folder: Where it lies.
        model: Which read it.
        tokens: Tokens to read.
        read: Tokens read.
        entries: Entries in each memory layer.
        memory_layers: Layers with memory.
        dtype: In which keys and values are kept; int8 where they are packed.
        entry_bytes: Of one token's keys and values in all memory layers.
        memory_bytes: Of all keys and values.
        other_bytes: Of text, tokens, window and records.
        indexes: Each index, and what is wrong with one that cannot be used.
        index_bytes: Of all indexes.
    """

    title: str
    folder: Path
    model: str
    tokens: int
    read: int
    entries: int
    memory_layers: tuple[int, ...]
    dtype: str
    entry_bytes: int
    memory_bytes: int
    other_bytes: int
    indexes: tuple[str, ...]
    index_bytes: int


def facts_of(book: StoredBook) -> Facts:
    """What a Book holds, by its records and the sizes of its files."""
    reading, progress = book.manifest.reading, book.progress
    names = {name for layer in reading.memory_layers for name in layer_files(layer)}
    sizes = file_sizes(book.folder)
    kinds = indexes_in(book.folder)
    states = {kind: index_trouble(book, kind) for kind in kinds}
    of_indexes = sum(index_bytes(book.folder, kind) for kind in kinds)
    memory = sum(size for name, size in sizes.items() if name in names)
    return Facts(
        title=book.manifest.title,
        folder=book.folder,
        model=reading.model,
        tokens=book.manifest.tokens,
        read=progress.tokens,
        entries=progress.entries,
        memory_layers=reading.memory_layers,
        dtype=reading.dtype,
        entry_bytes=2 * reading.entry_bytes * len(reading.memory_layers),
        memory_bytes=memory,
        other_bytes=sum(sizes.values()) - memory - of_indexes,
        indexes=tuple(kind if trouble is None else f"{kind} ({trouble})" for kind, trouble in states.items()),
        index_bytes=of_indexes,
    )


def kinds_to_compare(book: StoredBook, wanted: str) -> list[str]:
    """The kinds that a list such as "top-k,ivf" names; "usual" for the exact ones, int8 and the Book's indexes.

    An index that is named and that the Book does not have is built for the comparison, in RAM.

    Raises:
        RequestError: There is no such kind.
    """
    if wanted == "usual":
        usable = [kind for kind in indexes_in(book.folder) if index_trouble(book, kind) is None]
        return ["dense", "top-k", "int8", *usable]
    kinds = [kind.strip() for kind in wanted.split(",")]
    for kind in kinds:
        if kind not in MEMORY_KINDS:
            raise RequestError(f"there is no memory {kind!r}; choose among {', '.join(MEMORY_KINDS)}")
    return kinds


def questions_or_last_words(
    model: LongLlamaModel,
    book: StoredBook,
    questions: Sequence[Sequence[int]],
    state: LongLlamaCache,
    most: int,
) -> Queries:
    """What the tokens of questions ask behind the Book; without questions, what the document's last tokens ask.

    Those are in the window and not in memory, so what they look for has gone by.

    Args:
        model: The model that read the Book.
        book: The Book.
        questions: Token ids of each, as they go behind the document.
        state: The state after reading.
        most: Most queries of a head and layer.
    """
    memories = {layer: held.memory for layer, held in enumerate(state.layers) if held.memory is not None}
    if questions:
        return queries_of(model, [torch.tensor(ids) for ids in questions], state, memories, most)
    nothing = LongLlamaCache.of_memories({}, len(state.layers))
    return queries_of(model, [last_tokens(book, model.config.stride)], nothing, memories, most)


def compare(book: StoredBook, kinds: Sequence[str], top_k: int | None, queries: Queries) -> Iterator[Quality]:
    """What each kind of memory makes of the queries.

    Args:
        book: The Book.
        kinds: Names in `MEMORY_KINDS`.
        top_k: How many entries a query sees in a memory that chooses; None for the usual number, and for all in one
            that need not.
        queries: What is asked.

    Raises:
        RequestError: A library is missing.
    """
    exact = book.memories()
    for kind in kinds:
        if kind in INDEX_KINDS and index_trouble(book, kind) is not None:
            memories: Memories = {}
            more = 0
            for layer, memory in exact.items():
                index = LayerIndex.of(kind, memory)
                more += index.bytes
                memories[layer] = ApproximateMemory(memory, top_k or FEW, index)
        else:
            memories = memories_of(book, kind, top_k)
            more = index_bytes(book.folder, kind) if kind in INDEX_KINDS else 0
        yield quality(kind, memories, exact, queries, more)
