"""The verb `compare` on a small model."""

import json
import sys
from pathlib import Path

import pytest

from longfocus import cli


@pytest.fixture(scope="module", autouse=True)
def on_one_thread(one_thread):
    """All tests of this file."""


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, tiny_folder, tiny_document):
    """Return a function that runs `longfocus VERB ARGUMENTS` with the small model: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGFOCUS_BOOKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "story.txt").write_text(tiny_document.text[:2500], encoding="utf-8")
    (tmp_path / "two.txt").write_text("Where is the harbour?\nWho came?\n")
    (tmp_path / "one.jsonl").write_text('{"question": "Who [came]?", "answers": ["a captain", "Ann"]}\n')

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["longfocus", *map(str, arguments), "--model", str(tiny_folder)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_side_by_side(run):
    status, out, err = run("compare", "story.txt", "two.txt", "--max-tokens", 5, "--chunk", 40)
    assert status == 0, err
    assert "story.txt is read for this comparison alone" in err
    assert err.count("question 1 of 2") == err.count("question 2 of 2") == 3
    blocks = out.split("\n\n")
    assert [block.splitlines()[0] for block in blocks if block.startswith("> ")] == [
        "> Where is the harbour?",
        "> Who came?",
    ]
    rows = [line.strip().split("  ")[0] for line in out.splitlines() if "model " in line]
    assert rows == ["model memory", "model window", "bm25 + model full", "model memory:", "bm25 + model full:"] * 2
    assert out.count("  [1] ") == 4
    quoted = [line for line in out.splitlines() if line.startswith("      “")]
    assert len(quoted) >= 8 and max(map(len, quoted)) <= 310


def test_for_machines_with_a_book(run):
    status, book, _ = run("read", "story.txt", "--window", 64)
    assert status == 0
    names = ["--subject", "memory", "--subject", "full", "--subject", "memory"]
    status, out, err = run("compare", "story.txt", "one.jsonl", *names, "--max-tokens", 5, "--json")
    assert status == 0, err
    assert "for this comparison alone" not in err
    (asked,) = json.loads(out)
    assert (asked["question"], asked["answers"]) == ("Who [came]?", ["a captain", "Ann"])
    memory, full = asked["replies"]
    assert memory["subject"] == "model memory" and memory["reading_seconds"] == 0.0 and memory["prompt_tokens"] > 500
    text = (Path(book.strip()) / "text.txt").read_text("utf-8")
    assert all(text[c["start"] : c["end"]] == c["text"] for c in memory["citations"]) and memory["citations"]
    assert "positions for 512 tokens" in full["error"]


def test_when_nobody_answers(run):
    status, out, err = run("compare", "story.txt", "one.jsonl", "--subject", "full", "--citations", 0)
    assert status == 1
    assert "> Who [came]?\n  wanted: a captain; Ann\n" in out
    assert err.splitlines()[-1].startswith("longfocus: nobody answered: ")


def test_without_the_package_for_retrieval(run, monkeypatch):
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "bm25s" else there(name, *more)
    )
    status, out, err = run("compare", "story.txt", "one.jsonl", "--max-tokens", 2, "--citations", 0)
    assert status == 0
    assert "bm25 is left out, as it needs the package bm25s: pip install longfocus[eval]" in err
    assert "model memory" in out and "model window" in out and "bm25" not in out
    status, _, err = run("compare", "story.txt", "one.jsonl", "--subject", "bm25")
    assert (status, err.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "two.txt"), "no Book 'nowhere'"),
        (("story.txt", "nowhere.txt"), "nowhere.txt cannot be read"),
        (("story.txt", "two.txt", "--subject", "guess"), "there is no subject 'guess'; there are memory"),
        (("story.txt", "two.txt", "--subject", "openai:m", "--key-variable", "NO_SUCH_KEY"), "NO_SUCH_KEY is not set"),
    ],
)
def test_what_cannot_be_compared_is_one_line(run, arguments, message):
    status, out, err = run("compare", *arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1
