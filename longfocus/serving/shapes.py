"""Answers in the form of OpenAI's API, whole or as chunks of a stream, with the fields of ours in each choice.

`citations` are passages of the document (offsets count characters of `/v1/books/NAME/text`), `looked_up` those that the
model had before it, `attention` the strip that was asked for, `timings` seconds, `stopped` whether time was up.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from longfocus.serving.answering import Piece, Reply
from longfocus.serving.kept import now
from longfocus.serving.requests import Wishes

Form = Literal["chat", "text"]
_OBJECTS = {
    ("chat", False): "chat.completion",
    ("chat", True): "chat.completion.chunk",
    ("text", False): "text_completion",
    ("text", True): "text_completion",
}


class Shape:
    """The form of one response.

    Args:
        form: Which endpoint's.
        wishes: What was asked for.
    """

    def __init__(self, form: Form, wishes: Wishes) -> None:
        self._form = form
        self._wishes = wishes
        self._begun: set[int] = set()
        self._frame = {
            "id": f"{'chatcmpl' if form == 'chat' else 'cmpl'}-{secrets.token_hex(12)}",
            "object": _OBJECTS[form, wishes.stream],
            "created": now(),
            "model": wishes.model,
        }

    def whole(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """All answers at once, in order of choices; they come in the order in which they ended."""
        ordered = sorted(replies, key=lambda reply: reply.choice)
        choices = [self._choice(reply.choice, self._said(reply.text)) | self._end(reply) for reply in ordered]
        return self._frame | {"choices": choices, "usage": self.usage(replies)}

    def chunks(self, item: Piece | Reply) -> Iterator[dict[str, Any]]:
        """What a stream sends for a piece of an answer, or for its end."""
        if self._form == "chat" and item.choice not in self._begun:
            self._begun.add(item.choice)
            yield self._chunk(self._choice(item.choice, {"delta": {"role": "assistant", "content": ""}}))
        if isinstance(item, Piece):
            said = {"delta": {"content": item.text}} if self._form == "chat" else {"text": item.text}
            yield self._chunk(self._choice(item.choice, said))
        else:
            nothing: dict[str, Any] = {"delta": {}} if self._form == "chat" else {"text": ""}
            yield self._chunk(self._choice(item.choice, nothing) | self._end(item))

    def last(self, replies: Sequence[Reply]) -> Iterator[dict[str, Any]]:
        """What a stream ends with."""
        if self._wishes.counts:
            yield self._frame | {"choices": [], "usage": self.usage(replies)}

    def usage(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """Numbers of tokens: the Book counts as part of the prompt, as one that was read before."""
        asked = [reply for reply in replies if reply.choice % self._wishes.choices == 0]  # one of each prompt
        book = sum(reply.book_tokens for reply in asked)
        prompt = book + sum(reply.prompt_tokens for reply in asked)
        written = sum(reply.answer_tokens for reply in replies)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": book},
        }

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return self._frame | {"choices": [choice]} | ({"usage": None} if self._wishes.counts else {})

    def _said(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}} if self._form == "chat" else {"text": text}

    def _choice(self, index: int, said: dict[str, Any]) -> dict[str, Any]:
        return {"index": index, **said, "logprobs": None, "finish_reason": None}

    def _end(self, reply: Reply) -> dict[str, Any]:
        timings = {"first_token": round(reply.first_token, 4), "total": round(reply.seconds, 4)}
        end: dict[str, Any] = {
            "finish_reason": "stop" if reply.finish == "stop" else "length",
            "timings": timings,
        }
        if reply.finish == "time":
            end["stopped"] = "time"
        if self._wishes.book is not None:
            end["citations"] = [citation.to_json() for citation in reply.citations]
            end["looked_up"] = [citation.to_json() for citation in reply.looked_up]
        if self._wishes.attention:
            end["attention"] = list(reply.attention)
        return end
