"""The Python interface: read a document into a Book, open a Book, ask it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from longfocus.asking.faithfulness import Faithfulness, check_faithfulness
from longfocus.asking.passages import Citation
from longfocus.asking.session import Answer, AskOptions, Session
from longfocus.asking.together import TogetherOptions, ask_together
from longfocus.loading.adapters import USUAL
from longfocus.loading.load import LoadedModel, load
from longfocus.loading.packed_weights import AUTO as QUANTIZE_AUTO
from longfocus.loading.packed_weights import for_writing
from longfocus.memory.book import StoredBook
from longfocus.memory.kinds import AUTO
from longfocus.memory.library import shelf_folder
from longfocus.reading.documents import Document, load_document
from longfocus.reading.origin import book_of, file_hash, note_origin
from longfocus.reading.reader import ReadProgress, read_steps


class Book:
    """A document that a model has read, to be asked any number of times.

    What was done that may not be expected, such as an index that was built or could not be used, is in `notes` and is
    given as a warning as well.

    Attributes:
        session: The Book together with its model.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        for note in session.notes:
            warnings.warn(note, stacklevel=2)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to open it that may not be expected, a line each."""
        return self.session.notes

    @classmethod
    def open(
        cls,
        folder: str | Path,
        model: LoadedModel | str | Path | None = None,
        adapter: str | Path | None = USUAL,
        memory: str = AUTO,
        quantize: str = QUANTIZE_AUTO,
    ) -> Book:
        """Open a Book without reading it again.

        Args:
            folder: The Book's folder, the document that it was read from, or what `longfocus books` calls it.
            model: The model that read it, loaded or by name; None for the default model.
            adapter: The adapter that it read with, as for `load`.
            memory: Which memory answers, as for `longfocus.asking.session.Session`.
            quantize: How weights are packed for writing, as for `longfocus.loading.packed_weights.for_writing`; a model
                that is given loaded stays as it is.

        Raises:
            BookError: No Book, a damaged one, one that is not complete, or one that another model read; or the document
                is not the one that it was read from any more.
            CheckpointError: The model cannot be loaded.
            RequestError: Its weights cannot be packed in that way.
        """
        stored = StoredBook.open(book_of(folder))
        if isinstance(model, LoadedModel):
            return cls(Session(stored, model, memory=memory))
        loaded = for_writing(load_for(stored, model, adapter), quantize)
        return cls(Session(stored, loaded, memory=memory))

    @property
    def title(self) -> str:
        """The document's title."""
        return self.session.book.manifest.title

    @property
    def text(self) -> str:
        """The document's text; citations are offsets into it."""
        return self.session.book.text

    def __len__(self) -> int:
        """Tokens that were read."""
        return self.session.book.manifest.tokens

    def ask(self, question: str, **options: Unpack[AskOptions]) -> Answer:
        """Answer a question.

        Args:
            question: What to ask.
            **options: `uses`, `sampling`, `citations` and `look_up` of `longfocus.asking.session.Session.stream`.

        Raises:
            RequestError: The question is empty or too long.
        """
        return self.session.ask(question, **options)

    def ask_all(self, questions: Sequence[str], **options: Unpack[TogetherOptions]) -> list[Answer]:
        """Answer several questions at once, each as if it were asked alone; what they share is read once for all.

        Args:
            questions: What to ask.
            **options: `sampling`, `citations`, `look_up` and `at_once` of `longfocus.asking.together.ask_together`.

        Raises:
            RequestError: A question is empty or too long; nothing was asked then.
        """
        answers = dict(ask_together(self.session, questions, **options))
        return [answers[number] for number in range(len(questions))]

    def stream(self, question: str, **options: Unpack[AskOptions]) -> Iterator[str | Answer]:
        """Answer a question; yields pieces of text and, last, the whole `Answer`. Options as for `ask`."""
        return self.session.stream(question, **options)

    def find(self, question: str, most: int = 5) -> tuple[Citation, ...]:
        """The passages that a question's tokens attend to, best first; nothing is generated."""
        return self.session.find(question, most)

    def faithfulness(self, answer: Answer, citation: Citation) -> Faithfulness:
        """How much less likely the answer becomes when the model cannot see the cited passage."""
        return check_faithfulness(self.session, answer, citation)


def load_for(
    book: StoredBook,
    model: str | Path | None = None,
    adapter: str | Path | None = USUAL,
    progress: Callable[[str], None] | None = None,
) -> LoadedModel:
    """Load a model with the memory layers and the window that a Book was read with; with its adapter or without."""
    reading = book.manifest.reading
    memory: dict[str, Any] = {
        "mem_layers": reading.memory_layers,
        "window": reading.window,
        "window_overlap": reading.overlap,
        "sink_tokens": reading.sinks,
    }
    loaded = load(model, adapter=adapter, progress=progress, **memory)
    if adapter == USUAL and loaded.reader.fingerprint != reading.fingerprint:  # it was read without, in the same layers
        plain = load(model, adapter=None, progress=progress, **memory)
        loaded = plain if plain.fingerprint == reading.fingerprint else loaded
    return loaded


def read(
    document: str | Path | Document,
    model: LoadedModel | str | Path | None = None,
    out: str | Path | None = None,
    *,
    on_progress: Callable[[ReadProgress], None] | None = None,
    **options: Any,
) -> Book:
    """Read a document into a Book; goes on where an earlier, interrupted call stopped.

    If `most` leaves out a part of the document, a warning says which.

    Args:
        document: A file (txt, md, html, epub, pdf) or a document.
        model: The model that reads, loaded or by name; None for the default model.
        out: The Book's folder; by default one on the shelf, named after the document.
        on_progress: Called before the first and after each window; `read_steps` is the same as an iterator.
        **options: `look_back`, `most` and `packed` of `longfocus.reading.reader.read_steps`.

    Raises:
        DocumentError: The document cannot be read.
        BookError: The folder holds something else, is in use, or cannot be written to.
        CheckpointError: The model cannot be loaded.
    """
    digest = "" if isinstance(document, Document) else file_hash(document)
    found = document if isinstance(document, Document) else load_document(document)
    loaded = model if isinstance(model, LoadedModel) else load(model)
    name = document.title if isinstance(document, Document) else document
    folder = Path(out) if out is not None else shelf_folder(name)
    for step, progress in enumerate(read_steps(found, loaded, folder, **options)):
        if not step and progress.left_out is not None:
            begin, end = progress.left_out
            told = f"{found.title}: longer than the limit; characters {begin:,} to {end:,} are left out"
            warnings.warn(told, stacklevel=2)
        if on_progress is not None:
            on_progress(progress)
    note_origin(folder, digest)
    return Book(Session(StoredBook.open(folder), loaded))
