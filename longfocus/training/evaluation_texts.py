"""The texts of evaluation sets, from files in the forms in which the sets are published, for `check_contamination`.

Each function takes the paths of a set's files, gzipped or not. Only texts of the set itself count: what its prompts
have in common is left out where the files allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from longfocus.errors import DocumentError
from longfocus.training.contamination import EvaluationTexts
from longfocus.training.records import load_records, read_bytes, read_text, text_field

_QUESTION = 5
"""Fewest words of a question that is told by them: what `check_contamination` says of chance."""


def narrativeqa(questions: Path, summaries: Path | None, split: str = "test") -> list[EvaluationTexts]:
    """Questions, answers and summaries of NarrativeQA (Kocisky et al., 2018), as a set of each.

    Args:
        questions: Records with document_id, set, question and a list of answers.
        summaries: Records with document_id and summary_tokenized; None leaves that set out.
        split: Which `set` counts.

    Raises:
        DocumentError: A file cannot be read or has other fields, or nothing of that split.
    """
    asked = _of_split(questions, "set", split)
    ids = frozenset(text_field(record, "document_id") for record in asked)
    answers = [answer for record in asked for answer in _value(record, "answers", list, questions)]
    name = f"NarrativeQA {split}"
    found = [
        EvaluationTexts(f"{name} questions", [text_field(record, "question") for record in asked], ids, _QUESTION),
        EvaluationTexts(f"{name} answers", answers),
    ]
    if summaries is not None:
        told = [record for record in load_records(summaries) if text_field(record, "document_id") in ids]
        found.append(EvaluationTexts(f"{name} summaries", [text_field(record, "summary_tokenized") for record in told]))
    return found


def narrativeqa_books(index: Path, split: str = "test") -> EvaluationTexts:
    """The books that NarrativeQA's questions are about.

    Args:
        index: Records of the books with file (its path from the index's folder or the one above), body_start and
            body_end (characters of the story in the file), title, narrativeqa_set and narrativeqa_document_id.
        split: Which `narrativeqa_set` counts.

    Raises:
        DocumentError: A file cannot be read or has other fields, or there is no book of that split.
    """
    books = _of_split(index, "narrativeqa_set", split)
    names = ("file", "title", "narrativeqa_document_id")
    ids = frozenset(text_field(book, name) for book in books for name in names)
    folders = index.parent, index.parent.parent
    beside = [[folder / text_field(book, "file") for folder in folders] for book in books]
    files = [next((path for path in paths if path.is_file()), paths[-1]) for paths in beside]
    spans = [(_value(book, "body_start", int, index), _value(book, "body_end", int, index)) for book in books]

    def texts() -> Iterator[str]:
        return (
            read_text(file)[start:end] for file, (start, end) in zip(files, spans, strict=True)
        )  # one book in memory at a time

    return EvaluationTexts(f"NarrativeQA {split} books", texts(), ids)


def humaneval(path: Path) -> EvaluationTexts:
    """Problems and solutions of HumanEval (Chen et al., 2021), without the frame that its tests share."""
    records = load_records(path)
    return EvaluationTexts(
        "HumanEval", [text_field(record, "prompt") + text_field(record, "canonical_solution") for record in records]
    )


def trec(path: Path) -> EvaluationTexts:
    """Questions of TREC (Li and Roth, 2002): each line a class, a space and the question, in Latin-1."""
    lines = read_bytes(path).decode("latin-1").split("\n")
    questions = [line.partition(" ")[2] for line in lines if line.strip()]
    if not questions or not all(questions):
        raise DocumentError(f"{path} is not in TREC's form; wanted a class, a space and a question on each line")
    return EvaluationTexts("TREC", questions, shortest=_QUESTION)


def webquestions(path: Path) -> EvaluationTexts:
    """Questions of WebQuestions (Berant et al., 2013): records with question."""
    questions = [text_field(record, "question") for record in load_records(path)]
    return EvaluationTexts("WebQuestions", questions, shortest=_QUESTION)


def longchat(path: Path) -> EvaluationTexts:
    """Conversations of LongChat's retrieval of topics: records with conversation."""
    return EvaluationTexts("LongChat topics", [text_field(record, "conversation") for record in load_records(path)])


def anima_topics(path: Path) -> EvaluationTexts:
    """Conversations of which Anima 100K's prompts on topics are made: records with CONVERSATION."""
    return EvaluationTexts("Anima topics", [text_field(record, "CONVERSATION") for record in load_records(path)])


def anima_prompt(path: Path) -> EvaluationTexts:
    """Anima 100K's own prompts on topics, each a record of conversations: records with prompt."""
    return EvaluationTexts("Anima prompts", [text_field(record, "prompt") for record in load_records(path)])


def _of_split(path: Path, field: str, split: str) -> list[Any]:
    found = [record for record in load_records(path) if text_field(record, field) == split]
    if not found:
        raise DocumentError(f"{path} has nothing of the split {split!r}; look at its field {field!r}")
    return found


def _value(record: Any, name: str, kind: type, path: Path) -> Any:
    if not isinstance(record.get(name), kind):
        raise DocumentError(f"{path}: the field {name!r} is {record.get(name)!r:.60}; wanted {kind.__name__}")
    return record[name]
