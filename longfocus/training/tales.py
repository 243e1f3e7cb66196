"""Stories retold in a page, with questions about them: what NarrativeQA's questions were written from.

The summaries are those that its questioners had before them (Kocisky et al., 2018), so an answer can be found in a
sentence or two, where the book itself may never say it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from longfocus.training.book_questions import tidy
from longfocus.training.documents import TrainingDocument
from longfocus.training.examples import Record
from longfocus.training.records import load_records, text_field

SUMMARIES = "summaries_valid_test.jsonl.gz"
_WORD = re.compile(r"[a-z0-9]{3,}")
_COMMON = 0.2  # words of so many of a tale's sentences tell none of them from the others


class TaleQuestion(NamedTuple):
    """A question about a tale.

    Attributes:
        text: The question.
        answers: One or more.
        places: The sentences in which an answer stands, or most of it.
    """

    text: str
    answers: tuple[str, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class Tale:
    """A story retold.

    Attributes:
        id: The document's.
        sentences: In order.
        questions: Those whose answer can be found in a sentence; one or more.
    """

    id: str
    sentences: tuple[str, ...]
    questions: tuple[TaleQuestion, ...]

    def document(self) -> TrainingDocument:
        """All of it, to be looked through for evaluation data."""
        asked = [" ".join((question.text, *question.answers)) for question in self.questions]
        return TrainingDocument("\n".join((" ".join(self.sentences), *asked)), self.id)


def tales_of(data: str | Path, split: str = "valid") -> list[Tale]:
    """The tales of a folder with `narrativeqa/summaries_valid_test.jsonl.gz` and `qa_valid_test.jsonl.gz`.

    Raises:
        DocumentError: A file is missing or damaged.
    """
    folder = Path(data) / "narrativeqa"
    asked: dict[str, list[Record]] = defaultdict(list)
    for record in load_records(folder / "qa_valid_test.jsonl.gz"):
        if record.get("set") == split:
            asked[text_field(record, "document_id")].append(record)
    found = []
    for record in load_records(folder / SUMMARIES):
        name = text_field(record, "document_id")
        if name in asked:
            parts = _sentences(tidy(text_field(record, "summary_tokenized")))
            questions = [question for each in asked[name] if (question := _placed(each, parts)) is not None]
            if questions:
                found.append(Tale(name, tuple(parts), tuple(questions)))
    return found


def _sentences(text: str) -> list[str]:
    return [found.strip() for found in re.split(r"(?<=[.!?]) +(?=[A-Z\"'])", text) if found.strip()]


def _placed(record: Record, parts: Sequence[str]) -> TaleQuestion | None:
    """A question with where its answer stands; None where no sentence has most of the answer's words."""
    text = tidy(text_field(record, "question"))
    answers = tuple(tidy(answer).rstrip(" .") for answer in record["answers"])
    if text.isupper():
        text = text.capitalize()
    if any(answer.isupper() and len(answer) > 4 for answer in answers):
        return None
    words = [set(_WORD.findall(part.lower())) for part in parts]
    rare = {word for each in words for word in each if sum(word in other for other in words) <= _COMMON * len(words)}
    asked = set(_WORD.findall(text.lower())) & rare
    best: tuple[float, int] = (0.0, -1)
    for answer in answers:
        wanted = set(_WORD.findall(answer.lower()))
        for place, each in enumerate(words):
            if wanted and len(wanted & each) >= 0.6 * len(wanted):
                best = max(best, (len(wanted & each) / len(wanted) + len(asked & each), -place - 1))
    if best[0] < 1:
        return None
    place = -best[1] - 1
    return TaleQuestion(text, answers, (place,))
