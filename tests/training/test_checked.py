"""Training data is looked through for evaluation sets, what holds them is left out, and all of that is told."""

import gzip
import json
from pathlib import Path

import pytest

from longfocus.errors import RequestError
from longfocus.training.book_questions import Question, QuestionedBook, books_of
from longfocus.training.checked import (
    FILE,
    SETS,
    book_parts,
    evaluation_sets,
    record_documents,
    remaining_books,
    screen,
    without,
)
from longfocus.training.documents import LeftOut, ListedDocuments, TrainingDocument
from tests.conftest import story

DATA = Path(__file__).parents[3] / "shared/data"
ASKED = "how many lamps stood in the harbour that winter"


@pytest.fixture
def sets(tmp_path) -> Path:
    """A folder with two small evaluation sets in their published forms."""
    for name, records in {
        "webquestions/test.jsonl": [{"question": ASKED}, {"question": "who?"}],
        "longchat/conversations_30.jsonl": [{"conversation": story(60, seed=5)}],
        "longchat/conversations_100.jsonl": [{"conversation": story(60, seed=6)}],
    }.items():
        path = tmp_path / "sets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return tmp_path / "sets"


def records() -> list[dict]:
    """The second and the fourth hold evaluation data: in a field of a field, and in another one."""
    turns = [{"from": "human", "value": f"Tell me, {ASKED}?"}, {"from": "gpt", "value": "Nine."}]
    return [
        {"id": "a", "question": "How many lamps?", "response": "Nine."},
        {"id": "b", "conversations": turns},
        {"question": story(40, seed=1), "response": "Yes."},
        {"system_prompt": "", "question": "Go on.", "response": story(60, seed=6)},
    ]


def test_what_holds_evaluation_data_is_left_out_and_told(sets, tmp_path):
    found = screen({"chats": record_documents(records(), "chats.jsonl"), "none": []}, sets)
    assert found.sets == (
        "LongChat topics (conversations_100.jsonl)",
        "LongChat topics (conversations_30.jsonl)",
        "WebQuestions",
    )
    assert found.left_out == {"chats": {1, 3}, "none": frozenset()}
    assert without(records(), found.left_out["chats"]) == [records()[0], records()[2]]
    assert [(each.document, each.number) for each in found.why["chats"]] == [("b", 1), ("chats.jsonl:4", 3)]
    told, nothing = found.lines()
    assert told.startswith("chats: 2 of 4 left out as evaluation data, such as chats.jsonl:4 of LongChat topics")
    assert nothing == "none: 0 of 0 left out as evaluation data (checked against 3 evaluation sets)"
    found.write(tmp_path / "run")
    written = json.loads((tmp_path / "run" / FILE).read_text(encoding="utf-8"))
    assert written["evaluation"] == str(sets)
    assert [each["evaluation"] for each in written["parts"]["chats"]["left_out"]] == ["WebQuestions", found.sets[0]]


def test_parts_are_numbered_each_for_itself(sets):
    documents = ListedDocuments(TrainingDocument(text, "d") for text in ("nothing", ASKED, "nothing else"))
    found = screen({"first": documents, "second": documents}, sets)
    assert found.left_out == {"first": {1}, "second": {1}}
    assert [one.text for one in LeftOut(documents, found.left_out["second"])] == ["nothing", "nothing else"]


@pytest.mark.parametrize(
    ("named", "told"), [(False, "no folder with evaluation sets was named"), (True, "are no eval")]
)
def test_without_evaluation_sets_it_is_said_that_nothing_was_checked(tmp_path, named, told):
    found = screen({"chats": record_documents(records(), "chats")}, tmp_path if named else None)
    assert found.left_out == {"chats": frozenset()}
    (line,) = found.lines()
    assert line.startswith("not checked for contamination: ")
    assert told in line


def test_books_lose_questions_or_go(sets, tmp_path):
    books = []
    for name in ("a", "b", "c"):
        path = tmp_path / name
        text = story(60, seed=6) if name == "b" else story(200, seed=7)
        path.write_text(text, encoding="utf-8")
        asked = tuple(Question(f"{name}{n}", text, ("Nine.",)) for n, text in enumerate((ASKED, "Who lit them?")))
        books.append(QuestionedBook(name, name, "valid", path, (0, len(text)), asked[: 1 if name == "c" else 2]))
    found = screen(book_parts(books), sets)
    assert found.left_out == {"books": {1}, "questions": {0, 2, 4}}
    (left,) = remaining_books(books, found)
    assert (left.id, [question.id for question in left.questions]) == ("a", ["a1"])
    with pytest.raises(RequestError, match="All books hold evaluation data"):
        remaining_books(books[2:], screen(book_parts(books[2:]), sets))
    with pytest.raises(RequestError, match="All 2 records hold evaluation data"):
        without(records()[:2], {0, 1})


def test_a_list_of_books_may_hold_training_data_alone(tmp_path):
    (tmp_path / "books").mkdir()
    (tmp_path / "narrativeqa").mkdir()
    (tmp_path / "books/index.json").write_text('[{"narrativeqa_set": "valid"}]', encoding="utf-8")
    questions = [{"set": "valid"}, {"set": "test", "document_id": "t", "question": ASKED, "answers": ["Nine lamps."]}]
    for some, names in ((questions[:1], []), (questions, ["NarrativeQA test questions", "NarrativeQA test answers"])):
        data = "\n".join(map(json.dumps, some)).encode()
        (tmp_path / "narrativeqa/qa_valid_test.jsonl.gz").write_bytes(gzip.compress(data))
        assert [one.name for one in evaluation_sets(tmp_path)] == names


@pytest.mark.skipif(not DATA.exists(), reason="the shared folder of data is not here")
def test_real_sets():
    """Every pattern finds its files; two of the questions for training are also asked of other books."""
    assert all(list(DATA.glob(pattern)) for pattern in SETS)
    books = books_of(DATA)
    parts = {"questions": book_parts(books)["questions"], "books": (TrainingDocument("", book.id) for book in books)}
    found = screen(parts, DATA)
    assert len(found.sets) == 11
    assert {part: len(numbers) for part, numbers in found.left_out.items()} == {"questions": 2, "books": 0}
