"""Books and questions about them: which file holds a book, which stretch of it is the story, who asks what.

Two files are joined, as those of NarrativeQA (Kocisky et al., "The NarrativeQA Reading Comprehension Challenge", 2018)
with texts from Project Gutenberg: records of questions, and a list of books. Texts are read when they are needed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from longfocus.errors import DocumentError, RequestError
from longfocus.training.examples import Record
from longfocus.training.records import load_records, read_text, text_field

REPORTING_SPLIT = "test"


@dataclass(frozen=True)
class Question:
    """A question and what may be answered.

    Attributes:
        id: Its name in the file.
        text: What is asked.
        answers: One or more.
    """

    id: str
    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class QuestionedBook:
    """A book and the questions about it.

    Attributes:
        id: The document's, which both files name.
        title: Its title.
        split: "train", "valid" or "test".
        path: A text file in UTF-8, perhaps with `.gz`.
        body: Which characters of the file are the story.
        questions: What is asked about it; one or more.
    """

    id: str
    title: str
    split: str
    path: Path
    body: tuple[int, int]
    questions: tuple[Question, ...]

    def story(self) -> str:
        """The text of the story, read from its file.

        Raises:
            DocumentError: The file is missing, damaged, or shorter than the body.
        """
        text, (start, end) = read_text(self.path), self.body
        if not 0 <= start < end <= len(text):
            raise DocumentError(f"{self.path} has {len(text)} characters; its body was to be {start} to {end}")
        return text[start:end]


def load_book_questions(
    questions: str | Path,
    books: str | Path,
    *,
    splits: Collection[str] = ("valid",),
    for_reporting: bool = False,
) -> list[QuestionedBook]:
    """The books of some splits that have questions, in the order of their list.

    Args:
        questions: Records with `id`, `document_id`, `set`, `question` and `answers`.
        books: Records with `file` (beside the list or, where its folder is named in it, beside that folder), `title`,
            `body_start`, `body_end`, `narrativeqa_document_id` and `narrativeqa_set`.
        splits: Which books to take.
        for_reporting: Whether books of the test split may be taken. A model must never be trained on these.

    Raises:
        RequestError: The test split is asked for without saying that it is for reporting.
        DocumentError: A file is damaged, the two disagree, or no book has questions.
    """
    if REPORTING_SPLIT in splits and not for_reporting:
        raise RequestError(f"books of the {REPORTING_SPLIT} split are for reporting, not for training; take others")
    asked: dict[str, list[Question]] = defaultdict(list)
    split_of: dict[str, str] = {}
    for record in load_records(questions):
        document = text_field(record, "document_id")
        split = text_field(record, "set")
        if split_of.setdefault(document, split) != split:
            raise DocumentError(f"{questions} has document {document} in the splits {split_of[document]} and {split}")
        if split in splits:
            asked[document].append(_question(record))
    found = []
    for record in load_records(books):
        document = text_field(record, "narrativeqa_document_id")
        split = text_field(record, "narrativeqa_set")
        if split_of.get(document, split) != split:
            raise DocumentError(f"document {document} is {split} in {books} and {split_of[document]} in {questions}")
        if split in splits and asked[document]:
            found.append(_book(record, document, split, Path(books).parent, tuple(asked[document])))
    if not found:
        raise DocumentError(
            f"no book of {books} in the splits {', '.join(sorted(splits))} has questions in {questions}"
        )
    return found


def books_of(
    data: str | Path, *, splits: Collection[str] = ("valid",), for_reporting: bool = False
) -> list[QuestionedBook]:
    """Those of a folder with `books/index.json` and `narrativeqa/qa_valid_test.jsonl.gz`; see `load_book_questions`."""
    questions, books = Path(data) / "narrativeqa" / "qa_valid_test.jsonl.gz", Path(data) / "books" / "index.json"
    return load_book_questions(questions, books, splits=splits, for_reporting=for_reporting)


def tidy(text: str) -> str:
    """Undo what NarrativeQA's tokenised texts lack: "Buck s owner , is n't he ?" becomes "Buck's owner, isn't he?"."""
    text = re.sub(r"(?<=\w) (?:s|' ?s)(?=\W|$)", "'s", text)
    text = re.sub(r"(?<=\w) n't\b", "n't", text)
    text = re.sub(r"(?<=s) '(?=\s|$)", "'", text)
    text = re.sub(r" ([?!.,;:)])", r"\1", text)
    text = re.sub(r"([($]) ", r"\1", text)
    return " ".join(text.split())


def _question(record: Record) -> Question:
    answers = record.get("answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise DocumentError(f"question {record.get('id')} was to have a list of answers; it is {answers!r:.60}")
    return Question(text_field(record, "id"), tidy(text_field(record, "question")), tuple(map(tidy, answers)))


def _book(record: Record, document: str, split: str, folder: Path, questions: tuple[Question, ...]) -> QuestionedBook:
    name, title = text_field(record, "file"), text_field(record, "title")
    start, end = record.get("body_start"), record.get("body_end")
    if not isinstance(start, int) or not isinstance(end, int):
        raise DocumentError(f"{title} was to have a body_start and a body_end; they are {start!r} and {end!r}")
    beside = [folder / name, folder.parent / name]
    path = next((path for path in beside if path.is_file()), None)
    if path is None:
        raise DocumentError(f"{title} was to be in {beside[0]} or {beside[1]}; there is no such file")
    return QuestionedBook(document, title, split, path, (start, end), questions)
