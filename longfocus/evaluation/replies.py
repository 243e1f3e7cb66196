"""An answer with what it rests on and how much was read for it: what subjects tell besides their answer's text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from longfocus.asking.passages import Citation
from longfocus.evaluation.task import Opened


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        text: As `Opened.answer` gives it.
        prompt_tokens: Tokens of all that the model saw before it answered, by its own tokenizer; None if nobody told.
        citations: Passages of the document that it rests on, best first, with offsets into the document that was read.
            Their scores are the subject's own: only those of one answer can be compared.
    """

    text: str
    prompt_tokens: int | None = None
    citations: tuple[Citation, ...] = ()


@runtime_checkable
class Replying(Protocol):
    """What a document that was opened offers besides `Opened`, where the subject can tell more."""

    def reply(self, question: str, most: int, citations: int = 0) -> Reply:
        """Answer in at most `most` tokens, citing at most so many passages; subjects that know none cite none."""
        ...


def reply_of(opened: Opened, question: str, most: int, citations: int = 0) -> Reply:
    """All that a document that was opened tells about its answer to a question; see `Replying.reply`."""
    if isinstance(opened, Replying):
        return opened.reply(question, most, citations)
    return Reply(opened.answer(question, most))
