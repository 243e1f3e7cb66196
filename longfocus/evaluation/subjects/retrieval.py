"""Retrieval before any other subject: for each question it reads only the chunks of the document that fit it best.

As Anima 100K was compared with retrieval: the text cut into chunks, the best 3 of them in the prompt. Its authors did
not say how long their chunks were, how they were found, or how they were asked about; what is chosen here is said at
the arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from longfocus.asking.passages import Citation
from longfocus.evaluation.replies import Reply, reply_of
from longfocus.evaluation.subject import Subject
from longfocus.evaluation.subjects.chunks import Chunk, Chunks
from longfocus.evaluation.subjects.retrievers import Index, Retriever
from longfocus.evaluation.task import Form, Opened, Writing

CHUNK = 512
BEST = 3
QUERY = 128
"""Tokens at a document's end by which chunks are chosen where nothing was asked."""


class RetrievalSubject:
    """Another subject that is given chunks in place of the document.

    Chunks are put together as they stand in the document, with an empty line where something is left out, and read and
    asked about like any document. Where a text goes on behind the document without a question, they are chosen by the
    document's last 128 tokens, and the document's end stands last among them; a text that is to be predicted never
    takes part in choosing.

    Args:
        generator: Reads the chunks and answers.
        retriever: Finds them.
        tokenizer: Whose tokens chunks are measured in: the generator's where it has one.
        size: Most tokens of a chunk.
        overlap: About how many tokens two neighbouring chunks share; none, so that no place comes twice.
        best: How many chunks.
    """

    def __init__(
        self,
        generator: Subject,
        retriever: Retriever,
        tokenizer: Any,
        *,
        size: int = CHUNK,
        overlap: int = 0,
        best: int = BEST,
    ) -> None:
        self._generator = generator
        self._retriever = retriever
        self._tokenizer = tokenizer
        self._size, self._overlap, self._best = size, overlap, best
        self.name = f"{retriever.name} + {generator.name}"
        self.identity = f"{retriever.identity} {size}/{overlap} x{best} + {generator.identity}"

    def count(self, text: str) -> int:
        """See `Subject.count`."""
        return self._generator.count(text)

    @contextmanager
    def read(self, document: str, form: Form) -> Iterator[Opened]:
        """See `Subject.read`; the document is cut and indexed."""
        if not document.strip():
            with self._generator.read(document, form) as opened:
                yield opened
            return
        chunks = Chunks(document, self._tokenizer, self._size, self._overlap)
        index = self._retriever.index([chunk.text for chunk in chunks.all])
        yield _Indexed(self._generator, form, chunks, index, self._best)


class _Indexed:
    """A document whose chunks can be found."""

    def __init__(self, generator: Subject, form: Form, chunks: Chunks, index: Index, best: int) -> None:
        self._generator = generator
        self._form: Form = form
        self._chunks = chunks
        self._index = index
        self._best = best

    def answer(self, question: str, most: int) -> str:
        """See `Opened.answer`."""
        return self.reply(question, most).text

    def reply(self, question: str, most: int, citations: int = 0) -> Reply:
        """See `Replying.reply`; the chunks are what is cited, with the retriever's scores."""
        found = self._index.best(question, self._best)
        all_chunks = self._chunks.all
        with self._reading([all_chunks[number] for number, _ in found]) as opened:
            reply = reply_of(opened, question, most)
        cited = ((all_chunks[number], score) for number, score in found[:citations])
        passages = tuple(Citation(chunk.text, chunk.start, chunk.end, round(score, 6)) for chunk, score in cited)
        return Reply(reply.text, reply.prompt_tokens, passages)

    def continued(self, text: str, writing: Writing) -> str:
        """See `Opened.continued`; chunks are chosen by the text, or by the document's end where there is none."""
        if text.strip():
            chosen = [self._chunks.all[number] for number, _ in self._index.best(text, self._best)]
        else:
            chosen = self._at_the_end()
        with self._reading(chosen) as opened:
            return opened.continued(text, writing)

    def loss(self, text: str) -> tuple[float, int]:
        """See `Opened.loss`."""
        with self._reading(self._at_the_end()) as opened:
            return opened.loss(text)

    def _at_the_end(self) -> list[Chunk]:
        *earlier, last = self._chunks.all
        found = self._index.best(self._chunks.last(QUERY), self._best + 1)
        others = [earlier[number] for number, _ in found if number < len(earlier)]
        return [*others[: self._best - 1], last]

    @contextmanager
    def _reading(self, chosen: list[Chunk]) -> Iterator[Opened]:
        with self._generator.read(self._chunks.joined(chosen), self._form) as opened:
            yield opened
