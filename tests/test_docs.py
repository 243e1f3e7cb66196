"""What the pages say about names, options and files is true."""

import gzip
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

import longfocus
from longfocus import cli
from longfocus.reading.documents import load_document

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.rglob("*.md"))
_LINK = re.compile(r"\]\(([^()\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^(?:\$ )?longfocus +(.*)$", re.MULTILINE)
_PASSAGE = re.compile(r"\[\d+\] [\d.]+ (.+), characters ([\d,]+) to ([\d,]+) (“.*”)")
STYLES = next(
    (
        file
        for folder in (REPOSITORY / "shared", REPOSITORY.parent / "shared")
        if (file := folder / "data/books/pg00863_the_mysterious_affair_at_styles.txt.gz").exists()
    ),
    None,
)
with_the_novel = pytest.mark.skipif(STYLES is None, reason="the shared folder of books is not here")


@pytest.fixture(scope="module")
def write_docs() -> ModuleType:
    loader = SourceFileLoader("write_docs", str(REPOSITORY / "scripts" / "write-docs"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def anchors_of(page: str) -> set[str]:
    """The anchors of a page's headings, as they are made on GitHub."""
    titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", longfocus.__all__)
def test_every_public_name_is_described(name):
    page = (DOCS / "python.md").read_text("utf-8")
    assert re.search(rf"\b{name}\b", page), "name it in docs/python.md"


def test_the_commands_page_is_what_the_commands_print(write_docs):
    page = (DOCS / "commands.md").read_text("utf-8")
    assert write_docs.written(page) == page, "run scripts/write-docs"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_option_is_described(write_docs, verb):
    page = (DOCS / "commands.md").read_text("utf-8")
    blocks = {block[1]: block[0] for block in write_docs.BLOCK.finditer(page)}
    assert verb in blocks, "run scripts/write-docs"
    group = get_command(cli.application())
    _, command, _ = group.resolve_command(group.context_class(group), [verb])
    for parameter in command.params:
        for word in [*parameter.opts, *parameter.secondary_opts]:
            assert re.search(rf"(?<![\w-]){re.escape(word)}\b", blocks[verb]), f"{word} is missing"


def test_writing_the_commands_page_mends_it(write_docs):
    page = write_docs.written("# Title\n\n## ask\n\nBy hand.\n\n<!-- help of ask -->\nold\n<!-- end -->\n")
    assert page.startswith("# Title\n\n## ask\n\nBy hand.\n\n<!-- help of ask -->\n```text\nUsage: longfocus ask ")
    assert page.count("<!-- help of ") == len(cli.VERBS)
    assert write_docs.written(page) == page
    gone = "<!-- help of gone -->\nold\n<!-- end -->\n"
    assert write_docs.written(page + gone) == page


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path):
    text = _FENCE.sub("", path.read_text("utf-8"))
    for link in [first or second for first, second in _LINK.findall(text)]:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors_of(target.read_text("utf-8")), f"{link} leads to no heading"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_shown_exist(path):
    """Each line of a code block that starts with `longfocus` names a verb that there is, and options that it has."""
    if path.name == "README.md":
        assert _FENCE.search(path.read_text("utf-8")), "README shows no command"
    for block in _FENCE.findall(path.read_text("utf-8")):
        for line in _COMMAND.findall(block):
            verb, *arguments = shlex.split(line, comments=True)
            if verb.startswith("-"):
                continue
            assert verb in cli.VERBS, f"longfocus {verb} is no command"
            group = get_command(cli.application())
            _, command, _ = group.resolve_command(group.context_class(group), [verb])
            command.make_context(verb, arguments)  # raises what the command line would print


@dataclass(frozen=True)
class Shown:
    """A command of the README and what stands below it, cut where the README leaves something out."""

    arguments: list[str]
    output: list[str]


def transcript() -> list[Shown]:
    """The README's sample session."""
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    (block,) = (block for block in _FENCE.findall(readme) if block.startswith("```\n$ longfocus "))
    commands = re.split(r"^\$ longfocus ", block.strip("`").lstrip(), flags=re.MULTILINE)[1:]
    lines = (command.partition("\n") for command in commands)
    return [Shown(shlex.split(line), [flat(piece) for piece in said.split("...")]) for line, _, said in lines]


def flat(text: str) -> str:
    """The text with its white space collapsed: the README wraps lines that a command does not."""
    return " ".join(text.split())


def varying(shown: str) -> re.Pattern[str]:
    """What is shown, where times, ranks and scores may be others: they depend on the machine."""
    parts = re.split(r"(?<=in )[\d.]+(?= s \()|(?<= s \()[\d,]+(?= tokens/s)|(?<=\[)\d+(?=\])|(?<=\] )[\d.]+", shown)
    return re.compile(r"[\d.,]+".join(map(re.escape, parts)))


def test_the_sample_session_has_the_form_of_a_real_one(tmp_path, tiny_folder, tiny_document, monkeypatch, capsys):
    """With a small model and another text only the words differ: the lines are those that the commands print."""
    monkeypatch.chdir(tmp_path)
    for name in ("LONGFOCUS_BOOKS", "LONGFOCUS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    read, find, ask = transcript()
    Path(read.arguments[1]).write_text(f"The Mysterious Affair at Styles\n\n{tiny_document.text[:2500]}", "utf-8")
    printed = []
    for shown in (read, find, ask):
        monkeypatch.setattr(sys, "argv", ["longfocus", *shown.arguments, "--model", str(tiny_folder)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        printed.append(flat(f"{said.err}\n{said.out}"))
    some_tokens = re.compile(r"[\d,]+ tokens of")
    (line,) = filter(None, read.output)
    assert varying(some_tokens.sub("TOKENS", line)).search(some_tokens.sub("TOKENS", printed[0])), printed[0]
    assert all(_PASSAGE.fullmatch(piece) for piece in find.output + ask.output[1:] if piece)
    assert _PASSAGE.search(printed[1]), printed[1]
    assert _PASSAGE.search(printed[2]), printed[2]


@with_the_novel
def test_the_sample_session_quotes_the_novel():
    document = load_document(STYLES)
    assert document.title in transcript()[0].output[0]
    _, find, ask = transcript()
    passages = [_PASSAGE.fullmatch(piece) for piece in find.output + ask.output[1:] if piece]
    assert passages and all(passages)
    for chapter, start, end, words in (passage.groups() for passage in passages):
        span = int(start.replace(",", "")), int(end.replace(",", ""))
        quoted = document.text[slice(*span)]
        assert quoted == quoted.strip()
        assert flat(quoted).strip("“”") == words.strip("“”")
        assert any(s.label == chapter and s.start <= span[0] and span[1] <= s.end for s in document.sections)


@with_the_novel
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_sample_session(tmp_path, default_model_path):
    """What the README shows, but for times, ranks and scores."""
    with gzip.open(STYLES) as novel:
        (tmp_path / transcript()[0].arguments[1]).write_bytes(novel.read())
    environment = os.environ | {"LONGFOCUS_BOOKS": str(tmp_path / "shelf"), "PYTHONUTF8": "1"}
    environment["LONGFOCUS_CACHE"] = str(default_model_path.parent.parent)
    for command in transcript():
        longfocus = [sys.executable, "-c", "import longfocus_cli; longfocus_cli.main()", *command.arguments]
        done = subprocess.run(
            longfocus, capture_output=True, text=True, encoding="utf-8", timeout=800, cwd=tmp_path, env=environment
        )
        printed = flat(f"{done.stderr}\n{done.stdout}")
        assert done.returncode == 0, printed
        for piece in filter(None, command.output):
            assert varying(piece).search(printed), printed


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=name_of)
def test_python_shown_can_be_parsed(path):
    for block in re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        compile(block, str(path), "exec")


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_lines_of_prose_are_short(path):
    for line in _FENCE.sub("", path.read_text("utf-8")).splitlines():
        assert len(line) <= 120 or line.startswith("|") or "http" in line, line
