"""Runs: every attempt is kept, none is made twice, and figures come from all of them."""

import json

import pytest

from longfocus.errors import DocumentError
from longfocus.evaluation.records import AttemptFile
from longfocus.evaluation.runner import Plan, figures, missing, run
from longfocus.evaluation.task import Length, sheets
from longfocus.evaluation.tasks.lines import Lines
from tests.evaluation.test_tasks import Known

PLAN = Plan((Length(10, "lines"), Length(30, "lines")), examples=5, questions=2, seed=4)


@pytest.fixture
def subject():
    """Knows the answers on the first sheet of each length."""
    first = [next(sheets(Lines(), length, len, examples=5, questions=2, seed=4)) for length in PLAN.lengths]
    return Known({question.text: question.answers[0] for sheet in first for question in sheet.questions})


def test_a_run_that_stops_goes_on(subject, tmp_path):
    whole = list(run(Lines(), subject, PLAN, AttemptFile(tmp_path / "whole.jsonl")))
    assert len(whole) == 10
    path = tmp_path / "lines.jsonl"
    begun = run(Lines(), subject, PLAN, AttemptFile(path))
    for _ in range(4):  # on its second sheet
        next(begun)
    begun.close()
    with path.open("a") as file:  # killed while it wrote
        file.write('{"task": "lin')
    subject.read_documents.clear()
    list(run(Lines(), subject, PLAN, AttemptFile(path)))
    assert len(subject.read_documents) == 1 + 3  # the last sheet of the first length, those of the second
    kept = AttemptFile(path).attempts
    assert [(a.place, a.answer, a.score, a.prompt) for a in kept] == [
        (a.place, a.answer, a.score, a.prompt) for a in whole
    ]
    subject.read_documents.clear()
    assert list(run(Lines(), subject, PLAN, AttemptFile(path))) == []
    assert not subject.read_documents


def test_a_sheet_that_was_begun_is_read_once_more(subject, tmp_path):
    path = tmp_path / "lines.jsonl"
    begun = run(Lines(), subject, PLAN, AttemptFile(path))
    next(begun)
    begun.close()
    assert [attempt.question for attempt in run(Lines(), subject, PLAN, AttemptFile(path))][:2] == [1, 0]


def test_more_examples_add_to_those_there_are(subject, tmp_path):
    kept = AttemptFile(tmp_path / "lines.jsonl")
    few = Plan(PLAN.lengths, 4, 2, 4)
    assert len(list(run(Lines(), subject, few, kept))) == 8
    assert len(list(run(Lines(), subject, PLAN, kept))) == 2


def test_subjects_do_not_share_answers(subject, tmp_path):
    kept = AttemptFile(tmp_path / "lines.jsonl")
    list(run(Lines(), subject, PLAN, kept))
    other = Known({}, identity="other")
    assert len(list(run(Lines(), other, PLAN, kept))) == 10
    assert [figure.score for figure in figures(kept.attempts)] == [0.4, 0.4, 0.0, 0.0]


def test_figures(subject, tmp_path):
    kept = AttemptFile(tmp_path / "lines.jsonl")
    list(run(Lines(), subject, PLAN, kept))
    first, second = figures(kept.attempts)
    assert (first.length, second.length) == ("10lines", "30lines")
    assert first.examples == 5
    assert first.score == pytest.approx(0.4)
    assert first.low == pytest.approx(0.1176, abs=1e-4)  # 2 of 5 by any table of Wilson's intervals
    assert first.high == pytest.approx(0.7693, abs=1e-4)
    assert set(first.to_json()) >= {"task", "subject", "length", "examples", "score", "low", "high"}
    assert second.tokens > first.tokens


def test_attempts_are_lines_of_json(subject, tmp_path):
    path = tmp_path / "deep" / "lines.jsonl"
    list(run(Lines(), subject, PLAN, AttemptFile(path)))
    held = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(held) == 10
    assert {"prompt", "answer", "score", "seconds", "reading_seconds", "depth"} <= set(held[0])


@pytest.mark.parametrize("text", ["no json\n", "{}\n", "[1]\n", '{"task": "lines"}\n'])
def test_other_files_are_left_alone(text, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text(text)
    with pytest.raises(DocumentError, match="line 1 of"):
        AttemptFile(path)
    assert path.read_text() == text


def test_processes_share_the_sheets(subject, tmp_path):
    path = tmp_path / "lines.jsonl"
    for process in (1, 0):
        kept = AttemptFile(path, process)
        expected = missing(Lines(), subject, PLAN, kept, (process, 2))
        assert len(list(run(Lines(), subject, PLAN, kept, (process, 2)))) == expected == {0: 6, 1: 4}[process]
    assert sorted(held.name for held in tmp_path.iterdir()) == ["lines.1.jsonl", "lines.jsonl"]
    together = AttemptFile(path)
    assert missing(Lines(), subject, PLAN, together) == 0
    alone = list(run(Lines(), subject, PLAN, AttemptFile(tmp_path / "alone" / "lines.jsonl")))
    assert {(a.place, a.answer) for a in together.attempts} == {(a.place, a.answer) for a in alone}


def test_another_process_may_be_writing(subject, tmp_path):
    path = tmp_path / "lines.jsonl"
    other = tmp_path / "lines.1.jsonl"
    list(run(Lines(), subject, PLAN, AttemptFile(path, 1), (1, 2)))
    whole = other.read_bytes()
    other.write_bytes(whole + b'{"task": "li')
    assert len(AttemptFile(path).attempts) == 4
    assert other.read_bytes() == whole + b'{"task": "li'
    assert len(AttemptFile(path, 1).attempts) == 4
    assert other.read_bytes() == whole
