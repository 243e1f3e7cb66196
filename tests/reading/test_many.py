"""Many documents, by one process or by several: each is read once, whatever happens on the way."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longfocus.errors import BookError, DocumentError, RequestError
from longfocus.loading.cache import CACHE_VARIABLE
from longfocus.memory import writer as writing
from longfocus.memory.book import StoredBook
from longfocus.memory.writer import BookWriter
from longfocus.reading.documents import load_document
from longfocus.reading.many import Outcome, Planned, Share, Summary, documents_in, read_many, shared_out
from longfocus.reading.reader import read_steps
from longfocus.reading.siblings import Siblings
from tests.conftest import story


@pytest.fixture(scope="module", autouse=True)
def on_one_thread(one_thread):
    """All tests of this file."""


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A shelf and a cache of their own."""
    monkeypatch.setenv("LONGFOCUS_BOOKS", str(tmp_path / "shelf"))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def papers(tmp_path) -> Path:
    """Three documents of different sizes, one of them in a folder, and things that are none."""
    folder = tmp_path / "papers"
    (folder / "inner").mkdir(parents=True)
    for number, name in enumerate(("a.txt", "b.md", "inner/c.txt"), 1):
        (folder / name).write_text(story(60 * number, seed=number), "utf-8")
    for name in ("song.mp3", ".hidden.txt", "old.book/text.txt", ".git/x.txt", "book/manifest.json", "book/text.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("No document.")
    return folder


def outcomes(papers, loaded, out=None, share=None, **options) -> dict[str, Outcome]:
    planned = shared_out(documents_in(papers, out), share or Share())
    events = [each for each in read_many(planned, loaded, **options) if isinstance(each, Outcome) and each.last]
    assert len(events) == len(planned)
    return {each.path.name: each for each in events}


def test_a_folder_is_read_once(papers, tiny_model, tmp_path):
    found = outcomes(papers, tiny_model)
    assert sorted(found) == ["a.txt", "b.md", "c.txt"]
    for name, each in found.items():
        assert each.folder == tmp_path / "shelf" / f"{name[0]}.book"
        assert (each.trouble, each.there) == ("", False)
        assert StoredBook.open(each.folder).manifest.tokens == each.tokens
    again = outcomes(papers, tiny_model)
    assert all(each.there and not each.trouble and not each.tokens for each in again.values())


def test_a_limit_is_told_of_each_document_then_and_later(papers, tiny_model, capsys):
    from longfocus.cli.drawing_many import draw_many

    cut = outcomes(papers, tiny_model, most=150)
    later = outcomes(papers, tiny_model)
    for name, each in cut.items():
        spans = StoredBook.open(each.folder).manifest.spans
        left_out = (spans[0][1], spans[1][0]) if len(spans) > 1 else None
        assert each.left_out == later[name].left_out == left_out
        assert later[name].there
    assert [each.left_out is None for each in cut.values()].count(True) < 3
    for found in (cut, later):
        draw_many(found.values(), 3, lambda outcome: outcome)
        for line in capsys.readouterr().err.splitlines():
            path = Path(line.split(": ")[0])
            assert ("warning: characters" in line) == (found[path.name].left_out is not None)


def test_folders_are_kept_apart_in_a_library(papers, tmp_path):
    (papers / "inner" / "a.txt").write_text("Another a.")
    (papers / "a.html").write_text("<p>A third a.")
    on_shelf = {each.path.relative_to(papers).as_posix(): each for each in documents_in(papers)}
    assert list(on_shelf) == ["a.html", "a.txt", "b.md", "inner/a.txt", "inner/c.txt"]
    assert [name for name, each in on_shelf.items() if each.trouble] == ["a.txt", "inner/a.txt"]
    assert "a.book, as that of" in on_shelf["a.txt"].trouble
    library = {each.path.relative_to(papers).as_posix(): each for each in documents_in(papers, tmp_path / "out")}
    assert [name for name, each in library.items() if each.trouble] == ["a.txt"]
    assert library["inner/a.txt"].folder == tmp_path / "out" / "inner" / "a.book"


def test_a_folder_without_documents(tmp_path):
    (tmp_path / "song.mp3").write_text("no")
    with pytest.raises(DocumentError, match="no document"):
        documents_in(tmp_path)


def test_what_cannot_be_read_does_not_keep_others_from_it(papers, tiny_model):
    (papers / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    (papers / "empty.txt").touch()
    (papers / "a.html").write_text("<p>Has the Book that a.txt would have.")
    events = list(read_many(documents_in(papers), tiny_model))
    ended = [each for each in events if isinstance(each, Outcome)]
    tried = [each.path.name for each in ended if each.trouble]
    assert tried == ["a.txt", "broken.pdf", "empty.txt", "broken.pdf", "empty.txt"]  # again, after all others
    summary = Summary()
    for each in ended:
        assert "\n" not in each.trouble
        summary = summary.plus(each)
    assert (summary.read, summary.there, len(summary.failed)) == (3, 0, 3)


def test_what_failed_for_a_while_is_read_in_the_end(papers, tiny_model, monkeypatch):
    opened, failing = BookWriter.open, [BookError("the disk is away")]

    def sometimes(folder, *rest):
        if failing and folder.name == "a.book":
            raise failing.pop()
        return opened(folder, *rest)

    monkeypatch.setattr(BookWriter, "open", sometimes)
    found = outcomes(papers, tiny_model)
    assert not failing
    assert not any(each.trouble for each in found.values())
    assert found["a.txt"].tokens


def test_a_defect_names_itself(papers, tiny_model, monkeypatch):
    monkeypatch.setattr(BookWriter, "open", lambda *_: 1 / 0)
    assert {each.trouble for each in outcomes(papers, tiny_model).values()} == {
        "ZeroDivisionError: division by zero; read it alone to see more"
    }


def test_a_full_disk_ends_it_in_one_line(papers, tiny_model, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "write_anew", full)
    with pytest.raises(BookError, match="no space left for"):
        outcomes(papers, tiny_model)


def test_a_book_with_other_settings_is_left_as_it_is(papers, tiny_model, tiny_folder):
    """What was complete before the settings changed stays of use; a Book of another text is not taken for it."""
    document = load_document(papers / "a.txt")
    folder = documents_in(papers)[0].folder
    for _ in read_steps(document, tiny_model, folder, most=50):
        pass
    found = outcomes(papers, tiny_model)
    assert found["a.txt"].there
    assert StoredBook.open(folder).manifest.spans[0][1] < len(document.text)
    (papers / "a.txt").write_text("Another text.")
    assert "another document" in outcomes(papers, tiny_model)["a.txt"].trouble


def test_a_book_in_use_is_waited_for_no_longer_than_the_others(papers, tiny_model):
    document, planned = load_document(papers / "a.txt"), documents_in(papers)
    reading = read_steps(document, tiny_model, planned[0].folder)
    next(reading)
    events = read_many(planned, tiny_model)
    for event in events:
        if isinstance(event, Outcome) and event.path.name == "a.txt":
            if event.last:
                break
            assert "read by another process" in event.trouble
            reading.close()  # the other process has ended
    assert not event.trouble and event.tokens


@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 6))
def test_shares_are_even_and_whole(sizes, processes):
    planned = [Planned(Path(str(number)), Path(f"{number}.book"), size) for number, size in enumerate(sizes)]
    shares = [shared_out(planned, Share(number, processes)) for number in range(processes)]
    assert sorted(each.path for share in shares for each in share) == sorted(each.path for each in planned)
    loads = [sum(max(each.bytes, 1) for each in share) for share in shares]
    assert max(loads) - min(loads) <= max([1, *sizes])


@pytest.mark.parametrize(
    ("told", "share"),
    [
        ({}, Share()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Share(3, 8, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8"}, Share(3, 8, 3)),
    ],
)
def test_a_process_knows_its_share(told, share):
    assert Share.here(told) == share


@pytest.mark.parametrize("told", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "-1"}, {"WORLD_SIZE": "x"}])
def test_a_launcher_that_makes_no_sense(told):
    with pytest.raises(RequestError, match="RANK"):
        Share.here(told)


def test_the_first_process_reports_for_all(tmp_path):
    failed = Outcome(Path("b.pdf"), Path("b.book"), trouble="damaged")
    first, second, third = (Siblings(Share(number, 3, number), 3, tmp_path / "run") for number in range(3))
    first.__enter__()
    with second:
        assert second.together(Summary(1, 2, 30, (failed,))) == Summary(1, 2, 30)
    with third:
        pass  # killed before it was through
    summary = first.together(Summary(4, 0, 70))
    first.__exit__(None, None, None)
    assert (summary.read, summary.there, summary.tokens) == (5, 2, 100)
    assert summary.failed[0] == failed
    assert "ended before it was through" in summary.failed[1].trouble
    assert not (tmp_path / "run").exists()
    told = Summary(failed=(failed,))
    alone = Siblings.here(Share(1, 2, 1), {"RANK": "1", "WORLD_SIZE": "2"})
    with alone:
        assert alone.together(told) == told


@pytest.mark.parametrize("left", ["", '{"read": 1', "[]", '{"read": "x", "failed": []}', '{"failed": [{"path": 1}]}'])
def test_a_report_that_cannot_be_read_is_passed_by(tmp_path, left):
    first, second = (Siblings(Share(number, 2, number), 2, tmp_path / "run") for number in range(2))
    with first:
        with second:
            (tmp_path / "run" / "1.json").write_text(left)
        summary = first.together(Summary(4, 0, 70))
    assert (summary.read, summary.tokens) == (4, 70)
    (trouble,) = summary.failed
    assert str(trouble.path) == "process 1"
    assert "cannot be read" in trouble.trouble


def test_a_report_is_left_whole_or_not_at_all(tmp_path, monkeypatch):
    failed = Outcome(Path("b.pdf"), Path("b.book"), trouble="damaged")
    first, second = (Siblings(Share(number, 2, number), 2, tmp_path / "run") for number in range(2))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with first:
        with second:
            monkeypatch.setattr(os, "replace", full)
            assert second.together(Summary(failed=(failed,))).failed == (failed,), "nobody else will tell of it"
        assert "ended before" in first.together(Summary()).failed[0].trouble


def test_processes_that_have_no_place_to_meet(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RequestError, match="LONGFOCUS_CACHE"):
        Siblings(Share(0, 2), 2, tmp_path / "run").__enter__()


PROGRAM = "import longfocus_cli; longfocus_cli.main()"


def begin(papers, tiny_folder, out, rank, **environment):
    command = [sys.executable, "-c", PROGRAM, "read", papers, "--model", tiny_folder, "--window", "64", "--out", out]
    told = {"RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", **environment}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), env=os.environ | told, **streams)


@pytest.mark.slow
def test_one_of_two_processes_is_killed_and_both_are_started_again(papers, tiny_folder, tmp_path):
    (papers / "long.txt").write_text(story(60_000, seed=8), "utf-8")
    (papers / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    out = tmp_path / "out"
    shares = [shared_out(documents_in(papers, out), Share(number, 2)) for number in range(2)]
    assert [each.path.name for each in shares[0]] == ["long.txt"]
    first, second = (begin(papers, tiny_folder, out, rank) for rank in range(2))
    progress = out / "long.book" / "progress.json"
    while not progress.exists() or '"tokens": 0,' in progress.read_text():
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    told, said = second.communicate(timeout=100)
    assert second.returncode == 1
    assert told.count(".book") == 3
    assert "broken.pdf: failed, and is tried again" in said
    assert "read 3 (" in said and ", 1 failed\n" in said
    assert "longfocus: 1 documents could not be read" in said
    half = StoredBook.open(out / "long.book", complete=False).progress.tokens
    assert 0 < half < 60_000
    again = [begin(papers, tiny_folder, out, rank) for rank in range(2)]
    said = [process.communicate(timeout=100) for process in again]
    assert [process.returncode for process in again] == [0, 1]
    assert [told.count(".book") for told, _ in said] == [1, 3]
    whole = tmp_path / "whole"  # by processes like those: roundings depend on how many threads compute
    for process in [begin(papers, tiny_folder, whole, rank) for rank in range(2)]:
        process.communicate(timeout=100)
    compared = [
        [
            replace(StoredBook.open(planned.folder).progress, seconds=0)
            for planned in documents_in(papers, place)
            if planned.path.name != "broken.pdf"
        ]
        for place in (out, whole)
    ]
    assert len(compared[0]) == 4
    assert compared[0] == compared[1]


@pytest.mark.slow
def test_torchrun_ends_when_all_are_through(papers, tiny_folder, tmp_path):
    """The process with the damaged file is through first; the launcher must not stop the other for it."""
    (papers / "broken.pdf").write_bytes(b"%PDF-1.7 nothing" * 10_000)
    (papers / "long.txt").write_text(story(9000, seed=8), "utf-8")
    out = tmp_path / "out"
    shares = [shared_out(documents_in(papers, out), Share(number, 2)) for number in range(2)]
    assert ["broken.pdf"] in [[each.path.name for each in share] for share in shares]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command = [sys.executable, "-c", PROGRAM, "read", papers, "--model", tiny_folder, "--window", "64", "--out", out]
    done = subprocess.run(list(map(str, [*launcher, *command])), capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "read 4 (" in done.stderr
    assert len(list(out.rglob("manifest.json"))) == 4


@pytest.mark.slow
def test_accelerate_launch_as_documented(papers, tiny_folder, tmp_path):
    """The line of docs/scale.md: two processes, each with its share and with one report for both."""
    (line,) = re.findall(r"^accelerate launch (.*longfocus read) ", Path("docs/scale.md").read_text("utf-8"), re.M)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *line.split()]
    out = tmp_path / "out"
    command = [*launcher, papers, "--model", tiny_folder, "--window", "64", "--out", out]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    assert "read 3 (" in done.stderr and ", 0 failed" in done.stderr
    assert len(list(out.rglob("manifest.json"))) == 3
    shares = [shared_out(documents_in(papers, out), Share(number, 2)) for number in range(2)]
    assert all(shares), "each process has something to read"
