"""A Book asked by clients: answers end where each client wants, and a conversation is told anew with each question."""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import Any

import torch

from longfocus.asking.account import AttentionAccount
from longfocus.asking.conversation import Conversation
from longfocus.asking.generation import Sampling, Written
from longfocus.asking.passages import find_passages
from longfocus.asking.session import Answer, Prompt, Session, Timings
from longfocus.loading.load import LoadedModel
from longfocus.loading.prompts import encode_frame, encode_text
from longfocus.model.cache import LongLlamaCache
from longfocus.serving.endings import Cut, Ending, Finish, ended


class ServedSession(Session):
    """A session with a Book, for one request at a time.

    Attributes:
        ending: Where answers end.
        instructions: What the system says; it stands before the question, where it is sure to be in the window.
        finish: Why the last answer ended.
        attention: What the document's tokens got of the last answer's attention, [tokens]; None where no account of
            it was kept.
    """

    ending = Ending()
    instructions = ""
    finish: Finish = "stop"
    attention: torch.Tensor | None = None

    def for_request(self, ending: Ending, instructions: str = "") -> ServedSession:
        """The same Book and model, for a request of its own."""
        other = copy(self)
        other.ending, other.instructions = ending, instructions
        return other

    def looked_up(self, question: str, most: int | None) -> Prompt:
        """See `Session.looked_up`; instructions are no part of what is looked up."""
        prompt = super().looked_up(question, most)
        if not self.instructions:
            return prompt
        text, passages = self.instructed(question), prompt.looked_up
        while passages and len(self._ids(text, passages)) > self.loaded.model.config.stride:
            passages = passages[:-1]
        return replace(prompt, question=text, ids=self.question_ids(text, passages), looked_up=passages)

    def instructed(self, question: str) -> str:
        """A question with the instructions before it."""
        return f"{self.instructions}\n\n{question}" if self.instructions else question

    def answer(
        self,
        prompt: Prompt,
        state: LongLlamaCache,
        account: AttentionAccount | None,
        sampling: Sampling,
        citations: int,
        begun: float,
    ) -> Iterator[str | tuple[Answer, Written]]:
        """See `Session.answer`; a stop string or the time may end it before the model does."""
        pieces: list[str] = []
        first = 0.0
        last: Any = None
        if account is not None:
            account.notes_question = prompt.attention is None
        for item in ended(super().answer(prompt, state, None, sampling, 0, begun), self.ending):
            last = item
            if isinstance(item, str):
                first = first or time.perf_counter() - begun
                pieces.append(item)
                yield item
        text = "".join(pieces)
        if isinstance(last, Cut):
            self.finish = last.finish
            ids = encode_text(self.loaded.tokenizer, text)
            total = time.perf_counter() - begun
            timings = Timings(round(first or total, 4), round(total, 4), len(prompt.ids), len(ids), 0.0)
            answer = Answer(prompt.question, text, (), timings, tuple(ids), prompt.looked_up)
            written = Written(ids, state, [])  # nothing goes on from here
        else:
            answer, written = last
            self.finish = "length" if len(written.ids) >= sampling.max_new_tokens else "stop"
        if account is not None:
            self.attention = ((prompt.attention or account.question) + account.answer).attention
            answer = replace(answer, citations=find_passages(self.book, self.attention, citations))
        yield replace(answer, text=text), written


class Retold(Conversation):
    """A conversation whose earlier turns are told by the client, who keeps them.

    It goes on as if its answers had been written here: the same questions are looked up, the same words stand in the
    same places. Where an answer is not cut into tokens as it was written, or was cut off by its length, that differs.

    Args:
        session: The Book and its model.
        plain: The same without instructions, which stand before the last question only.
        sampling: How tokens are chosen.
        citations: How many passages to cite at most.
        look_up: How many passages to look up for each question; None for what suits the model.

    Attributes:
        tokens: Tokens of the turns that were told.
    """

    def __init__(
        self,
        session: ServedSession,
        plain: Session,
        sampling: Sampling,
        citations: int,
        look_up: int | None,
    ) -> None:
        super().__init__(session, sampling, citations, look_up)
        self._plain = plain
        self.tokens = 0

    def retell(self, question: str, answer: str) -> None:
        """Take in a question and what was answered.

        Raises:
            RequestError: The question is empty or does not fit the window.
        """
        session, loaded = self._plain, self._plain.loaded
        prompt = session.looked_up(question, self._look_up)
        if self._last is None:
            state = session.watched_state(session.account(0))
        else:
            prompt = replace(prompt, ids=self._next_turn(self._last, prompt))
            state = self._last.state
        ids = encode_text(loaded.tokenizer, answer)
        state = gone_through(loaded, ids, _together(loaded, prompt.ids, state))
        self._last = Written(ids, state, end_of_answer(loaded, session.frame.between_turns))
        self.tokens += len(prompt.ids) + len(ids)


def gone_through(loaded: LoadedModel, ids: list[int], before: LongLlamaCache) -> LongLlamaCache:
    """The state after these tokens, as if they had come one by one: the window is filled before anything leaves it."""
    state, config = before, loaded.model.config
    start, room = 0, config.window - state.window
    while start < len(ids):
        state = _together(loaded, ids[start : start + room], state)
        start, room = start + room, config.stride
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
