"""Questions about whole books.

`BookQa` asks NarrativeQA's questions (Kocisky et al., "The NarrativeQA Reading Comprehension Challenge", 2018) on the
whole books that they are about; `OwnBookQa` asks one's own on one's own. A book that is longer than wanted loses its
middle, as in Anima 100K's demonstration. Which books and questions come first is drawn from the seed, the same at every
length.
"""

from __future__ import annotations

import json
import random
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from longfocus.errors import DocumentError, RequestError
from longfocus.evaluation.answers import exact_match, f1, rouge_l, zeroscrolls_f1
from longfocus.evaluation.fitting import fit
from longfocus.evaluation.task import WHOLE, AnswerTask, Count, Length, Opened, Outcome, Question, Sheet
from longfocus.reading.documents import KNOWN, load_document, suffix_of
from longfocus.training.book_questions import books_of
from longfocus.training.long_questions import OMISSION
from longfocus.training.records import read_text

ASKED = "{} Answer with a single phrase if one will do, and explain nothing."


@dataclass(frozen=True)
class AskedBook:
    """A book and what is asked about it.

    Attributes:
        name: What it is called.
        questions: Questions, each with what may be answered.
        text: Reads it.
    """

    name: str
    questions: tuple[tuple[str, tuple[str, ...]], ...]
    text: Callable[[], str]


class QuestionsOnBooks(AnswerTask):
    """A book a sheet, all of its questions unless fewer are wanted.

    The score is SQuAD's F1 against the best reference; further scores are `exact`, `rouge_l` and `zeroscrolls_f1`.
    A length in tokens is the most that is kept of a book; `whole` keeps all.
    """

    units: tuple[str, ...] = (WHOLE, "tokens")
    usual_lengths: tuple[str, ...] = (WHOLE,)
    answer_tokens = 64
    questions = 30

    @abstractmethod
    def books(self) -> list[AskedBook]:
        """All that there are, in a fixed order."""

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`. A sheet is a book, which has as many questions as it has.

        Raises:
            RequestError: There are no more books.
            DocumentError: The books or the questions cannot be read.
        """
        books = self._in_turn(seed)
        if number >= len(books):
            raise RequestError(
                f"{self.name} has {len(books)} books and no more than {questions} questions were to be asked on each; "
                "ask fewer in all, or more on each"
            )
        book = books[number]
        text = book.text()
        if length.unit == "tokens":
            text = without_middle(text, length.amount, count)
        asked = random.Random(f"{self.name} {seed} {book.name}").sample(book.questions, len(book.questions))
        return Sheet(text, tuple(Question(ASKED.format(each), answers) for each, answers in asked[:questions]))

    def look(self) -> None:
        """See `Task.look`."""
        self.books()

    def everything(self) -> int | None:
        """See `Task.everything`."""
        return sum(len(book.questions) for book in self.books())

    def size(self, number: int, questions: int, seed: int) -> int:
        """How many questions the sheet of this number has; 0 if there is none."""
        books = self._in_turn(seed)
        return min(len(books[number].questions), questions) if number < len(books) else 0

    def attempt(self, opened: Opened, question: Question) -> Outcome:
        """See `Task.attempt`."""
        answer = opened.answer(question.text, self.answer_tokens)
        further = {"exact": exact_match, "rouge_l": rouge_l, "zeroscrolls_f1": zeroscrolls_f1}
        more = {name: measure(answer, question.answers) for name, measure in further.items()}
        return Outcome(answer, self.score(question, answer), more=more)

    def score(self, question: Question, answer: str) -> float:
        """F1 against the best reference."""
        return f1(answer, question.answers)

    def _in_turn(self, seed: int) -> list[AskedBook]:
        return random.Random(f"{self.name} {seed}").sample(self.books(), len(self.books()))


class BookQa(QuestionsOnBooks):
    """NarrativeQA's questions on those of its books that are at hand in full.

    Args:
        data: A folder with `books/index.json` and `narrativeqa/qa_valid_test.jsonl.gz`.
        split: Which books; those of `test` no recipe trains on.
    """

    name = "bookqa"

    def __init__(self, data: Path, split: str = "test") -> None:
        self._data = data
        self._split = split
        self._found: list[AskedBook] = []

    def books(self) -> list[AskedBook]:
        """See `QuestionsOnBooks.books`; the lists are read once."""
        if not self._found:
            self._found = [
                AskedBook(book.id, tuple((each.text, each.answers) for each in book.questions), book.story)
                for book in books_of(self._data, splits=(self._split,), for_reporting=True)
            ]
        return self._found


class OwnBookQa(QuestionsOnBooks):
    """One's own questions on one's own books.

    Its name ends in a hash of both, as results for others cannot be joined.

    Args:
        books: A folder of documents (txt, md, html, epub, pdf).
        questions: A file with a line of JSON for each question: `{"book": "emma", "question": "...", "answers":
            ["...", "..."]}`, where a book is called by its file's name, with or without its suffix.

    Raises:
        DocumentError: The folder or the file cannot be read, or a line has something else; it says which.
    """

    def __init__(self, books: Path, questions: Path) -> None:
        there = _documents(books)
        asked: dict[Path, list[tuple[str, tuple[str, ...]]]] = {}
        text = read_text(questions).removeprefix("\ufeff")
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                book, question, answers = _asked(line)
                asked.setdefault(_named(book, there, books), []).append((question, answers))
            except ValueError as error:
                raise DocumentError(f"line {number} of {questions} {error}") from None
        if not asked:
            raise DocumentError(
                f'{questions} has no questions; wanted lines like {{"book": ..., "question": ..., ...}}'
            )
        self._found = [AskedBook(path.name, tuple(asked[path]), partial(_body, path)) for path in sorted(asked)]
        self.questions = max(map(len, asked.values()))
        held = sha256(text.encode())
        for path in sorted(asked):
            held.update(path.read_bytes())
        self.name = f"bookqa-{held.hexdigest()[:8]}"

    def books(self) -> list[AskedBook]:
        """See `QuestionsOnBooks.books`."""
        return self._found


def without_middle(text: str, tokens: int, count: Count) -> str:
    """The text, or its beginning and its end in equal parts where it has more tokens than wanted.

    Raises:
        RequestError: There is no room for the mark that stands between them.
    """
    if count(text) <= tokens:
        return text

    def make(kept: int) -> str:
        if kept >= len(text):
            return text
        return text[: kept - kept // 2] + OMISSION + text[len(text) - kept // 2 :]

    return fit(make, tokens, count)


def _documents(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DocumentError(f"{folder} is no folder; wanted one with books. {KNOWN}")
    found = [path for path in sorted(folder.iterdir()) if suffix_of(path.name)]
    if not found:
        raise DocumentError(f"{folder} holds no book that can be read. {KNOWN}")
    return found


def _named(book: str, there: list[Path], folder: Path) -> Path:
    """The document that is called so."""
    meant = [path for path in there if path.name == book] or [
        path for path in there if book in (_unpacked(path), Path(_unpacked(path)).stem)
    ]
    if len(meant) != 1:
        came = f"{len(meant)} books of that name" if meant else f"no such book; there are {_some(there)}"
        raise ValueError(f"asks about {book!r}, and {folder} has {came}")
    return meant[0]


def _unpacked(path: Path) -> str:
    return path.stem if path.suffix.lower() == ".gz" else path.name


def _some(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths[:5]) + (", ..." if len(paths) > 5 else "")


def _asked(line: str) -> tuple[str, str, tuple[str, ...]]:
    """Book, question and answers of a line."""
    try:
        record: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg} at character {error.pos + 1})") from None
    if not isinstance(record, dict):
        raise ValueError("is no JSON object; wanted book, question and answers")
    for name in ("book", "question"):
        if not isinstance(record.get(name), str) or not record[name].strip():
            raise ValueError(f"was to have text in its field {name!r}; it is {record.get(name)!r:.60}")
    answers = record.get("answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise ValueError(f"was to have a list of texts in its field 'answers'; it is {answers!r:.60}")
    return record["book"], record["question"].strip(), tuple(answers)


def _body(path: Path) -> str:
    document = load_document(path)
    start, end = document.body
    return document.text[start:end]
