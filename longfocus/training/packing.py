"""Documents as the rows of training batches, without padding.

Each batch is made of streams: rows in a row that continue each other, within a batch and from one batch to the next.
A stream that runs short takes the next document. What LongLLaMA calls its data pipelines are numbers of streams:

- `linear`: one stream through all rows.
- `doc_aware`: each row is a stream of its own, so a row goes on with its document in the next batch.
- `doc_aware_k4`: four rows are a stream, so that cross-batch attention finds earlier windows of a document in the
  same batch.

Targets are the next tokens, across the borders of windows; a beginning-of-sequence token is never a target.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from longfocus.errors import RequestError
from longfocus.training.examples import IGNORED
from longfocus.training.sources import DocumentStream, Taken, TokenizedDocument


@dataclass(frozen=True)
class Packing:
    """How documents lie in a batch. Made by `linear`, `doc_aware`, `doc_aware_k` or `named`.

    Attributes:
        rows: Rows of the batch over all processes.
        length: Tokens of a row.
        streams: Streams that the rows are divided into, evenly and in order.
        pack: Rows in a row that cross-batch attention takes as one document's: its `packing`.

    Raises:
        RequestError: Numbers that do not fit each other.
    """

    rows: int
    length: int
    streams: int
    pack: int

    def __post_init__(self) -> None:
        if min(self.rows, self.length, self.streams, self.pack) < 1:
            raise RequestError(
                f"A batch of {self.rows} rows of {self.length} tokens cannot be packed; wanted 1 or more."
            )
        if self.rows % self.streams or self.rows % self.pack:
            raise RequestError(f"A batch of {self.rows} rows cannot be made of packs of {self.pack}.")

    @classmethod
    def linear(cls, rows: int, length: int) -> Packing:
        """All documents one after the other through all rows."""
        return cls(rows, length, 1, 1)

    @classmethod
    def doc_aware(cls, rows: int, length: int) -> Packing:
        """A document stays in its row."""
        return cls(rows, length, rows, 1)

    @classmethod
    def doc_aware_k(cls, rows: int, length: int, k: int) -> Packing:
        """A document stays in its k rows.

        Raises:
            RequestError: k does not divide the rows.
        """
        if k < 1 or rows % k:
            raise RequestError(f"A batch of {rows} rows cannot be made of packs of {k}.")
        return cls(rows, length, rows // k, k)

    @classmethod
    def named(cls, name: str, rows: int, length: int) -> Packing:
        """By the name of LongLLaMA's pipeline: `linear`, `doc_aware`, or `doc_aware_k4` with any number.

        Raises:
            RequestError: No such name, or numbers that do not fit.
        """
        if name == "linear":
            return cls.linear(rows, length)
        if name == "doc_aware":
            return cls.doc_aware(rows, length)
        if found := re.fullmatch(r"doc_aware_k([1-9][0-9]*)", name):
            return cls.doc_aware_k(rows, length, int(found[1]))
        raise RequestError(f"There is no packing {name!r}; wanted linear, doc_aware, or doc_aware_k4 with any number.")


@dataclass
class _Piece:
    """What is left of a document in a stream.

    Attributes:
        document: All of it.
        number: Its place in the order in which documents were taken.
        used: How many of its tokens are in batches already.
    """

    document: TokenizedDocument
    number: int
    used: int = 0


class _Stream:
    """The documents that wait for one stream's rows."""

    def __init__(self) -> None:
        self.pieces: deque[_Piece] = deque()
        self.tokens = 0

    def add(self, piece: _Piece) -> None:
        self.pieces.append(piece)
        self.tokens += len(piece.document.tokens) - piece.used

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` tokens and the number of each one's document."""
        tokens, numbers = [], []
        for piece in self.pieces:
            taken = piece.document.tokens[piece.used : piece.used + count]
            tokens.append(taken)
            numbers.append(torch.full_like(taken, piece.number))
            count -= len(taken)
            if not count:
                break
        return torch.cat(tokens), torch.cat(numbers)

    def drop(self, count: int) -> None:
        """Without the first `count` tokens."""
        self.tokens -= count
        while count:
            piece = self.pieces[0]
            left = len(piece.document.tokens) - piece.used
            if left <= count:
                self.pieces.popleft()
            else:
                piece.used += count
            count -= min(left, count)


class PackedDataset(IterableDataset[dict[str, Tensor]]):
    """Batches of packed documents: what one process trains on.

    Iterating goes on from where the dataset stands, so a loop that was left can be gone on with; `state_dict` is where
    it stands after the last batch that it gave. With a stream that ends, what no longer fills a batch is left over.

    Every process takes the whole stream and makes its own rows of it. So which document goes where does not depend on
    the number of processes, and a state can be gone on with by another number of them, as long as the batch over all
    is the same. Workers of a torch DataLoader take turns with batches in the same way; `PackedLoader` also keeps the
    state then, which in this process would be stale.

    Each batch is a dict of tensors, [B, S], int64, where B is this process's share of the rows:
        input_ids: The tokens.
        labels: The next tokens, of the row's stream; -100 where that is a beginning-of-sequence token that begins a
            document. Shifted already: not to be shifted again.
        document_ids: Which document each token of input_ids belongs to, for attention that stays inside documents.
            Documents are numbered as they were taken, so a document has one number in all rows and batches.

    Args:
        stream: A `Source` or a `Mixture`. It belongs to the dataset from now on.
        packing: The batch over all processes.
        bos_token_id: What begins a document and is no target; None makes every token one.
        rank: Which process this is, from 0.
        world_size: How many processes train together.

    Raises:
        RequestError: The rows cannot be divided among the processes.
    """

    def __init__(
        self,
        stream: DocumentStream,
        packing: Packing,
        *,
        bos_token_id: int | None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise RequestError(f"Process {rank} of {world_size} makes no sense; they are counted from 0.")
        if packing.rows % (world_size * packing.pack):
            raise RequestError(
                f"A batch of {packing.rows} rows in packs of {packing.pack} cannot be shared by {world_size} processes."
            )
        self.packing = packing
        self._source, self._bos = stream, bos_token_id
        share = packing.rows // world_size
        self._rows = range(rank * share, rank * share + share)
        self._streams = [_Stream() for _ in range(packing.streams)]
        self._documents = self._batches = 0
        self._elsewhere = torch.zeros(1, dtype=torch.bool).share_memory_()  # whether a worker has gone on with it

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        turns, mine = (1, 0) if worker is None else (worker.num_workers, worker.id)
        if worker is not None:
            self._elsewhere.fill_(True)
        turn = 0
        while self._filled():
            batch = self._batch() if turn % turns == mine else None
            for stream in self._streams:
                stream.drop(self._stride)
            self._batches += 1
            turn += 1
            if batch is not None:
                yield batch

    @property
    def left_over(self) -> int:
        """Tokens that were taken and are not in a batch yet; at the end of the stream, those that never will be."""
        return sum(stream.tokens for stream in self._streams)

    def taken(self) -> dict[str, Taken]:
        """How much was taken of each source, what waits in streams included."""
        return self._source.taken()

    def state_dict(self) -> dict[str, Any]:
        """Where the dataset stands, as JSON can hold it: documents are named, not held.

        Raises:
            RuntimeError: Workers of a DataLoader go on with it, so only they know.
        """
        if self._elsewhere and get_worker_info() is None:
            raise RuntimeError("batches were made by DataLoader workers: ask the PackedLoader for the state")
        return {
            "packing": self._layout(),
            "batches": self._batches,
            "documents": self._documents,
            "stream": self._source.state_dict(),
            "waiting": [
                [
                    [piece.document.source, piece.document.index, len(piece.document.tokens), piece.number, piece.used]
                    for piece in stream.pieces
                ]
                for stream in self._streams
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; the documents that waited are read again.

        Raises:
            RequestError: The state is of another batch or of other data.
        """
        if state["packing"] != self._layout():
            raise RequestError(
                f"Training cannot go on: the packing was {state['packing']} and is {self._layout()}. "
                "Give the batch over all processes and the length that the state was saved with."
            )
        streams = [_Stream() for _ in state["waiting"]]
        for stream, waiting in zip(streams, state["waiting"], strict=True):
            for source, index, tokens, number, used in waiting:
                document = self._source.again(source, index)
                if len(document.tokens) != tokens:
                    raise RequestError(
                        f"Training cannot go on: {document.id} of {source!r} had {tokens} tokens and has "
                        f"{len(document.tokens)}. Give the data and the tokenizer that the state was saved with."
                    )
                stream.add(_Piece(document, number, used))
        self._source.load_state_dict(state["stream"])
        self._streams, self._documents, self._batches = streams, state["documents"], state["batches"]
        self._elsewhere.fill_(False)

    @property
    def _stride(self) -> int:
        """Tokens of a stream in one batch."""
        return self.packing.rows // self.packing.streams * self.packing.length

    def _layout(self) -> dict[str, int]:
        return {"rows": self.packing.rows, "length": self.packing.length, "streams": self.packing.streams}

    def _filled(self) -> bool:
        """Take documents until each stream has a batch's tokens and one more; False where there are none left."""
        for stream in self._streams:
            while stream.tokens <= self._stride:
                document = next(self._source, None)
                if document is None:
                    return False
                stream.add(_Piece(document, self._documents))
                self._documents += 1
        return True

    def _batch(self) -> dict[str, Tensor]:
        """This process's rows."""
        each = self.packing.rows // self.packing.streams
        streams = range(self._rows.start // each, (self._rows.stop - 1) // each + 1)
        made: dict[str, list[Tensor]] = {"input_ids": [], "labels": [], "document_ids": []}
        for stream in streams:
            tokens, numbers = self._streams[stream].first(self._stride + 1)
            labels = tokens[1:]
            if self._bos is not None:
                begins = numbers[1:] != numbers[:-1]
                labels = labels.masked_fill(begins & (labels == self._bos), IGNORED)
            for name, values in (("input_ids", tokens[:-1]), ("labels", labels), ("document_ids", numbers[:-1])):
                made[name].append(values.reshape(each, self.packing.length))
        first = self._rows.start - streams.start * each
        return {name: torch.cat(rows)[first : first + len(self._rows)].clone() for name, rows in made.items()}
