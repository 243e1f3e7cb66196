"""Sources of training data: documents in an order drawn by seed, as tokens.

A source gives its documents one after the other, once or again and again. Where it stands is two numbers, so training
goes on exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from longfocus.errors import RequestError
from longfocus.loading.prompts import encode_text
from longfocus.training.documents import Documents


@dataclass(frozen=True, eq=False)
class TokenizedDocument:
    """A document as a source gives it.

    Attributes:
        source: Name of the source.
        index: Its number among the source's documents; source and index are enough to have it again.
        id: What it is called where it comes from.
        tokens: [T], int64, with what marks its beginning and its end.
    """

    source: str
    index: int
    id: str
    tokens: Tensor


@dataclass(frozen=True)
class Taken:
    """How much a source has given.

    Attributes:
        documents: Documents, each time that one came.
        tokens: Tokens in them.
        too_short: Documents that were passed over.
    """

    documents: int = 0
    tokens: int = 0
    too_short: int = 0


@dataclass(frozen=True)
class DocumentEncoder:
    """Text as tokens: what marks a beginning, the text, what marks an end. Nothing in the text is a special token.

    Attributes:
        tokenizer: A transformers tokenizer.
        bos: Token before each document, or None.
        eos: Token behind each document.
    """

    tokenizer: Any
    bos: int | None
    eos: int

    @classmethod
    def of(cls, tokenizer: Any) -> DocumentEncoder:
        """With the tokenizer's own marks; many for chat have others than their base model was trained with.

        Raises:
            RequestError: It has none for the end.
        """
        if tokenizer.eos_token_id is None:
            raise RequestError("The tokenizer has no end-of-sequence token; say which token ends a document.")
        return cls(tokenizer, tokenizer.bos_token_id, tokenizer.eos_token_id)

    def __call__(self, text: str) -> list[int]:
        """The tokens of one document."""
        return [*([] if self.bos is None else [self.bos]), *encode_text(self.tokenizer, text), self.eos]


class DocumentStream(Protocol):
    """What gives documents one after the other, can say where it stands and give one again."""

    def __iter__(self) -> Iterator[TokenizedDocument]:
        """Itself."""

    def __next__(self) -> TokenizedDocument:
        """The next document; StopIteration at the end, and ever after."""

    def again(self, source: str, index: int) -> TokenizedDocument:
        """A document that was given before."""

    def taken(self) -> dict[str, Taken]:
        """How much came of each source."""

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as JSON can hold it."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class Source:
    """Documents in an order drawn by seed, as tokens.

    Args:
        name: What it is called in reports and states.
        documents: What it gives.
        encode: A text's tokens, with the marks of its beginning and end; the same each time.
        seed: Draws the order, another one each epoch; None leaves the documents as they lie.
        epochs: How often all documents are given; None never ends.
        shortest: Fewest tokens of a document, marks included; shorter ones are passed over.

    Raises:
        RequestError: No documents, or numbers that make no sense.
    """

    def __init__(
        self,
        name: str,
        documents: Documents,
        encode: Callable[[str], Sequence[int]],
        *,
        seed: int | None,
        epochs: int | None = None,
        shortest: int = 1,
    ) -> None:
        if not len(documents):
            raise RequestError(f"The source {name!r} has no documents.")
        if epochs is not None and epochs < 1:
            raise RequestError(f"The source {name!r} was to give {epochs} epochs; wanted 1 or more, or None.")
        if shortest < 1:
            raise RequestError(f"The shortest document of {name!r} is {shortest} tokens; wanted 1 or more.")
        if seed is not None and seed < 0:
            raise RequestError(f"The seed of {name!r} is {seed}; wanted 0 or more, or None for no shuffling.")
        self.name = name
        self._documents, self._encode, self._seed = documents, encode, seed
        self._epochs, self._shortest = epochs, shortest
        self._epoch = self._place = 0
        self._taken = Taken()
        self._order: tuple[int, np.ndarray[Any, np.dtype[np.int64]]] | None = None  # of one epoch

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> TokenizedDocument:
        """The next document.

        Raises:
            RequestError: An epoch went by without one that is long enough.
        """
        while True:
            if self._place == len(self._documents):
                if not self._taken.documents:
                    raise RequestError(f"No document of {self.name!r} has {self._shortest} tokens; ask for fewer.")
                self._epoch, self._place = self._epoch + 1, 0
            if self._epochs is not None and self._epoch >= self._epochs:
                raise StopIteration
            document = self.again(self.name, self._index())
            self._place += 1
            so_far, tokens = self._taken, len(document.tokens)
            if tokens >= self._shortest:
                self._taken = Taken(so_far.documents + 1, so_far.tokens + tokens, so_far.too_short)
                return document
            self._taken = Taken(so_far.documents, so_far.tokens, so_far.too_short + 1)

    def again(self, source: str, index: int) -> TokenizedDocument:
        """The document of that number, whether or not it was given before.

        Raises:
            RequestError: The source is another, or has fewer documents.
        """
        if source != self.name or not 0 <= index < len(self._documents):
            raise RequestError(
                f"Document {index} of {source!r} is wanted from {self.name!r}, which has {len(self._documents)}. "
                "Give the data that the state was saved with."
            )
        document = self._documents[index]
        return TokenizedDocument(
            self.name, index, document.id, torch.tensor(self._encode(document.text), dtype=torch.int64)
        )

    def taken(self) -> dict[str, Taken]:
        """How much it has given, by its name."""
        return {self.name: self._taken}

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        so_far = self._taken
        return {
            "name": self.name,
            "of": len(self._documents),
            "seed": self._seed,
            "epoch": self._epoch,
            "place": self._place,
            "taken": [so_far.documents, so_far.tokens, so_far.too_short],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            RequestError: The state is of other data or another order.
        """
        for field, here in (("name", self.name), ("of", len(self._documents)), ("seed", self._seed)):
            if state[field] != here:
                raise RequestError(
                    f"The source {self.name!r} cannot go on: {field} was {state[field]!r} and is {here!r}. "
                    "Give the data and the seed that the state was saved with."
                )
        self._epoch, self._place, self._taken = state["epoch"], state["place"], Taken(*state["taken"])

    def _index(self) -> int:
        """Which document stands at the present place."""
        if self._seed is None:
            return self._place
        if self._order is None or self._order[0] != self._epoch:
            # RandomState's stream is promised to stay as it is; that of numpy's newer generators may change
            draw = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([self._seed, self._epoch])))
            self._order = (self._epoch, draw.permutation(len(self._documents)))
        return int(self._order[1][self._place])
