"""Runs: every attempt is kept, none is made twice, and figures come from all of them."""

import json
import math
from contextlib import contextmanager
from dataclasses import replace

import pytest

from longfocus.cli.drawing import draw_figures, draw_grid
from longfocus.errors import DocumentError, RequestError
from longfocus.evaluation.figures import figures
from longfocus.evaluation.intervals import wilson
from longfocus.evaluation.records import AttemptFile
from longfocus.evaluation.results import grids
from longfocus.evaluation.runner import Plan, missing, run
from longfocus.evaluation.task import DoesNotFit, Length, sheets
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
    assert (first.low, first.high) == pytest.approx(wilson(0.4 * 3, 3))  # whole documents are right or wrong
    assert first.documents == 3
    assert set(first.to_json()) >= {"task", "subject", "length", "examples", "score", "low", "high", "documents"}
    list(run(Lines(), subject, alone := Plan(PLAN.lengths[:1], 5, 1, 4), kept := AttemptFile(tmp_path / "alone.jsonl")))
    (figure,) = figures(kept.attempts)
    assert (figure.examples, figure.documents, figure.score) == (alone.examples, 5, 0.2)
    assert figure.low == pytest.approx(0.0362, abs=1e-4)  # 1 of 5 by any table of Wilson's intervals
    assert figure.high == pytest.approx(0.6245, abs=1e-4)
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
    (held, *_) = kept = AttemptFile(path, 1).attempts
    assert len(kept) == 4
    assert other.read_bytes() == whole + b'{"task": "li'  # who only reads changes nothing
    AttemptFile(path, 1).add(held)
    assert other.read_bytes().startswith(whole + b'{"task": "lines"')
    assert len(AttemptFile(path).attempts) == 4


class Narrow(Known):
    """Takes short documents only."""

    limit = 400
    error: Exception = DoesNotFit("too long for it")

    @contextmanager
    def read(self, document, form):
        if self.count(document) > self.limit:
            raise self.error
        with super().read(document, form) as opened:
            yield opened


WIDE = Plan((Length(10, "lines"), Length(300, "lines"), Length(11, "lines")), examples=6, questions=2)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DoesNotFit("too long for it"), "too long for it"),
        (MemoryError(), "out of memory (MemoryError)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "can't allocate memory"),
    ],
)
def test_what_does_not_fit_is_a_row_and_the_others_go_on(error, reason, tmp_path):
    subject = Narrow({})
    subject.error = error
    path = tmp_path / "lines.jsonl"
    list(run(Lines(), subject, WIDE, AttemptFile(path)))
    found = figures(AttemptFile(path).attempts)
    assert [(figure.length, figure.examples) for figure in found] == [("10lines", 6), ("300lines", 0), ("11lines", 6)]
    refused = found[1].to_json()
    assert reason in refused["refused"]
    assert (refused["score"], refused["low"], refused["high"]) == (None, None, None)
    assert math.isnan(found[1].score)
    assert sum(bool(attempt.refused) for attempt in AttemptFile(path).attempts) == 1  # not once a sheet
    subject.limit = 10_000  # on a larger machine
    list(run(Lines(), subject, WIDE, AttemptFile(path)))
    assert [(figure.examples, figure.refused) for figure in figures(AttemptFile(path).attempts)] == [(6, "")] * 3


@pytest.mark.parametrize("error", [RequestError("no key"), RuntimeError("a defect")])
def test_other_errors_end_a_run(error, tmp_path):
    subject = Narrow({})
    subject.error = error
    with pytest.raises(type(error), match=str(error)):
        list(run(Lines(), subject, WIDE, AttemptFile(tmp_path / "lines.jsonl")))


def test_what_is_partly_refused_is_marked(tmp_path, capsys):
    """Documents as they are: the next may be shorter, so some are answered and some do not fit."""
    attempts = _answered(tmp_path)
    attempts[0] = replace(attempts[0], refused="out of memory")
    (figure,) = figures(attempts)
    assert (figure.examples, figure.documents, figure.refused) == (5, 3, "out of memory")
    draw_figures([figure])
    assert "5 on 3, others do not fit" in capsys.readouterr().out
    draw_grid(grids(attempts, others=False)[0])
    assert "; 5 on 3, others do not fit)" in capsys.readouterr().out
    (whole,) = figures(_answered(tmp_path))
    draw_figures([whole])
    assert "6 on 3 " in (shown := capsys.readouterr().out)
    assert "fit" not in shown
    assert whole.to_json()["documents"] == 3


def _answered(folder):
    kept = AttemptFile(folder / "lines.jsonl")
    list(run(Lines(), Known({}), Plan((Length(10, "lines"),), 6, 2), kept))
    return kept.attempts


def test_a_length_that_the_task_cannot_have_is_a_row(tmp_path):
    kept = AttemptFile(tmp_path / "lines.jsonl")
    list(run(Lines(), Known({}), Plan((Length(20), Length(200)), 2), kept))
    assert [(figure.examples, bool(figure.refused)) for figure in figures(kept.attempts)] == [(0, True), (2, False)]


def test_memory_is_told_for_each_document(tmp_path):
    """The peak of one document is not the peak of those before it."""
    import numpy as np

    from longfocus.evaluation.subject import forget_peak, peak_bytes

    forget_peak()
    held = np.ones(40_000_000)
    high = peak_bytes()
    del held
    forget_peak()
    if high < 320_000_000:
        pytest.skip("nobody tells")
    assert peak_bytes() < high - 200_000_000
