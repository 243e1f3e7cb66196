"""The texts of evaluation sets from files in their published forms."""

import gzip
import json
from pathlib import Path

import pytest

from longfocus.errors import DocumentError
from longfocus.training.contamination import check_contamination
from longfocus.training.document_files import open_documents
from longfocus.training.documents import TrainingDocument
from longfocus.training.evaluation_texts import (
    humaneval,
    longchat,
    narrativeqa,
    narrativeqa_books,
    trec,
    webquestions,
)

DATA = Path(__file__).parents[3] / "shared/data"


def written(path, records):
    path.parent.mkdir(exist_ok=True)
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def question(document, split, text, *answers):
    return {"document_id": document, "set": split, "question": text, "answers": answers}


def test_narrativeqa_is_questions_answers_and_summaries_of_one_split(tmp_path):
    asked = [
        question("d1", "test", "Who is it ?", "Emily", "her"),
        question("d1", "test", "Why ?", "because", "so"),
        question("d2", "valid", "Other ?", "no", "no"),
    ]
    told = [{"document_id": name, "summary_tokenized": f"about {name}"} for name in ("d1", "d2")]
    paths = written(tmp_path / "qa.jsonl.gz", asked), written(tmp_path / "summaries.jsonl", told)
    questions, answers, summaries = narrativeqa(*paths)
    assert list(questions.texts) == ["Who is it ?", "Why ?"]
    assert list(answers.texts) == ["Emily", "her", "because", "so"]
    assert list(summaries.texts) == ["about d1"]
    assert questions.ids == {"d1"}
    assert [list(part.texts) for part in narrativeqa(*paths, split="valid")] == [
        ["Other ?"],
        ["no", "no"],
        ["about d2"],
    ]
    with pytest.raises(DocumentError, match="nothing of the split 'train'"):
        narrativeqa(*paths, split="train")


def test_books_are_their_bodies_alone(tmp_path):
    (tmp_path / "books").mkdir()
    books = []
    for name, split in (("pg1_one", "test"), ("pg2_two", "valid"), ("pg3_three", "test")):
        body = f"Ünd the story of {name} goes on for a while."
        (tmp_path / "books" / f"{name}.txt.gz").write_bytes(gzip.compress(f"HEADER {body} LICENCE".encode()))
        books.append(
            {
                "file": f"books/{name}.txt.gz",
                "title": name.title(),
                "body_start": 7,
                "body_end": 7 + len(body),
                "narrativeqa_set": split,
                "narrativeqa_document_id": f"id-{name}",
            }
        )
    index = tmp_path / "books" / "index.json"
    index.write_text(json.dumps(books), encoding="utf-8")
    found = narrativeqa_books(index)
    assert list(found.texts) == [f"Ünd the story of {name} goes on for a while." for name in ("pg1_one", "pg3_three")]
    called = ["elsewhere/pg1_one.txt", "id-pg3_three", "Pg1_One", "pg2_two"]
    report = check_contamination([TrainingDocument("", name) for name in called], [narrativeqa_books(index)])
    assert report.numbers() == {0, 1, 2}
    books[0]["body_start"] = "7"
    index.write_text(json.dumps(books), encoding="utf-8")
    with pytest.raises(DocumentError, match="'body_start' is '7'; wanted int"):
        narrativeqa_books(index)


def test_humaneval_is_the_problem_and_its_solution(tmp_path):
    record = {"prompt": "def f():\n", "canonical_solution": "    return 1\n", "test": "METADATA"}
    assert list(humaneval(written(tmp_path / "a.jsonl.gz", [record])).texts) == ["def f():\n    return 1\n"]


@pytest.mark.parametrize("packed", [False, True])
def test_trec_is_latin_1_and_without_its_classes(packed, tmp_path):
    path = tmp_path / ("a.label.gz" if packed else "a.label")
    data = b"NUM:dist How far is it ?\nHUM:ind Who is \xf0 ?\n"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert list(trec(path).texts) == ["How far is it ?", "Who is ð ?"]


def test_trec_in_another_form_is_refused(tmp_path):
    (tmp_path / "a.label").write_text("NUM:dist\n")
    with pytest.raises(DocumentError, match="not in TREC's form"):
        trec(tmp_path / "a.label")
    with pytest.raises(DocumentError, match="missing cannot be read"):
        trec(tmp_path / "missing")


def test_questions_are_told_by_fewer_words_than_other_texts(tmp_path):
    asked = written(tmp_path / "a.jsonl", [{"question": "what does jamaican people speak?", "answers": ["x"]}])
    talked = written(tmp_path / "b.jsonl", [{"topic": "t", "conversation": "what does jamaican people speak?"}])
    report = check_contamination(
        [TrainingDocument("So: What does Jamaican people speak", "d")], [webquestions(asked), longchat(talked)]
    )
    assert [overlap.evaluation for overlap in report.contaminated] == ["WebQuestions"]
    assert report.evaluations["LongChat topics"].too_short == 1


def test_records_without_the_field_are_refused(tmp_path):
    path = written(tmp_path / "a.jsonl", [{"text": "x"}])
    for read in (humaneval, webquestions, longchat):
        with pytest.raises(DocumentError, match="was to have text in its field"):
            read(path)


@pytest.mark.skipif(not DATA.exists(), reason="the shared folder of data is not here")
def test_the_published_sets_tell_books_to_train_on_from_books_to_report_on():
    narrative = DATA / "narrativeqa"
    sets = [
        *narrativeqa(narrative / "qa_valid_test.jsonl.gz", narrative / "summaries_valid_test.jsonl.gz"),
        narrativeqa_books(DATA / "books/index.json"),
        humaneval(DATA / "humaneval/HumanEval.jsonl.gz"),
        trec(DATA / "trec/TREC_10.label"),
        webquestions(DATA / "webquestions/test.jsonl.gz"),
        longchat(DATA / "longchat/conversations_30.jsonl"),
    ]
    books = [
        document
        for name in ("pg00863*", "pg02852*", "pg01063*", "pg00035*")  # two of other splits, two of `test`
        for document in open_documents(DATA / "books", pattern=f"{name}.txt.gz")
    ]
    talked = next(iter(open_documents(DATA / "longchat/conversations_100.jsonl.gz", text="conversation")))
    report = check_contamination([*books, talked], sets)
    assert [(overlap.number, overlap.evaluation) for overlap in report.contaminated] == [
        (2, "NarrativeQA test books"),
        (3, "NarrativeQA test books"),
        (4, "LongChat topics"),
    ]
    assert all(overlap.text_share > 0.99 for overlap in report.contaminated)
