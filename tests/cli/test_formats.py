"""From a document of each kind to citations that say where in it they stand, by the verbs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import story
from tests.reading.test_documents_epub import epub
from tests.reading.test_documents_pdf import pdf

Run = Callable[..., tuple[int, str, str]]
PARTS = {"First": story(120, seed=1), "Second": story(120, seed=2), "Third": story(120, seed=3)}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """A folder with a shelf and a cache of its own."""
    monkeypatch.setenv("LONGFOCUS_BOOKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def written(kind: str, folder: Path) -> Path:
    """The parts as a document of this kind: chapters, or in a PDF pages."""
    path = folder / f"story.{kind}"
    plain = {name: " ".join(text.encode("ascii", "ignore").decode().split()) for name, text in PARTS.items()}
    match kind:
        case "pdf":
            words = {name: text.split() for name, text in plain.items()}
            pages = [[" ".join(part[at : at + 9]) for at in range(0, len(part), 9)] for part in words.values()]
            return pdf(path, pages)
        case "epub":
            bodies = {f"{name}.xhtml": f"<h1 id='h'>{name}</h1><p>{text}</p>" for name, text in plain.items()}
            entries = "".join(f"<li><a href='{name}.xhtml#h'>{name}</a></li>" for name in plain)
            nav = f'<nav xmlns:epub="http://www.idpf.org/2007/ops" epub:type="toc"><ol>{entries}</ol></nav>'
            return epub(path, bodies, nav=nav)
        case "html":
            path.write_text("".join(f"<h1>{name}</h1><p>{text}</p>" for name, text in plain.items()), "utf-8")
        case _:
            path.write_text("\n\n".join(f"# {name}\n\n{text}" for name, text in plain.items()), "utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "place"), [("pdf", "page"), ("epub", "chapter"), ("html", "chapter"), ("md", "chapter")]
)
def test_answers_of_every_kind_of_document_name_the_place(
    command_line: Run, tiny_folder: Path, home: Path, kind: str, place: str
) -> None:
    path = written(kind, home)
    status, out, err = command_line("read", path, "--model", tiny_folder, "--window", 64)
    assert status == 0, err
    text = (Path(out.strip()) / "text.txt").read_text("utf-8")
    status, out, err = command_line("ask", path, "Who?", "--model", tiny_folder, "--json", "--max-tokens", 4)
    assert status == 0, err
    (answer,) = json.loads(out)
    assert answer["citations"]
    names = {"First": "1", "Second": "2", "Third": "3"} if place == "page" else {name: name for name in PARTS}
    for cited in answer["citations"]:
        assert text[cited["start"] : cited["end"]] == cited["text"]
        inside = [names[name] for name, part in PARTS.items() if stands_in(cited["text"], part)]
        assert not inside or cited[place] in inside
        assert cited[place] in names.values()
    assert any(stands_in(cited["text"], part) for cited in answer["citations"] for part in PARTS.values())


def stands_in(passage: str, part: str) -> bool:
    """Whether a passage's words stand in a part, whatever white space a format makes of it."""
    plain = part.encode("ascii", "ignore").decode().split()
    return " ".join(passage.split()) in " ".join(plain)
