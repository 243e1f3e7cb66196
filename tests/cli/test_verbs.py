"""The verbs on a small model: the main job in processes of its own, everything else here."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import story

TIMINGS = ["first_token", "total", "question_tokens", "answer_tokens", "tokens_per_second"]


@pytest.fixture(scope="module", autouse=True)
def on_one_thread(one_thread):
    """All tests of this file."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder to work in, with a shelf and a cache of its own."""
    monkeypatch.setenv("LONGFOCUS_BOOKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(command_line):
    """Runs a verb here."""
    return command_line


@pytest.fixture
def book(run, tiny_folder, tiny_document, home) -> Path:
    (home / "story.txt").write_text(tiny_document.text[:2500], encoding="utf-8")
    status, out, _ = run("read", "story.txt", "--model", tiny_folder, "--window", 64)
    assert status == 0
    return Path(out.strip())


def process(*arguments, stdin=""):
    command = [sys.executable, "-c", "import longfocus_cli; longfocus_cli.main()", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, encoding="utf-8", timeout=60)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGINT")
def test_a_reading_that_is_interrupted_goes_on(tiny_folder, home):
    (home / "story.txt").write_text(story(30_000), encoding="utf-8")
    read = [sys.executable, "-c", "import longfocus_cli; longfocus_cli.main()", "read", "story.txt", "--window", "64"]
    read += ["--model", str(tiny_folder)]
    progress = home / "shelf" / "story.book" / "progress.json"
    with subprocess.Popen(read, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until and not (progress.exists() and json.loads(progress.read_text())["tokens"] > 999):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("longfocus: stopped\n")
    assert "Traceback" not in err
    done = subprocess.run(read, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"going on at token ([\d,]+)", done.stderr)[1].replace(",", "")) > 999


@pytest.mark.slow
def test_read_then_ask_then_chat_in_processes_of_their_own(tiny_folder, tiny_document, home):
    (home / "story.txt").write_text(tiny_document.text[:2500], encoding="utf-8")
    done = process("read", "story.txt", "--model", tiny_folder, "--window", 64)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{home / 'shelf' / 'story.book'}\n"
    done = process("ask", "story.txt", "What is it?", "Who?", "--model", tiny_folder, "--json", "--max-tokens", 5)
    assert done.returncode == 0, done.stderr
    assert [answer["question"] for answer in json.loads(done.stdout)] == ["What is it?", "Who?"]
    done = process("chat", "story", "--model", tiny_folder, "--max-tokens", 5, stdin="Who?\nAnd why?\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("  [1] ") == 2


def test_a_book_that_is_not_there_is_one_line(run):
    status, out, said = run("ask", "nothing", "Who?")
    assert (status, out) == (1, "")
    assert said.startswith("longfocus: no Book 'nothing'")
    assert said.count("\n") == 1


def test_ask_for_machines(run, book, tiny_folder):
    text = Path("story.txt").read_text(encoding="utf-8")
    status, out, _ = run("ask", book, "What is it?", "Who?", "--model", tiny_folder, "--json", "--max-tokens", 8)
    assert status == 0
    answers = json.loads(out)
    assert [answer["question"] for answer in answers] == ["What is it?", "Who?"]
    for answer in answers:
        assert list(answer) == ["question", "answer", "citations", "timings"]
        assert isinstance(answer["answer"], str)
        assert list(answer["timings"]) == TIMINGS
        assert 1 <= len(answer["citations"]) <= 3
        for citation in answer["citations"]:
            assert list(citation)[:4] == ["text", "start", "end", "score"]
            assert set(citation) <= {"text", "start", "end", "score", "chapter", "page"}
            assert citation["text"] == text[citation["start"] : citation["end"]]
    again = json.loads(
        run("ask", "story.txt", "What is it?", "Who?", "--model", tiny_folder, "--json", "--max-tokens", 8)[1]
    )
    assert again[0] | {"timings": 0} == answers[0] | {"timings": 0}


def test_ask_for_people(run, book, tiny_folder):
    options = ("--model", tiny_folder, "--max-tokens", "8")
    machine = json.loads(run("ask", book, "Who?", "What?", *options, "--json")[1])
    status, out, err = run("ask", book, "Who?", "What?", *options)
    assert status == 0
    assert out.startswith("> Who?\n")
    assert "\n> What?\n" in out
    for answer in machine:
        for citation in answer["citations"]:
            assert f"“{' '.join(citation['text'].split())}”" in out
    assert err.count("s to the first word, 8 tokens") == 2


def test_citations_and_baselines(run, book, tiny_folder):
    def asked(*options):
        status, out, _ = run("ask", book, "Who?", "--model", tiny_folder, "--json", "--max-tokens", 8, *options)
        assert status == 0
        return json.loads(out)[0]

    with_memory = asked()
    assert len(asked("--citations", 1)["citations"]) == 1
    assert asked("--citations", 0)["citations"] == []
    assert asked("--citations", 0)["answer"] == with_memory["answer"]
    nothing, window = asked("--no-memory"), asked("--window-only")
    assert nothing["citations"] == window["citations"] == []
    assert nothing["timings"]["question_tokens"] < window["timings"]["question_tokens"]
    assert len({answer["answer"] for answer in (with_memory, nothing, window)}) == 3
    seeded = {asked("--temperature", 2, "--seed", 7)["answer"] for _ in range(2)}
    assert len(seeded) == 1
    assert seeded != {with_memory["answer"]}


def test_find(run, book, tiny_folder):
    text = Path("story.txt").read_text(encoding="utf-8")
    status, out, _ = run("find", book, "the river", "--model", tiny_folder, "--json", "--most", 4)
    assert status == 0
    found = json.loads(out)
    assert 1 <= len(found) <= 4
    for passage in found:
        assert set(passage) <= {"text", "start", "end", "score", "chapter", "page"}
        assert passage["text"] == text[passage["start"] : passage["end"]]
    people = run("find", book, "the river", "--model", tiny_folder, "--most", 4)[1]
    assert people.count("characters ") == len(found)


def test_books(run, home, tiny_folder):
    status, out, err = run("books")
    assert (status, out) == (0, "")
    assert "no books in" in err
    assert run("books", "--json")[:2] == (0, "[]\n")


def test_books_on_the_shelf(run, book, tiny_folder):
    status, out, _ = run("books", "--json")
    (listed,) = json.loads(out)
    assert status == 0
    assert list(listed) == ["name", "folder", "title", "model", "tokens", "done", "bytes"]
    assert listed["folder"] == str(book)
    assert listed["done"] == listed["tokens"] > 100
    assert run("books")[1].startswith("story: ")


def test_models(run, home):
    status, out, _ = run("models", "--json", "--memory", 8)
    assert status == 0
    found = json.loads(out)
    assert sorted(found) == ["cached", "default", "suitable"]
    assert found["cached"] == []
    assert found["suitable"]
    people = run("models", "--memory", 8)
    assert people[0] == 0
    assert "8 GiB" in people[1]
    for odd in ("nan", "inf", "1e300", "0"):
        status, _, err = run("models", "--memory", odd)
        assert (status, err.count("\n")) == (1, 1)
        assert "--memory" in err


def test_chat(run, book, tiny_folder):
    options = ("--model", tiny_folder, "--max-tokens", "6")
    status, out, err = run("chat", book, *options, stdin="Who?\n" + "river " * 99 + "\nWhy?\n\nnever asked\n")
    assert status == 0
    assert out.count("  [1] ") == 2
    assert err.count("shorten it") == 1
    assert run("chat", book, *options, stdin="")[:2] == (0, "")


def test_read_again_goes_on_and_tells_of_a_limit(run, book, tiny_folder, home):
    status, out, err = run("read", "story.txt", "--model", tiny_folder, "--window", 64)
    assert (status, out) == (0, f"{book}\n")
    assert "was read before: " in err
    assert "tokens/s" not in err
    assert "going on at token" not in err
    status, out, err = run("read", "story.txt", "--model", tiny_folder, "--limit", 100, "--out", "short.book")
    assert (status, out) == (0, "short.book\n")
    first, end = json.loads(Path("short.book/manifest.json").read_text())["spans"]
    assert f"warning: the document is longer than the limit; characters {first[1]:,} to {end[0]:,} are left out" in err


def make(path: str, contents: bytes = b"") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(contents)
    return path


def encrypted() -> bytes:
    from pypdf import PdfWriter

    writer, out = PdfWriter(), io.BytesIO()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(out)
    return out.getvalue()


BAD_READS = {
    "no file": (lambda: "nowhere.txt", (), "nowhere.txt"),
    "an empty file": (lambda: make("empty.txt"), (), "empty.txt"),
    "white space": (lambda: make("blank.txt", b" \n\n "), (), "blank.txt"),
    "a binary file": (lambda: make("binary.txt", bytes(range(256)) * 40), (), "binary.txt"),
    "an unknown suffix": (lambda: make("song.mp3", b"text"), (), "mp3"),
    "no suffix": (lambda: make("song", b"text"), (), "suffix"),
    "a folder without documents": (lambda: make("folder/x.mp3", b"text") and "folder", (), "no document"),
    "an encrypted pdf": (lambda: make("locked.pdf", encrypted()), (), "locked.pdf"),
    "a broken pdf": (lambda: make("broken.pdf", b"%PDF-1.7 nothing"), (), "broken.pdf"),
    "a broken epub": (lambda: make("broken.epub", b"PK\x03\x04 nothing"), (), "broken.epub"),
    "a limit of one": (lambda: make("a.txt", b"Some text."), ("--limit", "1"), "2 or more"),
    "a limit below zero": (lambda: make("a.txt", b"Some text."), ("--limit", "-3"), "2 or more"),
    "layers that are none": (lambda: make("a.txt", b"Some text."), ("--memory-layers", "a-b"), "a-b"),
    "layers beyond": (lambda: make("a.txt", b"Some text."), ("--memory-layers", "99"), "99"),
    "no window": (lambda: make("a.txt", b"Some text."), ("--window", "0"), "window"),
    "an overlap as long": (lambda: make("a.txt", b"Some text."), ("--window", "64", "--overlap", "64"), "overlap"),
    "a folder in use": (lambda: make("a.txt", b"Some text."), ("--out", "."), "no Book"),
    "out is a file": (lambda: make("a.txt", b"Some text."), ("--out", "a.txt"), "a.txt"),
}


def is_one_line(done, word):
    status, out, err = done
    assert status == 1
    assert out == ""
    assert err.startswith("longfocus: ")
    assert err.count("\n") == 1
    assert word in err


@pytest.mark.parametrize("case", BAD_READS)
def test_bad_input_to_read_is_one_line(run, tiny_folder, case):
    document, options, word = BAD_READS[case]
    is_one_line(run("read", document(), "--model", tiny_folder, *options), word)


def test_bad_models_are_one_line(run, tiny_folder, home):
    import shutil

    make("a.txt", b"Some text.")
    bare = shutil.copytree(tiny_folder, home / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    for model, word in ((bare, "bare"), (home / "none", "none"), (home / "shelf", "shelf")):
        (home / "shelf").mkdir(exist_ok=True)
        is_one_line(run("read", "a.txt", "--model", model), word)


def test_bad_questions_are_one_line(run, book, tiny_folder, home):
    model = ("--model", tiny_folder)
    is_one_line(run("ask", book, "river " * 99, *model), "shorten it")
    is_one_line(run("ask", book, " ", *model), "empty")
    is_one_line(run("find", book, "", *model), "empty")
    is_one_line(run("ask", book, "Who?", "--no-memory", "--window-only", *model), "exclude each other")
    is_one_line(run("ask", "x" * 3000, "Who?", *model), "no Book")
    is_one_line(run("ask", home, "Who?", *model), "no Book")
    make("new.txt", b"text")
    is_one_line(run("ask", "new.txt", "Who?", *model), "not been read")
    is_one_line(run("read", make("other/story.txt", b"Another story."), *model, "--window", 64), "another document")
    is_one_line(run("read", "story.txt", *model, "--window", 80), "window 64 (here 80)")


def test_a_document_that_was_changed_is_not_answered_from_its_old_text(run, book, tiny_folder, monkeypatch):
    model = ("--model", tiny_folder)
    with monkeypatch.context() as patch:  # reading noted the file, which need not be taken apart to be known again
        patch.setattr("longfocus.reading.documents.load_document", lambda _: pytest.fail("taken apart"))
        assert run("find", "story.txt", "the river", *model)[0] == 0
    with open("story.txt", "a", encoding="utf-8") as file:
        file.write(" And so it ended.")
    for verb in ("ask", "find", "chat"):
        is_one_line(run(verb, "story.txt", *(["Who?"] if verb != "chat" else []), *model), "is not what")
    assert run("find", "story", "the river", *model)[0] == 0


def test_the_advice_for_a_damaged_book_can_be_followed(run, book, tiny_folder):
    import shutil

    (book / "progress.json").write_text("{")
    options = ("--model", tiny_folder, "--window", 64)
    is_one_line(run("ask", book, "Who?", "--model", tiny_folder), "remove the folder and read the document again")
    is_one_line(run("read", "story.txt", *options), "remove the folder and read the document again")
    shutil.rmtree(book)
    assert run("read", "story.txt", *options)[0] == 0


def test_bad_books_are_one_line(run, book, tiny_folder):
    layer = next(path.name for path in book.glob("layer-*.keys"))
    for name in (layer, "tokens.safetensors", "progress.json", "manifest.json"):
        contents = (book / name).read_bytes()
        (book / name).write_bytes(contents[: len(contents) // 2])
        is_one_line(run("ask", book, "Who?", "--model", tiny_folder), name)
        (book / name).write_bytes(contents)


def test_a_book_of_another_model_is_one_line(run, book, tiny_folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    other = shutil.copytree(tiny_folder, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    is_one_line(run("ask", book, "Who?", "--model", other), "another model")


def test_a_full_disk_is_one_line(run, tiny_folder, monkeypatch):
    import errno

    from longfocus.memory import writer

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "write_anew", full)
    is_one_line(run("read", make("a.txt", b"Some text."), "--model", tiny_folder), "no space left for")


@pytest.mark.slow
def test_demo(default_model_path):
    environment = {name: value for name, value in os.environ.items() if name != "LONGFOCUS_CACHE"}
    command = [sys.executable, "-c", "import longfocus_cli; longfocus_cli.main()", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    shown_of_demo(done.stdout)


def shown_of_demo(out: str) -> None:
    """Both questions have an answer, and what is cited stands in the sample, at the characters that are told."""
    from longfocus.cli.demo import QUESTIONS, SAMPLE
    from longfocus.reading.documents import load_document

    text = load_document(SAMPLE).text
    _, *asked = out.split("\n> ")
    assert len(asked) == len(QUESTIONS)
    for question, shown in zip(QUESTIONS, asked, strict=True):
        told, answer, *rest = shown.splitlines()
        assert told == question
        assert answer.strip() and not answer.startswith("  [")
        place = r"^  \[\d\] \d\.\d\d  .*characters ([\d,]+) to ([\d,]+)\n      “(.*)”$"
        cited = re.findall(place, "\n".join(rest), re.MULTILINE)
        assert 1 <= len(cited) <= 3
        for start, end, quoted in cited:
            assert " ".join(text[int(start.replace(",", "")) : int(end.replace(",", ""))].split()) == quoted


def test_what_a_file_holds_cannot_steer_the_terminal(run, book, tiny_folder, home):
    """Escape sequences in a title, in the book's own words and in a message come out harmless."""
    manifest = book / "manifest.json"
    record = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps(record | {"title": "A\x1b[2J\x9b31m\u202eB\ttab"}), encoding="utf-8")
    steered = home / "steered.txt"
    steered.write_text("The river \x1b]0;owned\x07 ran \u2066on\u2069 quietly. " * 40, encoding="utf-8")
    options = ("--model", tiny_folder)
    assert run("read", steered, *options, "--window", 64)[0] == 0
    outputs = [run("books"), run("find", "steered", "the river", *options), run("ask", "no\x1b[2Jsuch", "Who?")]
    assert outputs[0][1].count("A�[2J�31m�B\ttab") == 1
    assert "The river �]0;owned� ran �on� quietly." in outputs[1][1]
    assert r"no\x1b[2Jsuch" in outputs[2][2]
    for _, out, err in outputs:
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\u2066"} & {*out, *err}
