"""Models behind an API: those that speak as OpenAI's does, which many servers do, and Anthropic's.

Nothing is sent when a document is read; it goes with each question, in one message. Anthropic's API is asked to keep
it for the next question; OpenAI's does that by itself. Lengths are counted by a tokenizer that is handed in, since the
models' own are not to be had: then a document of 32k is the same text for all.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from longfocus.errors import RequestError
from longfocus.evaluation.replies import Reply
from longfocus.evaluation.subjects.api import Api, Refused, key_of
from longfocus.evaluation.task import DoesNotFit, Form, NotPossible, Opened, Writing
from longfocus.loading.prompts import encode_text

OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com/v1"
_VERSION = "2023-06-01"
_BEFORE = "This is a document.\n\n<document>\n"
_TOO_LONG = re.compile(r"context.{0,9}(length|window|size)|too (long|large)|too many tokens|maximum.{0,20}tokens", re.I)
_BEHIND = "\n</document>\n\n"


@dataclass(frozen=True)
class RemoteSettings:
    """How a model behind an API is asked.

    Attributes:
        model: Its name there.
        base: The API's address up to the version; empty for the company's own.
        key_variable: Environment variable with the key; empty for the usual one, which is not sent over `http://`.
        completions: Whether the API goes on with texts (`/completions`).
        thinking: Tokens allowed on top of an answer's, for models that think before they answer.
    """

    model: str
    base: str = ""
    key_variable: str = ""
    completions: bool = False
    thinking: int = 0


class RemoteSubject(ABC):
    """A model behind an API.

    Args:
        settings: How it is asked.
        tokenizer: What counts the tokens of documents.
        say: Told once what the API does not let us choose.
        wait: Lets seconds pass; for tests.

    Raises:
        RequestError: A key or a package is missing, or the address is none.
    """

    home: str
    variable: str

    def __init__(
        self,
        settings: RemoteSettings,
        tokenizer: Any,
        say: Callable[[str], None] = lambda _: None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        base = settings.base or self.home
        key = None
        if settings.key_variable or not base.startswith("http://"):
            needed = bool(settings.key_variable) or not settings.base
            key = key_of(settings.key_variable or self.variable, needed=needed)
        self._api = Api(base, self._headers(key), key, wait=wait)
        self._settings = settings
        self._tokenizer = tokenizer
        self._say = say
        self._unwanted: set[str] = set()
        self.name = settings.model
        self.identity = f"{self._api.place} {settings.model} +{settings.thinking}"

    def count(self, text: str) -> int:
        """See `Subject.count`."""
        return len(encode_text(self._tokenizer, text))

    @contextmanager
    def read(self, document: str, form: Form) -> Iterator[Opened]:
        """See `Subject.read`."""
        yield _Remembered(self, document)

    @abstractmethod
    def _headers(self, key: str | None) -> dict[str, str]:
        """What tells the API who asks."""

    @abstractmethod
    def asked(self, document: str, question: str, most: int) -> Reply:
        """Put a question about a document, which may be empty."""

    def gone_on_with(self, text: str, writing: Writing) -> str:
        """How the model goes on with a text.

        Raises:
            NotPossible: The API cannot have it done.
        """
        raise NotPossible(f"{self.name}: APIs of chat models answer messages and do not go on with texts")

    def _put(self, path: str, content: Any, most: int) -> dict[str, Any]:
        """Send one message of the user's, to be answered as the model finds likeliest."""
        body = {
            "model": self._settings.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": most + self._settings.thinking,
            "temperature": 0,
        }
        return self._post(path, body)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request; what the model does not know how to take is left out, from then on."""
        while True:
            try:
                return self._api.post(path, self._adapted(body))
            except Refused as refused:
                if refused.status == 413 or _TOO_LONG.search(refused.message):
                    raise DoesNotFit(str(refused)) from None
                if refused.status != 400 or not self._gives_up(body, refused.message):
                    raise

    def _adapted(self, body: dict[str, Any]) -> dict[str, Any]:
        sent = {name: value for name, value in body.items() if name not in self._unwanted}
        if "max_tokens" in self._unwanted:
            sent["max_completion_tokens"] = body["max_tokens"]
        return sent

    def _gives_up(self, body: dict[str, Any], message: str) -> bool:
        """Whether the error is about a setting that can be done without."""
        if "max_completion_tokens" in message and "max_tokens" in body and "max_tokens" not in self._unwanted:
            self._unwanted.add("max_tokens")
            return True
        for name in ("temperature", "top_p", "seed"):
            if name in body and name not in self._unwanted and re.search(rf"\b{name}\b", message):
                self._unwanted.add(name)
                self._say(f"{self.name} lets nobody choose its {name}: answers may differ from run to run")
                return True
        return False

    def _not_cut(self, text: str, finished: Any) -> str:
        """The text, unless the model was cut off before it wrote any."""
        if not text.strip() and finished in ("length", "max_tokens"):
            raise RequestError(f"{self.name} used all its tokens before it answered; allow more for thinking")
        return text.strip()


class OpenAiSubject(RemoteSubject):
    """A model behind OpenAI's chat API, or behind a server that has the same."""

    home = OPENAI
    variable = "OPENAI_API_KEY"

    def _headers(self, key: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def asked(self, document: str, question: str, most: int) -> Reply:
        """See `RemoteSubject.asked`."""
        content = f"{_BEFORE}{document}{_BEHIND}{question}" if document else question
        found = self._put("chat/completions", content, most)
        choice = _first(found.get("choices"))
        text = _text((choice.get("message") or {}).get("content"))
        used = (found.get("usage") or {}).get("prompt_tokens")
        return Reply(self._not_cut(text, choice.get("finish_reason")), used)

    def gone_on_with(self, text: str, writing: Writing) -> str:
        """See `RemoteSubject.gone_on_with`."""
        if not self._settings.completions:
            return super().gone_on_with(text, writing)
        body: dict[str, Any] = {
            "model": self._settings.model,
            "prompt": text,
            "max_tokens": writing.most,
            "temperature": writing.temperature,
        }
        if writing.temperature > 0:
            body |= {"top_p": writing.top_p, "seed": writing.seed}
        if writing.stop:
            body["stop"] = list(writing.stop[:4])  # as many as the API takes
        written = _first(self._post("completions", body).get("choices")).get("text") or ""
        return writing.cut(written)


class AnthropicSubject(RemoteSubject):
    """A model behind Anthropic's messages API, which keeps the document between questions."""

    home = ANTHROPIC
    variable = "ANTHROPIC_API_KEY"

    def _headers(self, key: str | None) -> dict[str, str]:
        return {"anthropic-version": _VERSION, **({"x-api-key": key} if key else {})}

    def asked(self, document: str, question: str, most: int) -> Reply:
        """See `RemoteSubject.asked`."""
        content: list[dict[str, Any]] = [{"type": "text", "text": question}]
        if document:
            kept = {"type": "text", "text": f"{_BEFORE}{document}{_BEHIND}", "cache_control": {"type": "ephemeral"}}
            content.insert(0, kept)
        found = self._put("messages", content, most)
        usage = found.get("usage") or {}
        kinds = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        used = sum(usage.get(kind) or 0 for kind in kinds)
        return Reply(self._not_cut(_text(found.get("content")), found.get("stop_reason")), used or None)


def _text(content: Any) -> str:
    """What a message says, which may stand in parts, some of them thoughts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if part.get("type") == "text")
    return content or ""


def _first(choices: Any) -> dict[str, Any]:
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise RequestError("the API answered without an answer: there is nothing in `choices`")
    return choices[0]


class _Remembered:
    """A document that goes with each question."""

    def __init__(self, subject: RemoteSubject, document: str) -> None:
        self._subject = subject
        self._document = document

    def answer(self, question: str, most: int) -> str:
        """See `Opened.answer`."""
        return self.reply(question, most).text

    def reply(self, question: str, most: int, citations: int = 0) -> Reply:
        """See `Replying.reply`; it cites nothing."""
        return self._subject.asked(self._document, question, most)

    def continued(self, text: str, writing: Writing) -> str:
        """See `Opened.continued`."""
        return self._subject.gone_on_with(self._document + text, writing)

    def loss(self, text: str) -> tuple[float, int]:
        """See `Opened.loss`."""
        raise NotPossible(f"{self._subject.name}: the API tells no probabilities of a text")
