"""What goes before an answer, in steps: looking up, telling earlier turns, long texts.

A preparation is a generator. It pauses after each step that takes time, so that others have their turns meanwhile and
that who hangs up is heard, and it pauses where a question is to be looked up: what its tokens attend to is sent to it,
found for several questions at once. What it returns are the answers to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from longfocus.asking.account import AttentionAccount, Tally
from longfocus.asking.conversation import next_turn
from longfocus.asking.generation import Sampling, Written
from longfocus.asking.session import Prompt, Session
from longfocus.errors import RequestError
from longfocus.loading.load import LoadedModel
from longfocus.loading.prompts import encode_frame, encode_text, frame_of, opening_ids
from longfocus.model.cache import LongLlamaCache
from longfocus.serving.answering import Row
from longfocus.serving.requests import ChatRequest, CompletionRequest, Wishes

HEEDED = 32
"""Turns of a conversation, the last ones, that are told to the model."""


_NAMED_BY = 40
"""Characters by which a message is named in an error."""


@dataclass(frozen=True)
class LookUp:
    """What a question's tokens attend to is wanted.

    Attributes:
        session: The Book and its model.
        ids: The question's tokens in the frame.
    """

    session: Session
    ids: list[int]


T = TypeVar("T")
Steps = Generator[LookUp | None, Tally | None, T]
"""A preparation, or a part of one."""


class Preparing:
    """Makes preparations of what clients ask.

    Args:
        loaded: The model.
        session_of: Opens a Book by its name.
    """

    def __init__(self, loaded: LoadedModel, session_of: Callable[[str], Session]) -> None:
        self._loaded = loaded
        self._session_of = session_of
        self._empty = LongLlamaCache.of_memories({}, loaded.model.config.num_hidden_layers)

    def chat(self, request: ChatRequest) -> Steps[list[Row]]:
        """Prepare the answers to a question.

        Raises:
            BookError: The Book cannot be asked.
            RequestError: A question is empty or does not fit the window.
        """
        wishes, loaded = request.wishes, self._loaded
        if wishes.book is None:
            first, rest = _cut_to_fit(loaded, self._alone(request))
            state = yield from gone_through(loaded, first, self._empty)
            return [
                Row(choice, Prompt(request.question, rest), state, sampling, before=len(first))
                for choice, sampling in enumerate(_samplings(wishes))
            ]
        session = self._session_of(wishes.book)
        if wishes.uses != "memory":
            ids = session.question_ids(_instructed(request.instructions, request.question))
            ids = session.without_memory(ids, wishes.uses, wishes.sampling.max_new_tokens)
            return [
                Row(choice, Prompt(request.question, ids), self._empty, sampling)
                for choice, sampling in enumerate(_samplings(wishes))
            ]
        talk = Retold(session, wishes.look_up)
        for number, turn in [*enumerate(request.turns)][-HEEDED:]:
            with _named_in_errors(request, number):
                yield from talk.retell(*turn)
        prompt, state = yield from talk.asked(request.question, request.instructions)
        coming = len(prompt.ids) + wishes.sampling.max_new_tokens
        has_account = wishes.citations > 0 or wishes.attention > 0
        return [
            Row(
                choice,
                prompt,
                state,
                sampling,
                session,
                talk.account(coming, prompt) if has_account else None,
                talk.tokens,
                wishes.citations,
                wishes.attention,
            )
            for choice, sampling in enumerate(_samplings(wishes))
        ]

    def complete(self, request: CompletionRequest) -> Steps[list[Row]]:
        """Prepare going on with texts.

        Raises:
            BookError: The Book cannot be asked.
        """
        wishes, loaded = request.wishes, self._loaded
        session = None if wishes.book is None else self._session_of(wishes.book)
        rows: list[Row] = []
        for text in request.prompts:
            ids = encode_text(loaded.tokenizer, text)
            account: AttentionAccount | None = None
            if session is None:
                first, ids = _cut_to_fit(loaded, opening_ids(loaded.tokenizer, framed=False) + ids)
                state = yield from gone_through(loaded, first, self._empty)
            else:
                coming = len(ids) + wishes.sampling.max_new_tokens
                account, state = session.account(coming), session.state
                first, ids = _cut_to_fit(loaded, ids)
                if first:
                    state = yield from gone_through(loaded, first, session.watched_state(account))
            for sampling in _samplings(wishes):
                own = None if account is None else _copied(account)
                row = Row(len(rows), Prompt(text, ids), state, sampling, session, own, len(first))
                rows.append(replace(row, citations=wishes.citations, parts=wishes.attention))
        return rows

    def _alone(self, request: ChatRequest) -> list[int]:
        """A conversation without a Book: the frame of one, with nothing where the document would stand."""
        loaded, tokenizer = self._loaded, self._loaded.tokenizer
        frame = frame_of(tokenizer)
        if not request.question.strip():
            raise RequestError("the question is empty; ask something")
        between = end_of_answer(loaded, frame.between_turns) + encode_frame(tokenizer, frame.between_turns)
        after = encode_frame(tokenizer, frame.after_question)
        ids = opening_ids(tokenizer) + encode_frame(tokenizer, frame.before_question)
        for question, answer in request.turns[-HEEDED:]:
            ids += encode_text(tokenizer, question.strip()) + after + encode_text(tokenizer, answer) + between
        return ids + encode_text(tokenizer, _instructed(request.instructions, request.question).strip()) + after


class Retold:
    """A conversation whose earlier turns are told by the client, who keeps them.

    It goes on as if its answers had been written here: the same questions are looked up, the same words stand in the
    same places. Where an answer is not cut into tokens as it was written, or was cut off by its length, that differs.

    Args:
        session: The Book and its model.
        look_up: How many passages to look up for each question; None for what suits the model.

    Attributes:
        tokens: Tokens of the turns that were told.
    """

    def __init__(self, session: Session, look_up: int | None) -> None:
        self._session = session
        self._look_up = look_up
        self._last: Written | None = None
        self.tokens = 0

    def retell(self, question: str, answer: str) -> Steps[None]:
        """Take in a question and what was answered.

        Raises:
            RequestError: The question is empty or does not fit the window.
        """
        session, loaded = self._session, self._session.loaded
        prompt = yield from looked_up(session, question, self._look_up)
        if self._last is None:  # watched, so that the document's part of memory stays apart
            state = session.watched_state(unread_account(session))
        else:
            prompt = replace(prompt, ids=next_turn(session, self._last, prompt))
            state = self._last.state
        yield None
        ids = encode_text(loaded.tokenizer, answer)
        state = yield from gone_through(loaded, ids, _together(loaded, prompt.ids, state))
        self._last = Written(ids, state, end_of_answer(loaded, session.frame.between_turns))
        self.tokens += len(prompt.ids) + len(ids)

    def asked(self, question: str, instructions: str = "") -> Steps[tuple[Prompt, LongLlamaCache]]:
        """The question that is asked now, and what it stands behind.

        Raises:
            RequestError: The question is empty or does not fit the window.
        """
        prompt = yield from looked_up(self._session, question, self._look_up, instructions)
        if self._last is None:
            return prompt, self._session.state
        return replace(prompt, ids=next_turn(self._session, self._last, prompt)), self._last.state

    def account(self, coming: int, prompt: Prompt) -> AttentionAccount:
        """An empty account for an answer to a prompt, with which so many tokens come."""
        if self._last is None:
            account = self._session.account(coming)
        else:  # the document's end does not stand where it stood
            account = AttentionAccount(len(self._session.book.ids), window_counts=False)
        account.notes_question = prompt.attention is None
        return account


def unread_account(session: Session) -> AttentionAccount:
    """An account that nobody reads, for a state that is watched for another reason."""
    account = AttentionAccount(len(session.book.ids), window_counts=False)
    account.notes_question = False
    return account


def looked_up(session: Session, question: str, most: int | None, instructions: str = "") -> Steps[Prompt]:
    """As `Session.looked_up`; instructions stand before the question, and are no part of what is looked up."""
    most = session.loaded.habits.look_up if most is None else most
    ids = session.question_ids(question)
    prompt = Prompt(question, ids)
    if most:
        attention = yield LookUp(session, ids)
        assert attention is not None
        prompt = session.with_passages(question, ids, attention, most)
    if not instructions:
        return prompt
    text, passages = _instructed(instructions, question), prompt.looked_up
    while passages and not session.fits(text, passages):
        passages = passages[:-1]
    try:
        ids = session.question_ids(text, passages)
    except RequestError as error:
        raise RequestError(f"with what the system says before it, {error}") from None
    return replace(prompt, question=text, ids=ids, looked_up=passages)


def gone_through(loaded: LoadedModel, ids: list[int], before: LongLlamaCache) -> Steps[LongLlamaCache]:
    """The state after these tokens, as if they had come one by one: the window is filled before anything leaves it."""
    state, config = before, loaded.model.config
    start, room = 0, config.window - state.window
    while start < len(ids):
        state = _together(loaded, ids[start : start + room], state)
        start, room = start + room, config.stride
        yield None
    return state


def _together(loaded: LoadedModel, ids: list[int], before: LongLlamaCache) -> LongLlamaCache:
    """The state after these tokens, which all stand in the window at once."""
    if not ids:
        return before
    with torch.inference_mode():
        given = torch.tensor([ids], device=loaded.model.device)
        after = loaded.model.model(given, past_key_values=before, use_cache=True, last_context_length=len(ids))
    state: LongLlamaCache = after.past_key_values
    return state


def end_of_answer(loaded: LoadedModel, between: str) -> list[int]:
    """The token with which the model ends an answer, unless what stands between turns begins with it."""
    known: Any = loaded.model.generation_config.eos_token_id
    ends = known if isinstance(known, list) else [loaded.tokenizer.eos_token_id if known is None else known]
    begins = encode_frame(loaded.tokenizer, between)[:1]
    return [] if ends[0] is None or (begins and begins[0] in ends) else ends[:1]


def _copied(account: AttentionAccount) -> AttentionAccount:
    """An account of its own that goes on from what another has noted of the question."""
    made = AttentionAccount(len(account.question.attention), account.window_counts)
    made.question += account.question
    return made


def _samplings(wishes: Wishes) -> list[Sampling]:
    """How each choice is sampled: with a seed of its own."""
    sampling = wishes.sampling
    if sampling.seed is None:
        return [sampling] * wishes.choices
    return [replace(sampling, seed=sampling.seed + choice) for choice in range(wishes.choices)]


@contextmanager
def _named_in_errors(request: ChatRequest, number: int) -> Iterator[None]:
    """Says of what is wrong with an earlier question which one it is.

    Raises:
        RequestError: As it came, with the question named.
    """
    try:
        yield
    except RequestError as error:
        question = " ".join(request.turns[number][0].split())
        begins = f"{question[:_NAMED_BY]}..." if len(question) > _NAMED_BY else question
        place = f"messages[{request.places[number]}], " if request.places else ""
        raise RequestError(f"{place}an earlier question ({begins!r}): {error}, or begin a new conversation") from None


def _instructed(instructions: str, question: str) -> str:
    """A question with the instructions before it."""
    return f"{instructions}\n\n{question}" if instructions else question


def _cut_to_fit(loaded: LoadedModel, ids: list[int]) -> tuple[list[int], list[int]]:
    """Tokens that go to memory first, and those that fit the window behind it."""
    room = loaded.model.config.stride
    return ids[:-room], ids[-room:]
