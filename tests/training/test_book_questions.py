"""Books joined with their questions: which are taken, which are refused, and the real lists."""

import gzip
import json
from pathlib import Path

import pytest

from longfocus.errors import DocumentError, RequestError
from longfocus.training.book_questions import books_of, load_book_questions, tidy

DATA = Path(__file__).parents[3] / "shared/data"
TEXT = "licence\nOnce there was a lamp.\nlicence\n"


def question(document: str, split: str, number: int, **changes) -> dict:
    return {
        "id": f"{document}{number}",
        "document_id": document,
        "set": split,
        "question": f"Whose lamp , number {number} ?",
        "answers": ["Anne s lamp ."],
        **changes,
    }


def book(document: str, split: str, **changes) -> dict:
    return {
        "file": f"books/{document}.txt",
        "title": document.upper(),
        "body_start": 8,
        "body_end": 31,
        "narrativeqa_document_id": document,
        "narrativeqa_set": split,
        **changes,
    }


@pytest.fixture
def written(tmp_path):
    """Write both files; the books lie beside their list."""

    def write(questions: list[dict], books: list[dict]) -> tuple[Path, Path]:
        (tmp_path / "books").mkdir(exist_ok=True)
        for each in books:
            (tmp_path / each["file"]).write_text(TEXT, "utf-8")
        (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)), "utf-8")
        (tmp_path / "books/index.json").write_text(json.dumps(books), "utf-8")
        return tmp_path / "questions.jsonl", tmp_path / "books/index.json"

    return write


QUESTIONS = [question("a", "valid", 1), question("b", "test", 1), question("a", "valid", 2), question("c", "train", 1)]
BOOKS = [book("b", "test"), book("a", "valid"), book("c", "train"), book("d", "valid")]


def test_books_of_a_split_with_their_questions(written):
    (found,) = load_book_questions(*written(QUESTIONS, BOOKS))
    assert (found.id, found.title, found.split) == ("a", "A", "valid")
    assert [each.id for each in found.questions] == ["a1", "a2"]
    assert found.questions[0].text == "Whose lamp, number 1?"
    assert found.questions[0].answers == ("Anne's lamp.",)
    assert found.story() == "Once there was a lamp.\n"
    assert [each.id for each in load_book_questions(*written(QUESTIONS, BOOKS), splits=("valid", "train"))] == [
        "a",
        "c",
    ]


def test_books_for_reporting_are_not_for_training(written):
    files = written(QUESTIONS, BOOKS)
    for splits in (("test",), ("valid", "test"), "test"):
        with pytest.raises(RequestError, match="for reporting, not for training"):
            load_book_questions(*files, splits=splits)
    assert [each.id for each in load_book_questions(*files, splits=("test",), for_reporting=True)] == ["b"]


def test_a_book_that_the_files_put_in_different_splits_is_refused(written):
    with pytest.raises(DocumentError, match=r"document b is valid in .* and test in"):
        load_book_questions(*written(QUESTIONS, [book("b", "valid")]))
    with pytest.raises(DocumentError, match="document a in the splits valid and test"):
        load_book_questions(*written([*QUESTIONS, question("a", "test", 3)], BOOKS))


@pytest.mark.parametrize(
    ("questions", "books", "message"),
    [
        ([question("a", "valid", 1, answers=[])], BOOKS, "question a1 was to have a list of answers; it is \\[\\]"),
        ([question("a", "valid", 1, answers=[" "])], BOOKS, "list of answers"),
        (QUESTIONS, [book("a", "valid", body_end=None)], "a body_start and a body_end; they are 8 and None"),
        (QUESTIONS, [book("d", "valid")], "no book of .* in the splits valid has questions"),
    ],
)
def test_files_that_cannot_be_joined(written, questions, books, message):
    with pytest.raises(DocumentError, match=message):
        load_book_questions(*written(questions, books))


def test_texts_that_are_missing_short_or_packed(written, tmp_path):
    files = written(QUESTIONS, [book("a", "valid", body_end=999)])
    (found,) = load_book_questions(*files)
    with pytest.raises(DocumentError, match="has 39 characters; its body was to be 8 to 999"):
        found.story()
    (tmp_path / "books/a.txt").unlink()
    with pytest.raises(DocumentError, match="there is no such file"):
        load_book_questions(*files)
    (found,) = load_book_questions(*written(QUESTIONS, [book("a", "valid", file="books/a.txt.gz")]))
    (tmp_path / "books/a.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert found.story() == "Once there was a lamp.\n"


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("Who is Buck s owner , and is n't he kind ?", "Who is Buck's owner, and isn't he kind?"),
        ("Emily 's stepsons .", "Emily's stepsons."),
        ("In his parents ' cabin .", "In his parents' cabin."),
        ("He paid $ 30 ( in gold ) .", "He paid $30 (in gold)."),
        ("A plain one, it is.", "A plain one, it is."),
        ("It is his so", "It is his so"),
    ],
)
def test_tidy(text, tidied):
    assert tidy(text) == tidied
    assert tidy(tidied) == tidied


@pytest.mark.skipif(not DATA.exists(), reason="the shared folder of data is not here")
def test_real_lists():
    books = books_of(DATA)
    listed = json.loads((DATA / "books/index.json").read_text("utf-8"))
    named = {entry["narrativeqa_document_id"]: entry for entry in listed}
    wanted = [name for name, entry in named.items() if entry["narrativeqa_set"] == "valid"]
    assert [each.id for each in books] == wanted
    for each in books:
        assert len(each.questions) == named[each.id]["narrativeqa_questions"]
    holmes = next(each for each in books if "Devil" in each.title)
    assert len(holmes.story()) == holmes.body[1] - holmes.body[0]
    assert "Project Gutenberg" not in holmes.story()
