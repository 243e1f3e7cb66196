"""Tales: sentences that hold the answers are found, and the split for reporting is left alone."""

import gzip
import json

import pytest

from longfocus.errors import DocumentError
from longfocus.training.tales import tales_of

SUMMARIES = [
    {
        "document_id": "one",
        "summary_tokenized": "Ebba lost a ring in the fjord . Her brother Odd dived for it . He found Ebba s boot .",
    },
    {"document_id": "two", "summary_tokenized": "Nobody came . The clock went on ."},
    {"document_id": "three", "summary_tokenized": "A tale for reporting . Its hero is Ulf ."},
]
QUESTIONS = [
    ("one", "valid", "What did Ebba lose ?", ["A ring .", "her ring"]),
    ("one", "valid", "Who dived ?", ["her brother Odd", "Odd"]),
    ("one", "valid", "WHO WAS THE BROTHER OF EBBA ?", ["Odd", "Odd"]),
    ("one", "valid", "What is the moral ?", ["look after your things", "take care"]),
    ("two", "valid", "Who was late ?", ["the postman", "the postman"]),
    ("three", "test", "Who is the hero ?", ["Ulf", "Ulf"]),
]


def put(path, records) -> None:
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def data(tmp_path):
    put(tmp_path / "narrativeqa" / "summaries_valid_test.jsonl.gz", SUMMARIES)
    names = ("document_id", "set", "question", "answers")
    put(
        tmp_path / "narrativeqa" / "qa_valid_test.jsonl.gz",
        [dict(zip(names, record, strict=True)) for record in QUESTIONS],
    )
    return tmp_path


def test_answers_are_placed(data):
    (tale,) = tales_of(data)
    assert tale.id == "one"
    assert tale.sentences == (
        "Ebba lost a ring in the fjord.",
        "Her brother Odd dived for it.",
        "He found Ebba's boot.",
    )
    assert [(each.text, each.answers, each.places) for each in tale.questions] == [
        ("What did Ebba lose?", ("A ring", "her ring"), (0,)),
        ("Who dived?", ("her brother Odd", "Odd"), (1,)),
        ("Who was the brother of ebba?", ("Odd", "Odd"), (1,)),
    ]


def test_all_of_a_tale_is_looked_through_for_evaluation_data(data):
    document = tales_of(data)[0].document()
    assert document.id == "one"
    for told in ("Her brother Odd dived for it.", "Who dived?", "her ring"):
        assert told in document.text


def test_missing_files_are_told(tmp_path):
    with pytest.raises(DocumentError, match="qa_valid_test"):
        tales_of(tmp_path)
