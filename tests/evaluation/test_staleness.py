"""Answers to what is no longer asked: withdrawn, asked anew, and never mixed with others."""

import json
from dataclasses import replace

import pytest

from longfocus.errors import RequestError
from longfocus.evaluation.figures import figures
from longfocus.evaluation.records import AttemptFile, standing
from longfocus.evaluation.results import attempts_in
from longfocus.evaluation.runner import Plan, missing, run, stale
from longfocus.evaluation.task import Length
from longfocus.evaluation.tasks.lines import Lines
from tests.evaluation.test_tasks import Known

SHORT = Length(10, "lines")
PLAN = Plan((SHORT,), 6, 2)


class Reworded(Lines):
    """The same task after a change of its words."""

    def sheet(self, length, number, count, questions, seed):
        sheet = super().sheet(length, number, count, questions, seed)
        return replace(sheet, document=sheet.document.replace("remember", "keep in mind"))


class Renumbered(Lines):
    """Other data on the second sheet alone."""

    def sheet(self, length, number, count, questions, seed):
        return super().sheet(length, number + 40 if number == 1 else number, count, questions, seed)


class Corrected(Lines):
    """The same questions with other answers."""

    def sheet(self, length, number, count, questions, seed):
        sheet = super().sheet(length, number, count, questions, seed)
        return replace(sheet, questions=tuple(replace(each, answers=("none",)) for each in sheet.questions))


@pytest.fixture
def path(tmp_path):
    """Of a run that is finished."""
    path = tmp_path / "lines.jsonl"
    list(run(Lines(), Known({}), PLAN, AttemptFile(path)))
    return path


def test_nothing_is_asked_again_while_nothing_has_changed(path):
    before = path.read_bytes()
    assert stale(Lines(), Known({}), PLAN, kept := AttemptFile(path)) == 0
    assert not list(run(Lines(), Known({}), PLAN, kept))
    assert path.read_bytes() == before


@pytest.mark.parametrize(("task", "changed"), [(Reworded, 6), (Renumbered, 2), (Corrected, 6)])
def test_what_has_changed_is_asked_anew(task, changed, path):
    before = path.read_bytes()
    kept = AttemptFile(path)
    assert stale(task(), Known({}), PLAN, kept) == changed
    assert stale(task(), Known({}), PLAN, kept) == 0  # told once
    assert missing(task(), Known({}), PLAN, kept) == changed
    made = list(run(task(), Known({}), PLAN, kept))
    assert len(made) == changed
    assert path.read_bytes().startswith(before)  # nothing is lost
    for there in (kept.attempts, AttemptFile(path).attempts, attempts_in([path.parent])):
        assert len(there) == 6
        assert {attempt.prompt for attempt in made} <= {attempt.prompt for attempt in there}
    assert stale(task(), Known({}), PLAN, AttemptFile(path)) == 0
    assert not list(run(task(), Known({}), PLAN, AttemptFile(path)))


def test_a_run_that_is_stopped_behind_a_change_mixes_nothing(path):
    running = run(Reworded(), Known({}), PLAN, AttemptFile(path))
    next(running)
    running.close()
    (figure,) = figures(attempts_in([path.parent]))
    assert figure.examples == 1


def test_what_is_beyond_the_plan_is_withdrawn_as_well(path):
    list(run(Reworded(), Known({}), replace(PLAN, examples=2), kept := AttemptFile(path)))
    assert [figure.examples for figure in figures(kept.attempts)] == [2]
    assert len(list(run(Reworded(), Known({}), PLAN, AttemptFile(path)))) == 4


def test_others_are_left_alone(path):
    longer, other = Plan((Length(20, "lines"),), 2, 2), Known({}, identity="other")
    list(run(Lines(), Known({}), longer, AttemptFile(path)))
    list(run(Lines(), other, PLAN, AttemptFile(path)))
    list(run(Reworded(), Known({}), PLAN, AttemptFile(path)))
    assert not list(run(Lines(), Known({}), longer, AttemptFile(path)))
    assert not list(run(Lines(), other, PLAN, AttemptFile(path)))


def test_what_was_answered_before_a_mistake_counts_again(path):
    """Say, after a run with the wrong --data."""
    before = {(a.place, a.prompt) for a in AttemptFile(path).attempts}
    list(run(Reworded(), Known({}), PLAN, AttemptFile(path)))
    assert stale(Lines(), Known({}), PLAN, kept := AttemptFile(path)) == 0
    assert not list(run(Lines(), Known({}), PLAN, kept))
    assert {(a.place, a.prompt) for a in attempts_in([path.parent])} == before


def test_answers_of_other_processes_are_looked_through_by_one(tmp_path):
    path = tmp_path / "lines.jsonl"
    for process in (0, 1):
        list(run(Lines(), Known({}), PLAN, AttemptFile(path, process), (process, 2)))
    assert len(list(run(Reworded(), Known({}), PLAN, AttemptFile(path)))) == 6
    assert not list(run(Reworded(), Known({}), PLAN, AttemptFile(path)))  # though lines.1.jsonl is read behind it
    assert len(attempts_in([tmp_path])) == 6
    counts = [stale(Lines(), Known({}, identity="known"), PLAN, AttemptFile(path, p), (p, 2)) for p in (0, 1)]
    assert counts == [0, 0]  # both found what was answered before


def test_data_that_are_missing_withdraw_nothing(path):
    class Without(Lines):
        def sheet(self, length, number, count, questions, seed):
            raise RequestError("data/topics is missing")

    before = path.read_bytes()
    with pytest.raises(RequestError, match="is missing"):
        list(run(Without(), Known({}), PLAN, AttemptFile(path)))
    assert path.read_bytes() == before


def test_an_answer_counts_more_than_a_refusal_whatever_file_it_is_from(path, tmp_path):
    answered = AttemptFile(path).attempts[0]
    refused = replace(answered, refused="out of memory", score=None)
    other = tmp_path / "other" / "lines.jsonl"
    AttemptFile(other).add(refused)
    for folders in ([tmp_path, other.parent], [other.parent, tmp_path]):
        (figure,) = figures(attempts_in(folders))
        assert (figure.examples, figure.refused) == (6, "")
    assert standing([answered, refused]) == standing([refused, answered]) == [answered]


def test_reports_change_no_file(path):
    cut = path.read_bytes() + b'{"task": "lin'
    path.write_bytes(cut)
    assert len(attempts_in([path.parent])) == 6
    assert path.read_bytes() == cut


def test_runs_of_before_there_were_times_go_on(path):
    """Their attempts do not say when they were written."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["written"], line["withdrawn"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not list(run(Lines(), Known({}), PLAN, AttemptFile(path)))
    assert len(list(run(Reworded(), Known({}), PLAN, AttemptFile(path)))) == 6
    assert len(attempts_in([path.parent])) == 6
