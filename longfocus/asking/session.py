"""Asking a Book: the question goes behind what was read, the answer streams, citations come with it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypedDict, Unpack

import torch

from longfocus.asking.account import AttentionAccount, Tally, WatchedMemory
from longfocus.asking.generation import Sampling, Written, write
from longfocus.asking.passages import Citation, find_passages
from longfocus.errors import READ_ANEW, BookError, RequestError
from longfocus.loading.load import LoadedModel
from longfocus.loading.prompts import encode_frame, encode_text, frame_of, with_passages
from longfocus.memory.book import StoredBook
from longfocus.memory.kinds import AUTO, Choice, open_memories
from longfocus.memory.layout import Reading
from longfocus.model.cache import LayerState, LongLlamaCache

Uses = Literal["memory", "window", "nothing"]
"""What an answer may rest on: all that was read, only what fits the window at the document's end, or nothing of it."""


class AskOptions(TypedDict, total=False):
    """How a question is answered; see `Session.stream`."""

    uses: Uses
    sampling: Sampling | None
    citations: int
    look_up: int | None


@dataclass(frozen=True)
class Timings:
    """Seconds and tokens of one answer.

    Attributes:
        first_token: Seconds from the question to the first piece of the answer.
        total: Seconds from the question to the answer's end.
        question_tokens: Tokens of the prompt behind the document.
        answer_tokens: Tokens generated.
        tokens_per_second: Of the answer after its first token; 0 for an answer of one token.
    """

    first_token: float
    total: float
    question_tokens: int
    answer_tokens: int
    tokens_per_second: float


@dataclass(frozen=True)
class Answer:
    """An answer and what it rests on.

    Attributes:
        question: As it was asked.
        text: The answer.
        citations: Passages on which the answer's and the question's tokens put their attention, best first.
        timings: How long it took.
        ids: Token ids of the answer.
        looked_up: Passages that the model had before it, besides its memory; best first.
    """

    question: str
    text: str
    citations: tuple[Citation, ...]
    timings: Timings
    ids: tuple[int, ...]
    looked_up: tuple[Citation, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "question": self.question,
            "answer": self.text,
            "citations": [citation.to_json() for citation in self.citations],
            "timings": asdict(self.timings),
        }


@dataclass(frozen=True)
class Prompt:
    """What goes behind the document.

    Attributes:
        question: What is asked.
        ids: Its token ids, with the frame's and those of passages.
        attention: What its tokens attended to when it was looked up; None if it was not.
        looked_up: Passages that stand before it.
    """

    question: str
    ids: list[int]
    attention: Tally | None = None
    looked_up: tuple[Citation, ...] = ()


class Session:
    """A Book together with the model that read it.

    A question is looked up first, unless the model was trained to do without: it goes through the model once, and the
    passages that its tokens attend to are put before it. So memory has to find what is asked for, and what is found is
    read again where a model reads best, in its window.

    Attributes:
        book: The Book.
        loaded: The model that read it.
        frame: The fixed parts of a prompt.
        window: Most tokens in the model's window.
        state: The model's state after reading; every question starts from it.
        finding: The state in which questions are looked up.
        choice: Which memory answers.
        notes: What was done for it that a user may not expect, a line each; empty where nothing was.

    Args:
        book: The Book.
        loaded: The model that read it.
        top_k: How many of the best entries of memory each query sees; None for what suits the model.
        memory: Which memory answers: a name in `longfocus.memory.kinds.MEMORY_KINDS`, or "auto". An index that is named
            and that the Book does not have is built.

    Raises:
        BookError: The Book was read by another model or with other settings, or an index can neither be used nor built.
        RequestError: There is no such memory, or it needs a library that is missing.
    """

    def __init__(self, book: StoredBook, loaded: LoadedModel, top_k: int | None = None, memory: str = AUTO) -> None:
        top_k = loaded.habits.top_k if top_k is None else top_k
        read, reader = book.manifest.reading, loaded.reader
        here = Reading.by(reader.name, reader.fingerprint, reader.model.config, read.look_back, read.packed)
        book.check_reader(replace(here, discount=read.discount))  # how it was read does not matter any more
        vocabulary = loaded.model.config.vocab_size
        if not 0 <= int(book.ids.min()) <= int(book.ids.max()) < vocabulary:
            raise BookError(f"{book.folder} has tokens beyond the model's {vocabulary}; {READ_ANEW}")
        self.book = book
        self.loaded = loaded
        self.frame = frame_of(loaded.tokenizer)
        self.window: int = loaded.model.config.window
        self.choice: Choice
        self.choice, memories = open_memories(book, memory, top_k)
        self.notes = self.choice.notes
        self.state = book.state(memories, loaded.model.dtype)
        self.finding = self.state
        if loaded.plain is not None:  # what finds passages may see memory in another way
            finding, memories = open_memories(book, memory, reader.habits.top_k)
            self.notes = tuple(dict.fromkeys((*self.notes, *finding.notes)))
            self.finding = book.state(memories, loaded.model.dtype)

    def stream(
        self,
        question: str,
        *,
        uses: Uses = "memory",
        sampling: Sampling | None = None,
        citations: int = 3,
        look_up: int | None = None,
    ) -> Iterator[str | Answer]:
        """Answer a question; yields pieces of text as they are written and, last, the whole answer.

        Args:
            question: What to ask.
            uses: What the answer may rest on.
            sampling: How tokens are chosen; the likeliest each time by default.
            citations: How many passages to cite at most; 0 saves the account of attention.
            look_up: How many passages to look up and put before the question, as many as fit; 0 for an answer from
                memory alone, None for what suits the model.

        Raises:
            RequestError: The question is empty or does not fit the window.
        """
        sampling = sampling or Sampling()
        begun = time.perf_counter()
        account = None
        if uses != "memory":
            ids = self.without_memory(self.question_ids(question), uses, sampling.max_new_tokens)
            prompt = Prompt(question, ids)
            state = LongLlamaCache.of_memories({}, len(self.state.layers))
        else:
            prompt = self.looked_up(question, look_up)
            state = self.state
            if citations:
                account = self.account(len(prompt.ids) + sampling.max_new_tokens)
                state = self.watched_state(account)
        for item in self.answer(prompt, state, account, sampling, citations, begun):
            yield item[0] if isinstance(item, tuple) else item

    def answer(
        self,
        prompt: Prompt,
        state: LongLlamaCache,
        account: AttentionAccount | None,
        sampling: Sampling,
        citations: int,
        begun: float,
    ) -> Iterator[str | tuple[Answer, Written]]:
        """Write behind `state`; yields pieces of text and, last, the answer with what was generated."""
        first = 0.0
        pieces: list[str] = []
        written: Written | None = None
        if account is not None:
            account.notes_question = prompt.attention is None
        for item in write(self.loaded.model, self.loaded.tokenizer, prompt.ids, state, sampling):
            if isinstance(item, Written):
                written = item
                continue
            first = first or time.perf_counter() - begun
            pieces.append(item)
            yield item
        assert written is not None
        yield self.answered(prompt, "".join(pieces), written.ids, account, citations, (begun, first)), written

    def answered(
        self,
        prompt: Prompt,
        text: str,
        ids: list[int],
        account: AttentionAccount | None,
        citations: int,
        times: tuple[float, float],
    ) -> Answer:
        """An answer that was just written; `times` are when it was begun, and seconds to its first piece."""
        begun, first = times
        total = time.perf_counter() - begun
        later = len(ids) - 1
        speed = later / (total - first) if later > 0 and total > first else 0.0
        cited: tuple[Citation, ...] = ()
        if account is not None:  # passages put before the question draw its tokens to where they stand in the document
            asked = prompt.attention or account.question
            cited = find_passages(self.book, (asked + account.answer).attention, citations)
        timings = Timings(round(first or total, 4), round(total, 4), len(prompt.ids), len(ids), round(speed, 2))
        return Answer(prompt.question, text.strip(), cited, timings, tuple(ids), prompt.looked_up)

    def ask(self, question: str, **options: Unpack[AskOptions]) -> Answer:
        """Answer a question; options as for `stream`."""
        answer = None
        for item in self.stream(question, **options):
            answer = item
        assert isinstance(answer, Answer)
        return answer

    def find(self, question: str, most: int = 5) -> tuple[Citation, ...]:
        """The passages that the question's tokens attend to, best first, without writing an answer.

        Raises:
            RequestError: The question is empty or does not fit the window.
        """
        return find_passages(self.book, self.attended(self.question_ids(question)).attention, most)

    def looked_up(self, question: str, most: int | None) -> Prompt:
        """A question with the passages that its tokens attend to, best first for as many as fit.

        Args:
            question: What to ask.
            most: How many passages at most; None for what suits the model.

        Raises:
            RequestError: The question is empty or does not fit the window.
        """
        most = self.loaded.habits.look_up if most is None else most
        ids = self.question_ids(question)
        return self.with_passages(question, ids, self.attended(ids), most) if most else Prompt(question, ids)

    def with_passages(self, question: str, ids: list[int], attention: Tally, most: int) -> Prompt:
        """A question, of these tokens, with as many of the passages that they attend to as fit; `most` at most."""
        taken: tuple[Citation, ...] = ()
        for passage in find_passages(self.book, attention.attention, most, join=False):
            longer = self._ids(question, (*taken, passage))
            if len(longer) <= self.loaded.model.config.stride:
                taken, ids = (*taken, passage), longer
        return Prompt(question, ids, attention, taken)

    def attended(self, ids: list[int]) -> Tally:
        """What a question's tokens attend to."""
        account = self.account(len(ids), self.finding)
        state, model = self.watched_state(account, self.finding), self.loaded.reader.model
        with torch.inference_mode():
            prompt = torch.tensor([ids], device=model.device)
            model.model(prompt, past_key_values=state, use_cache=True, last_context_length=len(ids))
        return account.question

    def question_ids(self, question: str, passages: Sequence[Citation] = ()) -> list[int]:
        """Tokens of a question in its frame, as they go behind the document.

        Args:
            question: What to ask.
            passages: What was looked up for it.

        Raises:
            RequestError: The question is empty or does not fit the window.
        """
        if not question.strip():
            raise RequestError("the question is empty; ask something")
        ids, room = self._ids(question, passages), self.loaded.model.config.stride
        if len(ids) > room:
            raise RequestError(
                f"the question has {len(ids)} tokens with its frame, the window has room for {room}; shorten it"
            )
        return ids

    def fits(self, question: str, passages: Sequence[Citation]) -> bool:
        """Whether a question with passages before it fits the window."""
        return len(self._ids(question, passages)) <= self.loaded.model.config.stride

    def _ids(self, question: str, passages: Sequence[Citation]) -> list[int]:
        tokenizer, frame = self.loaded.tokenizer, self.frame
        return (
            encode_frame(tokenizer, frame.before_question)
            + encode_text(tokenizer, asked_with(question, passages))
            + encode_frame(tokenizer, frame.after_question)
        )

    def account(self, coming: int, state: LongLlamaCache | None = None) -> AttentionAccount:
        """An empty account of the attention that the document gets when so many tokens are `coming` behind `state`."""
        state = self.state if state is None else state
        return AttentionAccount(len(self.book.ids), window_counts=state.window + coming <= self.window)

    def watched_state(self, account: AttentionAccount, state: LongLlamaCache | None = None) -> LongLlamaCache:
        """The state after reading, with account kept of the attention that the document gets."""
        state = self.state if state is None else state
        layers = []
        for index, layer in enumerate(state.layers):
            if layer.memory is not None:
                layer = replace(layer, memory=self._watched(layer, account, index))
            layers.append(layer)
        return LongLlamaCache(layers, state.positions, state.keep)

    def _watched(self, layer: LayerState, account: AttentionAccount, index: int) -> WatchedMemory:
        memory, sinks = layer.memory, self.book.manifest.reading.sinks
        assert memory is not None
        window = None if layer.keys is None else layer.keys.tensor[:, :, sinks:]
        return WatchedMemory(memory, account, index, sinks, len(memory), window)

    def without_memory(self, ids: list[int], uses: Uses, coming: int) -> list[int]:
        """The prompt for the baselines: behind as much of the document's end as fits, or behind nothing.

        Raises:
            RequestError: The question leaves the document no room in the window.
        """
        book = self.book
        opening = book.ids[: book.manifest.opening].tolist()
        if uses == "nothing":
            return opening + ids
        room = room_for_document(self.window, len(opening) + len(ids), coming)
        if not room:
            raise RequestError(
                f"the question has {len(ids)} tokens with its frame, which leaves the document no room in the window "
                f"of {self.window}; shorten it"
            )
        return opening + book.ids[book.manifest.opening :].tolist()[-room:] + ids


def room_for_document(window: int, taken: int, coming: int) -> int:
    """How many tokens of a document's end stand in a window before a question, where nothing else of it is seen.

    What `coming` tokens of an answer need is left free, but of the room behind the `taken` tokens of the prompt no more
    than half: an answer may be allowed more tokens than the window has, and few answers are as long as they may be.
    """
    free = max(window - taken, 0)
    return max(free - coming, (free + 1) // 2)


def asked_with(question: str, passages: Sequence[Citation]) -> str:
    """The text of a question with passages before it, in the document's order."""
    return with_passages(question.strip(), [each.text for each in sorted(passages, key=lambda each: each.start)])
