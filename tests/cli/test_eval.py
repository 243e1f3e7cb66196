"""The verb `eval` on a small model."""

import json
import sys

import pytest

from longfocus import cli
from tests.evaluation.small_topics import write_conversations


@pytest.fixture(scope="module", autouse=True)
def on_one_thread(one_thread):
    """All tests of this file."""


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, tiny_folder):
    """Return a function that runs `longfocus eval ARGUMENTS` with the small model: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["longfocus", "eval", *arguments, "--model", str(tiny_folder)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_a_table_and_every_answer(run, tmp_path):
    arguments = ("passkey", "lines", "--lengths", "600,900", "--limit", "2", "--out", "kept")
    status, out, err = run(*arguments)
    assert status == 0
    assert err.count("passkey 600 ") == err.count("lines 900 ") == 2
    rows = [line.split() for line in out.splitlines()]
    assert rows[0][:3] == ["task", "subject", "length"]
    assert [row[0] for row in rows[1:]] == ["passkey", "passkey", "lines", "lines"]
    assert len((tmp_path / "kept" / "lines.jsonl").read_text().splitlines()) == 4
    again = run(*arguments, "--json")
    assert (again[0], again[2]) == (0, "")
    found = json.loads(again[1])
    assert [(f["task"], f["length"], f["examples"]) for f in found] == [
        (task, length, 2) for task in ("passkey", "lines") for length in ("600", "900")
    ]
    assert all(0 <= f["low"] <= f["score"] <= f["high"] <= 1 for f in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("guess",), "there is no task guess; there are passkey"),
        (("lines", "--lengths", "long"), "the length 'long' cannot be read"),
        (("perplexity", "--data", "nowhere"), "nowhere"),
        (("passkey", "--lengths", "9lines"), "passkey measures documents in tokens, not in lines"),
        (("passkey", "--subject", "nobody"), "there is no subject 'nobody'; there are memory"),
        (("passkey", "--limit", "all"), "passkey makes up its questions without end; give --limit a number"),
        (("passkey", "--limit", "0"), "--limit is a number of questions from 1, or all; '0' came"),
        (("passkey", "--limit", "few"), "--limit is a number of questions from 1, or all"),
        (("topics", "--data", "nowhere"), "nowhere"),
        (("trec-fine", "--data", "nowhere"), "nowhere"),
        (("needle", "--data", "nowhere"), "nowhere"),
        (("lines", "--judge", "nobody"), "there is no subject 'nobody'"),
        (("harness:boolq", "--subject", "full"), "put to the subject memory alone, not to full"),
        (("cases",), "needs a file of test cases"),
        (("bookqa", "--books", "."), "give both"),
    ],
)
def test_what_cannot_be_measured_is_one_line(run, arguments, message):
    status, _, err = run(*arguments)
    assert status == 1
    assert message in err
    assert len(err.splitlines()) == 1


def test_what_does_not_fit_is_a_row(run, tmp_path):
    """A document that is too long for full attention, and one too short for a key; the rest is measured."""
    arguments = ("passkey", "--lengths", "20,300,900", "--limit", "1", "--subject", "full", "--subject", "window")
    status, out, err = run(*arguments, "--out", "kept")
    assert status == 0
    assert out.count("does not fit") == 3
    assert "passkey 20 does not fit: a document of 20 tokens was asked for; the shortest has" in err
    assert "model full: passkey 900 does not fit: " in err
    assert "has positions for 512 tokens, the document has 90" in err
    status, out, _ = run(*arguments, "--out", "kept", "--json")
    assert [(row["length"], row["examples"], bool(row["refused"])) for row in json.loads(out)] == [
        ("20", 0, True),
        ("300", 1, False),
        ("900", 0, True),
        ("20", 0, True),
        ("300", 1, False),
        ("900", 1, False),
    ]
    assert "NaN" not in out
    (tmp_path / "kept" / "harness.json").write_text("{}")  # what else lies there is no matter
    from longfocus.cli.report import report

    report([tmp_path / "kept"], plots=tmp_path, others=False, as_json=False)


def test_what_is_missing_is_told_before_anything_is_loaded(run, monkeypatch):
    """A task whose data are missing, behind one that could run."""
    import longfocus.loading.load

    monkeypatch.setattr(longfocus.loading.load, "load", lambda *_, **__: pytest.fail("loaded"))
    status, out, err = run("lines", "webqs", "--data", "nowhere", "--lengths", "600")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "nowhere" in err


def test_a_folder_is_for_one_run_at_a_time(run, tmp_path):
    from longfocus.evaluation.alone_in import alone_in

    with alone_in(tmp_path / "kept"), alone_in(tmp_path / "kept", first=False):  # another process of the same launch
        status, _, err = run("lines", "--lengths", "5lines", "--limit", "1", "--out", "kept")
    assert status == 1
    assert len(err.splitlines()) == 1
    assert "another `longfocus eval` is writing into kept" in err
    assert run("lines", "--lengths", "5lines", "--limit", "1", "--out", "kept")[0] == 0


def test_what_a_subject_cannot_do_is_a_row(run, tmp_path, monkeypatch):
    """An API that answers questions alone, for a task of going on with texts; others go on."""
    local = "openai:some@http://127.0.0.1:9/v1"
    subjects = ("--subject", local, "--subject", "nothing")
    arguments = ("passkey-reference", "--lengths", "900characters,1000characters", "--limit", "2", *subjects)
    status, out, err = run(*arguments)
    assert status == 0
    assert out.count("not possible") == 2
    assert "does not fit" not in out
    assert "some: passkey-reference 900characters not possible: some: APIs of chat models answer messages" in err
    status, out, _ = run(*arguments, "--json")
    assert [(row["examples"], row["refused"][:12]) for row in json.loads(out)] == [
        (0, "not possible"),
        (0, "not possible"),
        (2, ""),
        (2, ""),
    ]


def test_each_task_takes_the_lengths_in_its_units(run):
    status, out, _ = run("passkey", "lines", "--lengths", "600,9lines", "--limit", "1", "--json")
    assert status == 0
    assert [(f["task"], f["length"]) for f in json.loads(out)] == [
        ("passkey", "600"),
        ("lines", "600"),
        ("lines", "9lines"),
    ]


def test_several_subjects_and_pictures(run, tmp_path):
    arguments = ("lines", "--lengths", "5lines,9lines", "--limit", "2", "--json", "--plots", "drawn")
    status, out, err = run(*arguments, "--subject", "memory", "--subject", "nothing")
    assert status == 0
    assert [(f["subject"].split()[-1], f["length"]) for f in json.loads(out)] == [
        ("memory", "5lines"),
        ("memory", "9lines"),
        ("nothing", "5lines"),
        ("nothing", "9lines"),
    ]
    assert {"lines.png", "lines.svg", "lines-depths-2.png"} <= {path.name for path in (tmp_path / "drawn").iterdir()}
    assert "drawn/lines.png" in err


def test_the_names_of_tasks(run):
    status, out, _ = run("list")
    assert status == 0
    assert {"passkey", "bookqa", "trec-fine"} <= set(out.split())


def test_a_judge_is_a_subject_too(run, tmp_path):
    write_conversations(tmp_path)
    status, out, _ = run(
        "topics", "--lengths", "2topics", "--limit", "1", "--data", ".", "--judge", "nothing", "--json"
    )
    assert status == 0
    assert json.loads(out)[0]["more"]["judged by model nothing"] == 0  # this one has not learnt to say 1
