"""Requests to the model, as iterators of pieces and whole answers, for the worker's thread to step through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from longfocus.asking.generation import Sampling, Written, write
from longfocus.asking.passages import Citation
from longfocus.asking.session import Answer, Prompt
from longfocus.errors import RequestError
from longfocus.loading.load import LoadedModel
from longfocus.loading.prompts import encode_frame, encode_text, frame_of, opening_ids
from longfocus.memory.book import StoredBook
from longfocus.model.cache import LongLlamaCache
from longfocus.serving.endings import Cut, Ending, Finish, ended
from longfocus.serving.requests import ChatRequest, CompletionRequest
from longfocus.serving.sessions import Retold, ServedSession, end_of_answer, gone_through


@dataclass(frozen=True)
class Piece:
    """A piece of an answer.

    Attributes:
        choice: Of which one.
        text: The piece.
    """

    choice: int
    text: str


@dataclass(frozen=True)
class Reply:
    """A whole answer.

    Attributes:
        choice: Which one it is.
        text: The answer.
        finish: Why it ended.
        book_tokens: Tokens of the Book.
        prompt_tokens: Tokens behind it.
        answer_tokens: Tokens written.
        first_token: Seconds to the first piece.
        seconds: To the end.
        citations: What it rests on, best first.
        looked_up: Passages that the model had before it.
        attention: The share that each stretch of the text had, in order; empty unless asked for.
    """

    choice: int
    text: str
    finish: Finish
    book_tokens: int
    prompt_tokens: int
    answer_tokens: int
    first_token: float
    seconds: float
    citations: tuple[Citation, ...] = ()
    looked_up: tuple[Citation, ...] = ()
    attention: tuple[float, ...] = ()


class Answering:
    """What the model can be asked for.

    Args:
        loaded: The model.
        session_of: Opens a Book by its name.
    """

    def __init__(self, loaded: LoadedModel, session_of: Callable[[str], ServedSession]) -> None:
        self._loaded = loaded
        self._session_of = session_of

    def chat(self, request: ChatRequest, seconds: float) -> Iterator[Piece | Reply]:
        """Answer a question, as often as was asked for; yields pieces, and each answer when it is whole.

        Args:
            request: The question.
            seconds: After which answers are broken off.

        Raises:
            BookError: The Book cannot be asked.
            RequestError: A question is empty or does not fit the window.
        """
        wishes = request.wishes
        ending = Ending(wishes.stop, time.perf_counter() + seconds)
        for choice in range(wishes.choices):
            sampling = _sampling_of(wishes.sampling, choice)
            if wishes.book is None:
                ids = self._alone_ids(request)
                yield from self._alone(choice, ids, sampling, ending)
                continue
            plain = self._session_of(wishes.book)
            session = plain.for_request(ending, request.instructions)
            before = 0
            if wishes.uses == "memory":
                talk = Retold(session, plain, sampling, wishes.citations, wishes.look_up)
                for turn in request.turns:
                    talk.retell(*turn)
                before = talk.tokens
                stream = talk.stream(request.question)
            else:
                question = session.instructed(request.question)
                stream = session.stream(question, uses=wishes.uses, sampling=sampling, citations=0)
            yield from _replies(choice, stream, session, before, wishes.attention, reads=wishes.uses == "memory")

    def complete(self, request: CompletionRequest, seconds: float) -> Iterator[Piece | Reply]:
        """Go on with texts; yields pieces, and each continuation when it is whole.

        Args:
            request: The texts.
            seconds: After which they are broken off.

        Raises:
            BookError: The Book cannot be asked.
        """
        wishes = request.wishes
        ending = Ending(wishes.stop, time.perf_counter() + seconds, trims=False)
        loaded = self._loaded
        for choice in range(len(request.prompts) * wishes.choices):
            text = request.prompts[choice // wishes.choices]
            sampling = _sampling_of(wishes.sampling, choice % wishes.choices)
            ids = encode_text(loaded.tokenizer, text)
            if wishes.book is None:
                yield from self._alone(choice, opening_ids(loaded.tokenizer, framed=False) + ids, sampling, ending)
                continue
            session = self._session_of(wishes.book).for_request(ending)
            begun = time.perf_counter()
            account = session.account(len(ids) + sampling.max_new_tokens)
            first, ids = _cut_to_fit(loaded, ids)
            state = gone_through(loaded, first, session.watched_state(account))
            stream = session.answer(Prompt(text, ids), state, account, sampling, wishes.citations, begun)
            yield from _replies(choice, _without_written(stream), session, len(first), wishes.attention)

    def _alone_ids(self, request: ChatRequest) -> list[int]:
        """A conversation without a Book: the frame of one, with nothing where the document would stand."""
        loaded, tokenizer = self._loaded, self._loaded.tokenizer
        frame = frame_of(tokenizer)
        if not request.question.strip():
            raise RequestError("the question is empty; ask something")
        asked = f"{request.instructions}\n\n{request.question}" if request.instructions else request.question
        between = end_of_answer(loaded, frame.between_turns) + encode_frame(tokenizer, frame.between_turns)
        after = encode_frame(tokenizer, frame.after_question)
        ids = opening_ids(tokenizer) + encode_frame(tokenizer, frame.before_question)
        for question, answer in request.turns:
            ids += encode_text(tokenizer, question.strip()) + after + encode_text(tokenizer, answer) + between
        return ids + encode_text(tokenizer, asked.strip()) + after

    def _alone(self, choice: int, ids: list[int], sampling: Sampling, ending: Ending) -> Iterator[Piece | Reply]:
        loaded = self._loaded
        begun = time.perf_counter()
        state = LongLlamaCache.of_memories({}, loaded.model.config.num_hidden_layers)
        first, rest = _cut_to_fit(loaded, ids)
        stream = write(loaded.model, loaded.tokenizer, rest, gone_through(loaded, first, state), sampling)
        pieces: list[str] = []
        first_token = 0.0
        last: Any = None
        for item in ended(stream, ending):
            last = item
            if isinstance(item, str):
                first_token = first_token or time.perf_counter() - begun
                pieces.append(item)
                yield Piece(choice, item)
        text, seconds = "".join(pieces), time.perf_counter() - begun
        if isinstance(last, Written):
            count, finish = len(last.ids), _finish_of(last.ids, sampling)
        else:
            assert isinstance(last, Cut)
            count, finish = len(encode_text(loaded.tokenizer, text)), last.finish
        yield Reply(choice, text, finish, 0, len(ids), count, first_token or seconds, seconds)


def attention_strip(book: StoredBook, attention: torch.Tensor, parts: int) -> tuple[float, ...]:
    """How attention [tokens] lies along the text: the share of each of `parts` stretches of equal length, in order."""
    inside = book.starts >= 0
    places = (book.starts[inside] * parts // max(len(book.text), 1)).clamp_max(parts - 1)
    shares = torch.bincount(places, weights=attention[inside].double(), minlength=parts)
    return tuple(round(share, 6) for share in (shares / shares.sum().clamp_min(1e-30)).tolist())


def _replies(
    choice: int, stream: Iterator[Any], session: ServedSession, before: int, parts: int, reads: bool = True
) -> Iterator[Piece | Reply]:
    for item in stream:
        if isinstance(item, str):
            yield Piece(choice, item)
            continue
        answer: Answer = item
        strip: tuple[float, ...] = ()
        if parts and session.attention is not None:
            strip = attention_strip(session.book, session.attention, parts)
        times = answer.timings
        yield Reply(
            choice=choice,
            text=answer.text,
            finish=session.finish,
            book_tokens=len(session.book.ids) if reads else 0,
            prompt_tokens=before + times.question_tokens,
            answer_tokens=times.answer_tokens,
            first_token=times.first_token,
            seconds=times.total,
            citations=answer.citations,
            looked_up=answer.looked_up,
            attention=strip,
        )


def _without_written(stream: Iterator[Any]) -> Iterator[Any]:
    for item in stream:
        yield item if isinstance(item, str) else item[0]


def _sampling_of(sampling: Sampling, choice: int) -> Sampling:
    """Each choice has a seed of its own."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + choice)


def _finish_of(ids: list[int], sampling: Sampling) -> Finish:
    return "length" if len(ids) >= sampling.max_new_tokens else "stop"


def _cut_to_fit(loaded: LoadedModel, ids: list[int]) -> tuple[list[int], list[int]]:
    """Tokens that go to memory first, and those that fit the window behind it."""
    room = loaded.model.config.stride
    return ids[:-room], ids[-room:]
