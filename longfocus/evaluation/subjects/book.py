"""A model that reads documents into Books and answers from memory, as `longfocus read` and `longfocus ask` do."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from longfocus.asking.generation import Sampling, Written, write
from longfocus.asking.session import Session, Uses
from longfocus.evaluation.identity import identity_of
from longfocus.evaluation.replies import Reply
from longfocus.evaluation.subjects.alone import Alone
from longfocus.evaluation.subjects.behind import Behind, question_ids
from longfocus.evaluation.task import DoesNotFit, Form, Opened, Writing
from longfocus.loading.load import LoadedModel
from longfocus.loading.prompts import encode_text, opening_ids
from longfocus.memory.book import StoredBook
from longfocus.model.cache import LongLlamaCache
from longfocus.reading.documents import Document
from longfocus.reading.reader import read_steps


class BookSubject:
    """A model with memory, or with less of it.

    Args:
        loaded: The model.
        uses: What its answers may rest on: "memory" is the Book, the others are baselines.
        scratch: Where Books are kept while they are asked; None for the system's folder for temporary files.
        look_up: How many passages are looked up for a question; None for what suits the model.
        packed: Whether Books keep keys and values in one byte a number.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        uses: Uses = "memory",
        scratch: Path | None = None,
        look_up: int | None = None,
        packed: bool = False,
    ) -> None:
        self._loaded = loaded
        self._packed = packed
        self._look_up = loaded.habits.look_up if look_up is None else look_up
        self._uses: Uses = uses
        self._scratch = scratch
        self.name = f"{Path(loaded.name).name} {uses}" + (
            ":int8" if packed else "" if look_up is None else f":{look_up}"
        )
        self.identity = f"{identity_of(loaded)} look-up={self._look_up} {uses}" + (
            " int8" if packed else "" if uses == "memory" else " alone"
        )

    def count(self, text: str) -> int:
        """See `Subject.count`."""
        return len(encode_text(self._loaded.tokenizer, text))

    @contextmanager
    def read(self, document: str, form: Form) -> Iterator[Opened]:
        """See `Subject.read`."""
        framed = form == "chat"
        tokenizer = self._loaded.tokenizer
        if self._uses != "memory":
            kept = encode_text(tokenizer, document) if self._uses == "window" else []
            yield Alone(self._loaded, opening_ids(tokenizer, framed), kept, empty=not document)
            return
        if not document:
            nothing = LongLlamaCache.of_memories({}, self._loaded.model.config.num_hidden_layers)
            yield _Remembering(self._loaded, nothing, opening_ids(tokenizer, framed), 0)
            return
        with tempfile.TemporaryDirectory(prefix="longfocus-eval-", dir=self._scratch) as folder:
            held = Document("evaluation", document, (0, len(document)), ())
            for _ in read_steps(held, self._loaded, Path(folder, "book"), framed=framed, packed=self._packed):
                pass
            yield self.opened(StoredBook.open(Path(folder, "book")))

    def opened(self, book: StoredBook) -> Opened:
        """A Book that was read before, to be asked; it cites places in the Book's text.

        Raises:
            BookError: The Book was read by another model or with other settings.
        """
        session = Session(book, self._loaded)
        if self._uses == "memory":
            return _Read(session, self._look_up)
        opening = book.manifest.opening
        kept = book.ids[opening:].tolist() if self._uses == "window" else []
        return Alone(self._loaded, book.ids[:opening].tolist(), kept)


class _Remembering(Behind):
    """Goes on behind a state.

    Args:
        loaded: The model.
        state: Where it stands; every request starts from it.
        opening: Tokens that come first.
        read: How many tokens were read.
    """

    def __init__(self, loaded: LoadedModel, state: LongLlamaCache, opening: list[int], read: int) -> None:
        super().__init__(loaded.tokenizer, opening, read)
        self._loaded = loaded
        self._state = state

    def _pieces(self, ids: list[int], writing: Writing) -> Iterator[str]:
        loaded = self._loaded
        last = (len(ids) - 1) // loaded.model.config.stride * loaded.model.config.stride
        state = deque((after for _, after in self._windows(ids[:last])), maxlen=1)
        sampling = Sampling(writing.most, writing.temperature, writing.top_p, 1.0, writing.seed)
        begun = state.pop() if state else self._state
        for piece in write(loaded.model, loaded.tokenizer, ids[last:], begun, sampling):
            if isinstance(piece, Written):
                return
            yield piece

    def _predictions(self, ids: list[int]) -> Iterator[torch.Tensor]:
        return (logits for logits, _ in self._windows(ids))

    def _windows(self, ids: list[int]) -> Iterator[tuple[torch.Tensor, LongLlamaCache]]:
        """What is predicted behind each token of each window, and the state after it."""
        model, state = self._loaded.model, self._state
        for start in range(0, len(ids), model.config.stride):
            piece = torch.tensor([ids[start : start + model.config.stride]], device=model.device)
            with torch.inference_mode():
                output = model(piece, past_key_values=state, use_cache=True, last_context_length=piece.shape[1])
            state = output.past_key_values
            yield output.logits[0], state


class _Read(_Remembering):
    """A Book."""

    def __init__(self, session: Session, look_up: int) -> None:
        self.session = session
        self._look_up = look_up
        super().__init__(session.loaded, session.state, [], len(session.book.ids))

    def reply(self, question: str, most: int, citations: int = 0) -> Reply:
        """See `Replying.reply`.

        Raises:
            DoesNotFit: The question has more tokens than the window has room for.
        """
        asked = len(question_ids(self._tokenizer, question, alone=False))
        if asked > (room := self._loaded.model.config.stride):
            raise DoesNotFit(f"the question has {asked} tokens with its frame, the window has room for {room}")
        sampling = Sampling(max_new_tokens=most, repetition_penalty=1.0)
        answer = self.session.ask(question, sampling=sampling, citations=citations, look_up=self._look_up)
        return Reply(answer.text, self._tokens_read + answer.timings.question_tokens, answer.citations)
