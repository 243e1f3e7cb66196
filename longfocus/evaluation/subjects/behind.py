"""What follows a document, for models that run here: questions in the prompt's frame, texts gone on with, losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, tensor

from longfocus.evaluation.replies import Reply
from longfocus.evaluation.task import Writing
from longfocus.loading.prompts import encode_frame, encode_text, frame_of


def question_ids(tokenizer: Any, question: str, *, alone: bool) -> list[int]:
    """Tokens of a question in the prompt's frame, behind a document or alone behind the prompt's opening."""
    frame = frame_of(tokenizer)
    before = frame.before_question.lstrip() if alone else frame.before_question
    ids = encode_frame(tokenizer, before) + encode_text(tokenizer, question.strip())
    return ids + encode_frame(tokenizer, frame.after_question)


class Behind(ABC):
    """Goes on behind what a model has read.

    Args:
        tokenizer: The model's.
        opening: Tokens that come first, where nothing was read.
        read: How many tokens were read.
    """

    def __init__(self, tokenizer: Any, opening: list[int], read: int) -> None:
        self._tokenizer = tokenizer
        self._opening = opening
        self._tokens_read = read

    @abstractmethod
    def _pieces(self, ids: list[int], writing: Writing) -> Iterator[str]:
        """What is written behind these tokens, in pieces; it may go on behind the first of the texts to stop at."""

    @abstractmethod
    def _predictions(self, ids: list[int]) -> Iterator[Tensor]:
        """What is predicted behind each of these tokens, in pieces of [tokens, vocabulary]."""

    def answer(self, question: str, most: int) -> str:
        """See `Opened.answer`; the likeliest token each time."""
        return self.reply(question, most).text

    def reply(self, question: str, most: int, citations: int = 0) -> Reply:
        """See `Replying.reply`; it cites nothing."""
        ids = self._opening + question_ids(self._tokenizer, question, alone=not self._tokens_read)
        return Reply(self._written(ids, Writing(most)).strip(), self._tokens_read + len(ids))

    def continued(self, text: str, writing: Writing) -> str:
        """See `Opened.continued`."""
        return self._written(self._opening + encode_text(self._tokenizer, text), writing)

    def _written(self, ids: list[int], writing: Writing) -> str:
        written = ""
        for piece in self._pieces(ids, writing):
            written += piece
            if (cut := writing.cut(written)) != written:
                return cut
        return written

    def loss(self, text: str) -> tuple[float, int]:
        """See `Opened.loss`; all but the text's first token are predicted."""
        ids = encode_text(self._tokenizer, text)
        total, place = 0.0, -len(self._opening)
        for logits in self._predictions(self._opening + ids):
            begun = logits[max(-place, 0) :]
            first = max(place, 0) + 1
            wanted = tensor(ids[first : first + len(begun)], device=logits.device)
            if len(wanted):
                total += float(F.cross_entropy(begun[: len(wanted)].float(), wanted, reduction="sum"))
            place += len(logits)
        return total, len(ids) - 1
