"""What the pages say about names, options and files is true."""

import re
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

import longfocus
from longfocus import cli

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.rglob("*.md"))
_LINK = re.compile(r"\]\(([^()\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


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
        for line in re.findall(r"^(?:\$ )?longfocus +(.*)$", block, re.MULTILINE):
            verb, *words = line.split(" #")[0].split()
            if verb.startswith("-"):
                continue
            assert verb in cli.VERBS, f"longfocus {verb} is no command"
            group = get_command(cli.application())
            _, command, _ = group.resolve_command(group.context_class(group), [verb])
            known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
            options = {word.split("=")[0] for word in re.sub(r"\"[^\"]*\"", "", " ".join(words)).split()}
            unknown = {option for option in options if option.startswith("--")} - known
            assert not unknown, f"longfocus {verb} has no {unknown}"


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=name_of)
def test_python_shown_can_be_parsed(path):
    for block in re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        compile(block, str(path), "exec")


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_lines_of_prose_are_short(path):
    for line in _FENCE.sub("", path.read_text("utf-8")).splitlines():
        assert len(line) <= 120 or line.startswith("|") or "http" in line, line
