"""Instructions and conversations in the words of the tokenizer's own chat template, with exact labels.

The template is filled with marks in place of what is said, so its own text and the texts are told apart without a
doubt. Each is turned into tokens by itself, as when a model is asked; in the texts nothing is a special token. Where
the template says what the model generates (`{% generation %}`), that is what the loss counts; elsewhere it counts each
of the assistant's texts and the special token that ends it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from longfocus.errors import DocumentError, RequestError
from longfocus.loading.prompts import encode_frame, encode_text
from longfocus.training.conversations import ConversationFields
from longfocus.training.examples import Example, Piece, Record
from longfocus.training.instructions import InstructionFields
from longfocus.training.special_tokens import special_ids

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MARK = re.compile(r"(\t?)\(\(\(turn (\d+)\)\)\)(\t?)")  # the tabs tell whether the template strips what is said

Message = dict[str, str]


@dataclass(frozen=True)
class TemplateFormat:
    """Records in the form of the tokenizer's chat template.

    Attributes:
        fields: Where a record has its parts.
        longest: Most tokens of a row, None for all; what is cut off is the end.
    """

    fields: InstructionFields | ConversationFields
    longest: int | None = 2048

    def encode(self, record: Record, tokenizer: Any) -> Example:
        """Tokens of a record.

        Raises:
            DocumentError: The record has no such fields, or the template refuses the conversation.
            RequestError: The tokenizer has no chat template, or one whose turns have no end.
        """
        return encode_messages(tokenizer, self.fields.messages(record), self.longest)


def encode_messages(tokenizer: Any, messages: Sequence[Message], longest: int | None = None) -> Example:
    """Tokens of a conversation, the loss counting what the assistant says and how it ends.

    Args:
        tokenizer: Has a chat template.
        messages: With "role" and "content".
        longest: Most tokens to keep, from the beginning.

    Raises:
        DocumentError: The template refuses the conversation, or leaves out, repeats or moves a message.
        RequestError: The tokenizer has no chat template, or one whose turns have no end.
    """
    text, generated = _render(tokenizer, messages)
    places = list(_MARK.finditer(text))
    if [int(place[2]) for place in places] != list(range(len(messages))):
        raise DocumentError("the chat template leaves out, repeats or moves messages, so their labels are not known")
    pieces = _Pieces(tokenizer, text, generated)
    pieces.add_template(0, places[0].start() if places else len(text), after_assistant=False)
    for number, (place, message) in enumerate(zip(places, messages, strict=True)):
        said = message["content"]
        said = said if place[1] else said.lstrip()
        said = said if place[3] else said.rstrip()
        by_assistant = message["role"] == "assistant"
        pieces.add_text(said, place.start(2), by_assistant)
        following = places[number + 1].start() if number + 1 < len(places) else len(text)
        pieces.add_template(place.end(), following, by_assistant)
    return Example.of(pieces.pieces, longest)


class _Pieces:
    """Token ids of a rendered conversation, piece by piece.

    `generated` are the stretches (start, end) of the rendered text that the template says the model generates, or None
    where it does not say.
    """

    def __init__(self, tokenizer: Any, text: str, generated: list[tuple[int, int]] | None) -> None:
        self._tokenizer = tokenizer
        self._text = text
        self._generated = generated
        self._special = special_ids(tokenizer)
        self.pieces: list[Piece] = []

    def add_text(self, said: str, place: int, by_assistant: bool) -> None:
        counted = by_assistant
        if self._generated is not None:
            counted = any(start <= place < end for start, end in self._generated)
        self.pieces.append((encode_text(self._tokenizer, said), counted))

    def add_template(self, start: int, stop: int, after_assistant: bool) -> None:
        if self._generated is not None:
            borders = sorted({start, stop, *(b for pair in self._generated for b in pair if start < b < stop)})
            for first, last in pairwise(borders):
                counted = any(begin <= first and last <= end for begin, end in self._generated)
                self.pieces.append((encode_frame(self._tokenizer, self._text[first:last]), counted))
            return
        ids = encode_frame(self._tokenizer, self._text[start:stop])
        end = 0
        if after_assistant:
            end = next((place + 1 for place, token in enumerate(ids) if token in self._special), 0)
            if not end:
                raise RequestError("the chat template ends the assistant's turns with no special token; use another")
        self.pieces += [(ids[:end], True), (ids[end:], False)]


def _render(tokenizer: Any, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]] | None]:
    """A conversation with marks for what is said, and the stretches that the template says are generated."""
    if not getattr(tokenizer, "chat_template", None):
        raise RequestError("the tokenizer has no chat template; use the forms of instructions.py and conversations.py")
    template = tokenizer.get_chat_template()
    says = _GENERATION.search(template) is not None
    marked = [{**message, "content": f"\t(((turn {number})))\t"} for number, message in enumerate(messages)]
    try:
        rendered: Any = render_jinja_template(
            conversations=[marked],
            chat_template=template,
            return_assistant_tokens_mask=says,
            **tokenizer.special_tokens_map,
        )
    except Exception as error:  # a template is a program of the checkpoint's authors and may raise anything
        raise DocumentError(
            f"the chat template refuses a conversation: {' '.join(str(error).split())[:200]}"
        ) from error
    texts, generated = rendered
    return texts[0], [(int(start), int(end)) for start, end in generated[0]] if says else None
