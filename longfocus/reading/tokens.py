"""A document as the tokens to read: the prompt's opening, then the text, and the characters of each token."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from longfocus.errors import DocumentError, RequestError
from longfocus.loading.prompts import encode_with_places, opening_ids
from longfocus.reading.documents import Document


@dataclass(frozen=True)
class DocumentTokens:
    """What a model is to read.

    Attributes:
        ids: Token ids, [tokens].
        starts: First character of the document's text, [tokens]; -1 for the opening.
        ends: One past the last character, [tokens]; -1 likewise.
        opening: How many tokens the opening has.
        spans: Which characters are read.
        left_out: Characters cut out of the middle, or None.
    """

    ids: Tensor
    starts: Tensor
    ends: Tensor
    opening: int
    spans: tuple[tuple[int, int], ...]
    left_out: tuple[int, int] | None

    def tensors(self) -> dict[str, Tensor]:
        """As a Book keeps them."""
        return {"ids": self.ids.int(), "starts": self.starts, "ends": self.ends}


def tokenize(document: Document, tokenizer: Any, most: int | None = None, *, framed: bool = True) -> DocumentTokens:
    """Tokens of a document's body.

    Args:
        document: What to read.
        tokenizer: The model's.
        most: Most tokens of the document to read; of a longer one the middle is left out. None reads all of it.
        framed: Whether the prompt's opening stands before it, or only what the tokenizer puts before any text.

    Raises:
        DocumentError: The document has no tokens.
        RequestError: `most` is too small.
    """
    if most is not None and most < 2:
        raise RequestError(f"at most {most} tokens were to be read; give 2 or more, or no limit")
    opening = opening_ids(tokenizer, framed)
    first, last = document.body
    ids, places = encode_with_places(tokenizer, document.text[first:last])
    if not ids:
        raise DocumentError(f"{document.title} has no text that the tokenizer knows")
    left_out = None
    spans: tuple[tuple[int, int], ...] = ((first, last),)
    if most is not None and len(ids) > most:
        head, tail = (most + 1) // 2, most // 2
        begin = places[head - 1][1]
        # several tokens may stand for one character; where the cut falls among them, no character is left out
        left_out = (first + begin, first + max(begin, places[len(ids) - tail][0]))
        spans = ((first, left_out[0]), (left_out[1], last))
        ids, places = ids[:head] + ids[-tail:], places[:head] + places[-tail:]
    nowhere = [-1] * len(opening)
    return DocumentTokens(
        ids=torch.tensor(opening + ids),
        starts=torch.tensor(nowhere + [first + start for start, _ in places]),
        ends=torch.tensor(nowhere + [first + end for _, end in places]),
        opening=len(opening),
        spans=spans,
        left_out=left_out,
    )


def hash_of(contents: bytes) -> str:
    """SHA-256 as hexadecimal digits."""
    return sha256(contents).hexdigest()
