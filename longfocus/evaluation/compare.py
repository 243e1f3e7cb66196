"""One document, some questions, several subjects: every answer with its time, what was read for it, and citations."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longfocus.asking.passages import Citation
from longfocus.errors import DocumentError, UserError
from longfocus.evaluation.replies import Reply, reply_of
from longfocus.evaluation.runner import let_go, refusal
from longfocus.evaluation.subject import Subject
from longfocus.evaluation.subjects.book import BookSubject
from longfocus.evaluation.task import Opened
from longfocus.memory.book import StoredBook
from longfocus.memory.sections import Section, section_at
from longfocus.reading.documents import Document


@dataclass(frozen=True)
class Asked:
    """A question of a user's own.

    Attributes:
        question: Its text.
        answers: What the user would count as an answer; may be empty.
    """

    question: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """What one subject answered to one question.

    Attributes:
        subject: The subject's name.
        number: The question's, from 0.
        asked: The question.
        reply: The answer; None where there was none.
        error: Why there was none.
        reading_seconds: For reading the document, once for all questions; 0 for a Book that was there.
        seconds: For this answer.
    """

    subject: str
    number: int
    asked: Asked
    reply: Reply | None
    error: str
    reading_seconds: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        found: dict[str, Any] = {"subject": self.subject}
        if self.reply is not None:
            cited = [citation.to_json() for citation in self.reply.citations]
            found |= {"answer": self.reply.text, "prompt_tokens": self.reply.prompt_tokens, "citations": cited}
        else:
            found["error"] = self.error
        return found | {"reading_seconds": round(self.reading_seconds, 3), "seconds": round(self.seconds, 3)}


def load_questions(path: Path) -> list[Asked]:
    """Questions from a file: one a line, or for `.jsonl` an object a line with `question` and maybe `answers`.

    Raises:
        DocumentError: It cannot be read, has no questions, or a line is none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise DocumentError(f"{path} cannot be read: {reason}") from None
    held = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if path.suffix.lower() == ".jsonl":
        asked = [_from_json(line, f"line {number} of {path}") for number, line in held]
    else:
        asked = [Asked(line) for _, line in held]
    if not asked:
        raise DocumentError(f"{path} has no questions; write one a line")
    return asked


def _from_json(line: str, place: str) -> Asked:
    try:
        found = json.loads(line)
        question, answers = found["question"], found.get("answers") or ()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DocumentError(f'{place} is no question; wanted {{"question": "...", "answers": ["..."]}}') from None
    answers = [answers] if isinstance(answers, str) else answers
    known = isinstance(answers, list | tuple) and all(isinstance(answer, str) for answer in answers)
    if not isinstance(question, str) or not question.strip() or not known:
        raise DocumentError(f"{place} is no question; wanted texts")
    return Asked(question.strip(), tuple(answers))


@dataclass(frozen=True)
class Source:
    """What all subjects are asked about.

    Attributes:
        text: The whole text, in which citations say where they stand.
        spans: Which of its characters are read.
        sections: Its chapters and pages.
        book: A Book of it that the model has read; None to read it for the comparison alone.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    sections: tuple[Section, ...] = ()
    book: StoredBook | None = None

    @classmethod
    def of_document(cls, document: Document) -> Source:
        """A document that was not read yet."""
        return cls(document.text, (document.body,), document.sections)

    @classmethod
    def of_book(cls, book: StoredBook) -> Source:
        """What a Book holds: others get the text that was read into it."""
        return cls(book.text, book.manifest.spans, book.manifest.sections, book)

    @property
    def read(self) -> str:
        """What is read."""
        return "".join(self.text[start:end] for start, end in self.spans)

    def placed(self, citation: Citation) -> Citation:
        """A passage of what is read, with its places in the whole text."""
        start, end = self._place(citation.start), self._place(citation.end - 1) + 1
        chapter, page = (section_at(self.sections, kind, start) for kind in ("chapter", "page"))
        return replace(citation, start=start, end=end, chapter=chapter, page=page)

    def _place(self, offset: int) -> int:
        for start, end in self.spans:
            if offset < end - start:
                return start + offset
            offset -= end - start
        return self.spans[-1][1]


def compare(
    subjects: Sequence[Subject], source: Source, questions: Sequence[Asked], *, most: int = 128, citations: int = 3
) -> Iterator[Compared]:
    """Put all questions to one subject after another, each of which reads the document once.

    A subject that cannot take the document or a question is told of in what comes for it; the others go on.

    Args:
        subjects: Whom to ask.
        source: What about.
        questions: What.
        most: Tokens at which answers are cut off.
        citations: Most passages that a subject cites.
    """
    for subject in subjects:
        with ExitStack() as held:
            begun = time.perf_counter()
            try:
                opened = _open(subject, source, held)
            except (UserError, MemoryError, RuntimeError) as error:
                reason = _told(error)
                for number, asked in enumerate(questions):
                    yield Compared(subject.name, number, asked, None, reason, 0.0, 0.0)
                continue
            reading = 0.0 if _has_book(subject, source) else time.perf_counter() - begun
            for number, asked in enumerate(questions):
                put, reply, failed = time.perf_counter(), None, ""
                try:
                    reply = reply_of(opened, asked.question, most, citations)
                except (UserError, MemoryError, RuntimeError) as error:
                    failed = _told(error)
                seconds = time.perf_counter() - put
                if reply is not None and not _has_book(subject, source):
                    reply = replace(reply, citations=tuple(map(source.placed, reply.citations)))
                yield Compared(subject.name, number, asked, reply, failed, reading, seconds)


def _told(error: Exception) -> str:
    """Why there is no answer, where a user can mend that or the memory did not suffice; a defect goes on as it came."""
    reason = str(error) if isinstance(error, UserError) else refusal(error)
    if reason is None:
        raise error
    let_go(error)
    return reason


def _has_book(subject: Subject, source: Source) -> bool:
    return source.book is not None and isinstance(subject, BookSubject)


def _open(subject: Subject, source: Source, held: ExitStack) -> Opened:
    if source.book is not None and isinstance(subject, BookSubject):
        return subject.opened(source.book)
    return held.enter_context(subject.read(source.read, "chat"))
