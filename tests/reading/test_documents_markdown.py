"""Markdown: the file's own characters, and its headings as chapters."""

from pathlib import Path

import pytest

from longfocus.errors import DocumentError
from longfocus.reading.documents import Document, load_document


def written(folder: Path, text: str) -> Document:
    path = folder / "notes.md"
    path.write_text(text, "utf-8", newline="")
    return load_document(path)


def labels(document: Document) -> list[str]:
    return [section.label for section in document.sections]


def test_text_is_verbatim(tmp_path: Path) -> None:
    text = "# A *title*\r\n\r\n- [x] item\r\n\r\n| a | b |\r\n"
    document = written(tmp_path, text)
    assert document.text == text.replace("\r\n", "\n")
    assert document.title == "A title"


def test_headings_of_both_kinds(tmp_path: Path) -> None:
    text = "# One\n\na\n\n   ## Two ##\nb\n\nThree\n=====\n\nc\n\nFour\n---\nd\n\n###### Six\ne\n"
    document = written(tmp_path, text)
    assert labels(document) == ["One", "One › Two", "Three", "Three › Four"]
    starts = ["# One", "## Two ##", "Three\n=====", "Four\n---"]
    assert [
        document.text[s.start : s.end].startswith(start) for s, start in zip(document.sections, starts, strict=True)
    ]
    assert document.sections[-1].end == document.body[1]


def test_what_is_no_heading(tmp_path: Path) -> None:
    text = (
        "#no space\n\n    # indented code\n\n```sh\n# in a fence\n```\n\n~~~~\n# here\n~~~\n# and here\n~~~~\n\n"
        "``` inline ``` # text\n\n- item\n---\n\na long\nparagraph\n---\n\n***\n\n---\n\n"
        "| a |\n|---|\n\n####### seven\n\n#\n"
    )
    assert written(tmp_path, text).sections == ()


def test_open_fence_reaches_to_the_end(tmp_path: Path) -> None:
    assert labels(written(tmp_path, "# One\n\n```\n# two\n\n# three\n")) == ["One"]


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("**Bold** and `code`", "Bold and code"),
        ("[A link](https://example.org) and ![a picture](a.png)", "A link and a picture"),
        ("snake_case_name is _kept_", "snake_case_name is kept"),
        ("With an anchor {#anchor}", "With an anchor"),
        (r"A \* star and C\#", "A * star and C#"),
        ("C# and F#", "C# and F#"),
        ("***Very* bold** 2 * 3 * 4", "Very bold 2 * 3 * 4"),
        ("Closed ###", "Closed"),
    ],
)
def test_labels_are_without_marks(tmp_path: Path, marked: str, plain: str) -> None:
    assert labels(written(tmp_path, f"# {marked}\n\ntext\n")) == [plain]


def test_one_title_over_all_is_not_repeated(tmp_path: Path) -> None:
    text = "# The Guide\n\nintro\n\n## Install\n\na\n\n### Linux\n\nb\n\n## Use\n\nc\n"
    document = written(tmp_path, text)
    assert labels(document) == ["The Guide", "Install", "Install › Linux", "Use"]
    assert document.title == "The Guide"


@pytest.mark.parametrize(
    "front",
    [
        '---\ntitle: "The Guide"\nauthor: x\n---\n',
        "\ufeff---\r\nauthor: x\r\nTitle: The Guide\r\n...\r\n",
        "+++\ntitle = 'The Guide'\n+++\n",
    ],
)
def test_front_matter_is_outside_the_body(tmp_path: Path, front: str) -> None:
    document = written(tmp_path, f"{front}\nText.\n\n# One\n\nMore.\n")
    assert document.title == "The Guide"
    assert document.text[slice(*document.body)] == "Text.\n\n# One\n\nMore."
    assert labels(document) == ["One"]


def test_rules_are_no_front_matter(tmp_path: Path) -> None:
    document = written(tmp_path, "---\n\nSome prose here.\n\n---\n\nMore.\n")
    assert document.body == (0, len(document.text) - 1)
    assert written(tmp_path, "---\ntitle: never closed\n").body[0] == 0


def test_nothing_but_front_matter(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="behind its front matter"):
        written(tmp_path, "---\ntitle: x\n---\n\n")


def test_byte_order_mark_before_a_heading(tmp_path: Path) -> None:
    document = written(tmp_path, "\ufeff# One\n\ntext\n")
    assert labels(document) == ["One"]
    assert document.body[0] == document.sections[0].start == 1
