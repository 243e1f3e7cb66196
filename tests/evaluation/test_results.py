"""Reports: runs side by side, others' figures beside them and marked as theirs, and pictures."""

import json
from dataclasses import replace

import pytest

from longfocus.errors import RequestError
from longfocus.evaluation.harness import SUITES
from longfocus.evaluation.plots import DEPTHS, depth_table, save_pictures
from longfocus.evaluation.published import SOURCES, published
from longfocus.evaluation.records import AttemptFile
from longfocus.evaluation.results import attempts_in, grids
from longfocus.evaluation.runner import Plan, run
from longfocus.evaluation.task import Length, sheets
from longfocus.evaluation.tasks import TASKS
from longfocus.evaluation.tasks.lines import Lines
from tests.evaluation.test_tasks import Known

LENGTHS = (Length(30, "lines"), Length(200, "lines"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of one who knows all, and of one who knows none of it."""
    folder = tmp_path_factory.mktemp("results")
    kept = AttemptFile(folder / "lines.jsonl")
    made = [sheet for length in LENGTHS for sheet in sheets(Lines(), length, len, examples=30)]
    known = {question.text: question.answers[0] for sheet in made for question in sheet.questions}
    for subject in (Known(known, "all", "a 1"), Known({}, "none", "n 1")):
        for _ in run(Lines(), subject, Plan(LENGTHS, 30), kept):
            pass
    return folder


def test_subjects_by_lengths_and_what_others_published(folder):
    (grid,) = grids(attempts_in([folder]))
    assert grid.task == "lines"
    assert grid.lengths[:2] == ("30lines", "200lines")
    assert [(name, [None if f is None else f.score for f in row[:3]]) for name, row in grid.rows] == [
        ("all", [1.0, 1.0, None]),
        ("none", [0.0, 0.0, None]),
    ]
    theirs = {(model, source): dict(zip(grid.lengths, scores, strict=True)) for model, source, scores in grid.others}
    assert theirs["LongChat-13B-16K", "LongChat"]["680lines"] == 0.6
    assert theirs["Anima-100K-7B", "Anima"]["4000lines"] == 0.45
    assert theirs["Anima-100K-7B", "Anima"]["200lines"] is None
    assert grids(attempts_in([folder]), others=False)[0].others == ()


def test_runs_with_the_same_name_are_told_apart(folder, tmp_path):
    kept = AttemptFile(tmp_path / "lines.jsonl")
    for _ in run(Lines(), Known({}, "all", "b 2"), Plan(LENGTHS[:1], 5), kept):
        pass
    (grid,) = grids(attempts_in([folder, tmp_path]), others=False)
    assert [name for name, _ in grid.rows] == ["all (a 1)", "none", "all (b 2)"]


def test_the_same_folder_twice_counts_once(folder):
    assert len(attempts_in([folder, folder])) == len(attempts_in([folder])) == 120


def test_folders_without_results(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RequestError, match="has no results"):
            attempts_in([path])


def test_every_published_figure_has_a_source_and_a_task(reporting_data):
    for held in published():
        assert held.source in SOURCES
        assert held.task in TASKS or held.task.startswith("harness:")
        assert held.score > 1 if held.task == "perplexity" else 0 <= held.score <= 1


def test_published_figures_are_those_of_the_works():
    """Some of each table, as their authors give them; the rest is drawn from the same lines."""
    found = {(held.task, held.length, held.model): held.score for held in published()}
    assert len(found) == len(list(published()))
    for place, score in {
        ("lines", "680lines", "LongChat-7B-16K"): 0.44,
        ("lines", "4000lines", "Claude-2-100K"): 0.85,
        ("topics", "130topics", "Anima-100K-7B"): 0.5,
        ("bookqa", "100k", "Claude-2-100K"): 0.6187,
        ("passkey", "256k", "LongLLaMA-3B"): 0.73,
        ("trec-fine", "8k", "LongLLaMA-7B"): 0.759,
        ("webqs", "2k", "LongLLaMA-3B"): 0.212,
        ("perplexity", "64k", "FoT-184M (PG-19)"): 22.65,
        ("harness:arc_easy acc_norm", "-", "LongLLaMA-3B-v1.1"): 0.63,
        ("harness:boolq acc", "-", "LongLLaMA-3B-Instruct"): 0.77,
    }.items():
        assert found[place] == score
    short = {task.split()[0].removeprefix("harness:") for task, _, _ in found if task.startswith("harness:")}
    assert short == set(SUITES["longllama"])


def test_depths(folder):
    attempts = [attempt for attempt in attempts_in([folder]) if attempt.subject == "all"]
    attempts[0] = replace(attempts[0], depth=0.999, score=0.0, length="30lines")
    lengths, table = depth_table(attempts)
    assert lengths == ["30lines", "200lines"]
    assert len(table) == DEPTHS
    assert table[9][0] < 1.0
    assert {score for row in table[:9] for score in row} <= {1.0, None}


def test_pictures(folder, tmp_path):
    attempts = attempts_in([folder])
    paths = save_pictures(attempts, grids(attempts), tmp_path / "pictures")
    assert sorted(path.name for path in paths) == sorted(
        f"{name}.{suffix}" for name in ("lines", "lines-depths-1", "lines-depths-2") for suffix in ("png", "svg")
    )
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths if path.suffix == ".png")
    text = (tmp_path / "pictures" / "lines-depths-1.svg").read_text()
    assert "<svg" in text
    assert "lines: all" in text  # the title, in a comment beside its drawn letters


def test_the_verb(folder, tmp_path, capsys):
    from longfocus.cli.report import report

    report([folder], plots=tmp_path, others=True, as_json=False)
    shown = capsys.readouterr().out
    assert "1 (0.342 to 1; 30 on 2)" in shown
    (line,) = [line for line in shown.splitlines() if line.split()[:1] == ["none"]]
    assert line.split()[-1] == "GB" and float(line.split()[-2]) > 0.01
    assert "LongChat-13B-16K, published by LongChat" in shown
    assert SOURCES["LongChat"] in shown
    report([folder], plots=None, others=True, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found[0]["subject"], found[0]["length"], found[0]["score"]) == ("all", "30lines", 1.0)
    assert all(set(each) >= {"task", "subject", "length", "examples", "score", "low", "high"} for each in found)
    (theirs,) = [each for each in found if (each["subject"], each["length"]) == ("LongChat-13B-16K", "680lines")]
    assert (theirs["score"], theirs["published"], theirs["low"]) == (0.6, "LongChat", None)
    assert {each["published"] for each in found if each["subject"] in ("all", "none")} == {None}
    report([folder], plots=None, others=False, as_json=True)
    assert len(json.loads(capsys.readouterr().out)) == 4
