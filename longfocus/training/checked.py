"""Training data without what models are tested on: looked for once, before a run, left out, and told.

`evaluation_sets` finds the files of the evaluation sets in a folder; `screen` looks for them in what is to be trained
on. What is contaminated and what is not is for `longfocus.training.contamination` to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from longfocus.errors import RequestError
from longfocus.training import evaluation_texts as texts
from longfocus.training.book_questions import REPORTING_SPLIT, QuestionedBook
from longfocus.training.contamination import EvaluationTexts, Overlap, check_contamination
from longfocus.training.documents import TrainingDocument
from longfocus.training.examples import Record
from longfocus.training.records import load_records

FILE = "contamination.json"
"""What a run's folder says of the check."""

BOOKS, QUESTIONS = "books", "questions"


def _narrativeqa(questions: Path) -> list[EvaluationTexts]:
    if not _has_test_split(questions, "set"):
        return []
    summaries = questions.with_name(questions.name.replace("qa_", "summaries_", 1))
    return texts.narrativeqa(questions, summaries if summaries.is_file() else None)


def _narrativeqa_books(index: Path) -> list[EvaluationTexts]:
    return [texts.narrativeqa_books(index)] if _has_test_split(index, "narrativeqa_set") else []


def _has_test_split(path: Path, field: str) -> bool:
    """Whether a file, which may well hold books for training alone, has some for reporting too."""
    return any(record.get(field) == REPORTING_SPLIT for record in load_records(path))


SETS: dict[str, Callable[[Path], EvaluationTexts | list[EvaluationTexts]]] = {
    "narrativeqa/qa_*.jsonl*": _narrativeqa,
    "books/index.json": _narrativeqa_books,
    "longchat/conversations*.jsonl*": texts.longchat,
    "anima/extended*.json": texts.anima_topics,
    "anima/*_topics_en.jsonl*": texts.anima_prompt,
    "humaneval/HumanEval.jsonl*": texts.humaneval,
    "trec/TREC_10.label": texts.trec,
    "webquestions/test.jsonl*": texts.webquestions,
}
"""Files of evaluation sets in a folder, as a pattern, and what reads them."""


def evaluation_sets(folder: Path) -> list[EvaluationTexts]:
    """All evaluation sets whose files are in the folder, each under a name of its own.

    Raises:
        DocumentError: A file cannot be read, or is not in its set's form.
    """
    found = []
    for pattern, read in SETS.items():
        files = sorted(folder.glob(pattern))
        for file in files:
            sets = read(file)
            for one in sets if isinstance(sets, list) else [sets]:
                found.append(replace(one, name=f"{one.name} ({file.name})") if len(files) > 1 else one)
    return found


@dataclass(frozen=True)
class Screening(TrainerCallback):
    """What a check found in all that is to be trained on; as a callback it is written into the run's folder.

    Attributes:
        evaluation: The folder of the evaluation sets; None where none was given.
        sets: Names of the sets that were compared.
        looked_at: How many documents of each part.
        left_out: Which of them hold evaluation data, by their places.
        why: What these have in common with which set.
    """

    evaluation: Path | None
    sets: tuple[str, ...]
    looked_at: Mapping[str, int]
    left_out: Mapping[str, frozenset[int]]
    why: Mapping[str, tuple[Overlap, ...]]

    def lines(self) -> tuple[str, ...]:
        """What is to be told of it, a line for each part."""
        if not self.sets:
            lacking = "no folder with evaluation sets was named"
            if self.evaluation is not None:
                lacking = f"there are no evaluation sets in {self.evaluation}"
            return (f"not checked for contamination: {lacking}",)
        against = f"checked against {len(self.sets)} evaluation sets"
        return tuple(f"{part}: {self._told(part)} ({against})" for part in self.looked_at)

    def _told(self, part: str) -> str:
        out = len(self.left_out[part])
        told = f"{out} of {self.looked_at[part]} left out as evaluation data"
        if not out:
            return told
        worst = max(self.why[part], key=lambda overlap: (overlap.text_share, overlap.shared))
        said = f', "{worst.sample:.60}"' if worst.shared else ""
        return f"{told}, such as {worst.document} of {worst.evaluation}{said}"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the file before the first step."""
        if state.is_world_process_zero:
            self.write(Path(str(args.output_dir)))

    def write(self, folder: Path) -> None:
        """Put all of it in the run's folder."""
        told: dict[str, Any] = {
            "evaluation": None if self.evaluation is None else str(self.evaluation),
            "sets": self.sets,
            "parts": {
                part: {"documents": count, "left_out": [asdict(overlap) for overlap in self.why[part]]}
                for part, count in self.looked_at.items()
            },
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def screen(parts: Mapping[str, Iterable[TrainingDocument]], evaluation: Path | None) -> Screening:
    """Look for evaluation sets in what is to be trained on.

    Args:
        parts: The documents of each part, gone through once; what a part is called is told.
        evaluation: The folder with the evaluation sets; see `evaluation_sets`. None, or one without any, checks
            nothing, and the result says so.

    Returns:
        What to leave out; `longfocus.training.documents.LeftOut` takes such numbers, `without` does for lists.

    Raises:
        DocumentError: An evaluation set or a document cannot be read.
    """
    sets = [] if evaluation is None else evaluation_sets(evaluation)
    counts = dict.fromkeys(parts, 0)
    if not sets:
        nothing: dict[str, frozenset[int]] = dict.fromkeys(parts, frozenset())
        return Screening(evaluation, (), counts, nothing, dict.fromkeys(parts, ()))
    owners: list[tuple[str, int]] = []  # the part and the place in it of each document

    def all_documents() -> Iterator[TrainingDocument]:
        for part, documents in parts.items():
            for document in documents:
                owners.append((part, counts[part]))
                counts[part] += 1
                yield document

    report = check_contamination(all_documents(), sets)
    why: dict[str, list[Overlap]] = {part: [] for part in parts}
    for overlap in report.contaminated:
        part, place = owners[overlap.number]
        why[part].append(replace(overlap, number=place))
    return Screening(
        evaluation,
        tuple(one.name for one in sets),
        counts,
        {part: frozenset(overlap.number for overlap in found) for part, found in why.items()},
        {part: tuple(found) for part, found in why.items()},
    )


def record_documents(records: Iterable[Record], name: str) -> Iterator[TrainingDocument]:
    """Records as documents to be looked at: all that stands in their fields, called by their `id` or their place.

    Args:
        records: Of any form.
        name: Of the file, for records without an id.
    """
    for place, record in enumerate(records):
        yield TrainingDocument("\n".join(_said(record)), str(record.get("id", f"{name}:{place + 1}")))


def without(records: Iterable[Record], numbers: Collection[int]) -> list[Record]:
    """The records but for those at these places.

    Raises:
        RequestError: None is left.
    """
    found = [record for place, record in enumerate(records) if place not in numbers]
    if not found:
        raise RequestError(f"All {len(numbers)} records hold evaluation data; take others to train on.")
    return found


def book_parts(books: Sequence[QuestionedBook]) -> dict[str, Iterable[TrainingDocument]]:
    """Books with questions as parts for `screen`: the stories, and each question with its answers for itself.

    Two books may be asked the same ("What is the name of the village?"), which is no reason to leave out either.
    """
    return {
        BOOKS: (TrainingDocument(book.story(), book.id) for book in books),
        QUESTIONS: (
            TrainingDocument("\n".join((question.text, *question.answers)), question.id)
            for book in books
            for question in book.questions
        ),
    }


def remaining_books(books: Sequence[QuestionedBook], screening: Screening) -> list[QuestionedBook]:
    """The books and questions of `book_parts` that may be trained on.

    Raises:
        RequestError: There are none.
    """
    numbers, found = count(), []
    for place, book in enumerate(books):
        asked = [question for question in book.questions if next(numbers) not in screening.left_out[QUESTIONS]]
        if asked and place not in screening.left_out[BOOKS]:
            found.append(replace(book, questions=tuple(asked)))
    if not found:
        raise RequestError("All books hold evaluation data; take others to train on.")
    return found


def _said(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _said(part)
