"""Subjects: what takes a task, which is a model together with a way of being long."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F

from longfocus.asking.generation import Sampling
from longfocus.asking.session import Session, Uses
from longfocus.loading.load import LoadedModel
from longfocus.loading.prompts import encode_text
from longfocus.memory.book import StoredBook
from longfocus.model.cache import LayerState, LongLlamaCache
from longfocus.reading.documents import Document
from longfocus.reading.reader import ReadProgress, read_steps


class Opened(Protocol):
    """A document that a subject has read."""

    def answer(self, question: str, most: int) -> str:
        """What the subject answers, in at most so many tokens."""
        ...

    def loss(self, text: str) -> tuple[float, int]:
        """The summed negative log-likelihood, in nats, of a text that follows the document, and its tokens."""
        ...


class Subject(Protocol):
    """What is evaluated.

    Attributes:
        name: For people.
        identity: The same for the same weights and settings; results of one subject are only joined with its own.
    """

    name: str
    identity: str

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        ...

    def read(
        self, document: str, on_progress: Callable[[ReadProgress], None] | None = None
    ) -> AbstractContextManager[Opened]:
        """Read a document, to be asked any number of times."""
        ...


class BookSubject:
    """A model that reads documents into Books, as `longfocus read` and `longfocus ask` do.

    Args:
        loaded: The model.
        uses: What its answers may rest on: "memory" is the Book, the others are baselines.
        scratch: Where Books are kept while they are asked; None for the system's folder for temporary files.
    """

    def __init__(self, loaded: LoadedModel, uses: Uses = "memory", scratch: Path | None = None) -> None:
        self._loaded = loaded
        self._uses: Uses = uses
        self._scratch = scratch
        self.name = f"{Path(loaded.name).name} {uses}"
        config, habits = loaded.model.config, loaded.habits
        parts = (
            loaded.fingerprint[:16], uses, config.mem_layers, config.window, config.window_overlap, config.sink_tokens,
            str(loaded.model.dtype).removeprefix("torch."), habits.look_back, habits.top_k,
        )  # fmt: skip
        self.identity = " ".join(map(str, parts))

    def count(self, text: str) -> int:
        """See `Subject.count`."""
        return len(encode_text(self._loaded.tokenizer, text))

    @contextmanager
    def read(self, document: str, on_progress: Callable[[ReadProgress], None] | None = None) -> Iterator[Opened]:
        """See `Subject.read`."""
        with tempfile.TemporaryDirectory(prefix="longfocus-eval-", dir=self._scratch) as folder:
            held = Document("evaluation", document, (0, len(document)), ())
            for progress in read_steps(held, self._loaded, Path(folder, "book")):
                if on_progress is not None:
                    on_progress(progress)
            yield _OpenedBook(Session(StoredBook.open(Path(folder, "book")), self._loaded), self._uses)


class _OpenedBook:
    def __init__(self, session: Session, uses: Uses) -> None:
        self._session = session
        self._uses: Uses = uses

    def answer(self, question: str, most: int) -> str:
        """See `Opened.answer`; the likeliest token each time."""
        sampling = Sampling(max_new_tokens=most, repetition_penalty=1.0)
        return self._session.ask(question, uses=self._uses, sampling=sampling, citations=0).text

    def loss(self, text: str) -> tuple[float, int]:
        """See `Opened.loss`; all but the text's first token are predicted."""
        loaded = self._session.loaded
        ids = torch.tensor(encode_text(loaded.tokenizer, text), device=loaded.model.device)
        state, total = self._state(), 0.0
        for start in range(0, len(ids) - 1, loaded.model.config.stride):
            piece = ids[None, start : start + loaded.model.config.stride]
            with torch.inference_mode():
                output = loaded.model(piece, past_key_values=state, use_cache=True, last_context_length=piece.shape[1])
                wanted = ids[start + 1 : start + 1 + piece.shape[1]]
                total += float(F.cross_entropy(output.logits[0, : len(wanted)].float(), wanted, reduction="sum"))
            state = output.past_key_values
        return total, len(ids) - 1

    def _state(self) -> LongLlamaCache:
        """After reading, as far as an answer may rest on it."""
        state = self._session.state
        if self._uses == "memory":
            return state
        if self._uses == "window":
            return LongLlamaCache([replace(layer, memory=None) for layer in state.layers], state.positions, state.keep)
        return LongLlamaCache([LayerState() for _ in state.layers])
