"""Plain text: the file's own characters, the book without its licence, and its chapters."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longfocus.errors import DocumentError
from longfocus.reading.documents import Document, load_document
from longfocus.reading.documents.decoding import encoding_of
from longfocus.reading.documents.headline import looks_like_title, parse_headline, roman_number

PROSE = "It was a fine day, and nobody knew what the evening would bring to the house by the river. " * 3
ROOT = Path(__file__).parents[2]
BOOKS = next(
    (p for p in (ROOT / "shared/data", ROOT.parent / "shared/data") if (p / "books/index.json").exists()), None
)


def written(folder: Path, text: str, name: str = "book.txt") -> Document:
    path = folder / name
    path.write_text(text, "utf-8")
    return load_document(path)


def labels(document: Document) -> list[str]:
    return [section.label for section in document.sections]


def book(*headings: str, prose: str = PROSE) -> str:
    return "\n\n\n".join(f"{heading}\n\n{prose}" for heading in headings) + "\n"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("Grüße – “Tag”\r\nzwei\rdrei\n".encode(), "utf-8"),
        ("\ufeffGrüße\r\n".encode(), "utf-8"),
        ("Grüße – “Tag”\r\n".encode("cp1252"), "cp1252"),
        ("Grüße".encode("latin-1") + b" \x81 and so on, in a longer text", "latin-1"),
        ("Grüße – 日本\r\n𝔘".encode("utf-16"), "utf-16"),
        (b"\xfe\xff" + "Grüße\r\nzwei".encode("utf-16-be"), "utf-16"),
        ("Grüße\r\nzwei".encode("utf-32"), "utf-32"),
    ],
)
def test_text_is_what_open_gives(tmp_path: Path, data: bytes, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert encoding_of(data) == encoding
    with path.open(encoding=encoding) as file:
        assert load_document(path).text == file.read()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=60))
def test_text_is_what_open_gives_for_any_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    try:
        document = load_document(path)
    except DocumentError:
        return
    with path.open(encoding=encoding_of(data)) as file:
        assert document.text == file.read()


def test_byte_order_mark_is_outside_the_body(tmp_path: Path) -> None:
    document = written(tmp_path, "\ufeff\n  Words.\n")
    assert document.text[slice(*document.body)] == "Words."


def test_broken_utf16_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfea\x00b")
    with pytest.raises(DocumentError, match="UTF-16"):
        load_document(tmp_path / "a.txt")


FRAMES = {
    "today": (
        "Title: A Long\n    Title\nAuthor: Nobody\n\n*** START OF THE PROJECT GUTENBERG EBOOK A LONG TITLE ***\n",
        "End of Project Gutenberg's A Long Title, by Nobody\n\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK A LONG TITLE ***\nLicence.\n",
    ),
    "broken over lines": (
        "Title: A Long Title\n\n*** START OF THIS PROJECT GUTENBERG EBOOK A LONG\nTITLE\n***\n",
        "End of the Project Gutenberg EBook of A Long\nTitle, by Nobody\n\n"
        "*** END OF THIS PROJECT GUTENBERG EBOOK A LONG\nTITLE\n***\nLicence.\n",
    ),
    "close stars": (
        "Title: A Long Title\n\n***START OF THE PROJECT GUTENBERG EBOOK A LONG TITLE***\n",
        "***END OF THE PROJECT GUTENBERG EBOOK A LONG TITLE***\nLicence.\n",
    ),
    "small print": (
        "Title: A Long Title\n\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy?\n"
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n",
        "End of the Project Gutenberg Etext of A Long Title\n",
    ),
    "copyrighted": (
        "Title: A Long Title\n*** START OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK A LONG TITLE ***\n",
        "*** END OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK A LONG TITLE ***\n",
    ),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_gutenberg_frame_is_outside_the_body(tmp_path: Path, frame: tuple[str, str]) -> None:
    story = f"CHAPTER I\n\n{PROSE * 5}\n\nCHAPTER II\n\n{PROSE * 5}"
    document = written(tmp_path, f"{frame[0]}\n\n{story}\n\n\n{frame[1]}")
    assert document.text[slice(*document.body)] == story.strip()
    assert document.title == "A Long Title"
    assert labels(document) == ["CHAPTER I", "CHAPTER II"]
    assert document.sections[-1].end == document.body[1]


def test_later_books_in_one_file_are_not_lost(tmp_path: Path) -> None:
    start, end = FRAMES["today"]
    document = written(tmp_path, (f"{start}\nOne.\n\n{end}" + f"{start}\nTwo.\n\n{end}"))
    assert document.text[slice(*document.body)].startswith("One.")
    assert document.text[slice(*document.body)].endswith("Two.")


def test_a_mention_of_gutenberg_is_no_frame(tmp_path: Path) -> None:
    text = f"{PROSE}\n\nTitle: no title\n\nThe *** START OF THE PROJECT GUTENBERG EBOOK line comes first.\n"
    document = written(tmp_path, text)
    assert document.text[slice(*document.body)] == text.strip()
    assert document.title == "book"


def test_title_is_the_first_line_or_the_file_name(tmp_path: Path) -> None:
    assert written(tmp_path, f"\nThe Lost Umbrella\n\n{PROSE}").title == "The Lost Umbrella"
    assert written(tmp_path, f"CHAPTER I\n\n{PROSE}", "my_story.txt").title == "my_story"
    assert written(tmp_path, f"He had lost his umbrella.\n\n{PROSE}").title == "book"


def test_chapters_run_from_heading_to_heading(tmp_path: Path) -> None:
    document = written(tmp_path, f"A Tale\n\n{PROSE}\n\n" + book("CHAPTER I", "Chapter 2. The Return", "CHAPTER THREE"))
    assert labels(document) == ["CHAPTER I", "Chapter 2. The Return", "CHAPTER THREE"]
    for section in document.sections:
        assert document.text[section.start : section.end].startswith(section.label)
    assert document.sections[0].start > document.body[0]
    assert document.sections[0].end == document.sections[1].start


@pytest.mark.parametrize(
    "headings",
    [
        ["CHAPTER I.", "CHAPTER II.", "CHAPTER III."],
        ["Chapter 1", "Chapter 2"],
        ["CHAPTER TWENTY-ONE", "CHAPTER TWENTY-TWO", "CHAPTER THIRTY"],
        ["Chapter the First", "Chapter the Second"],
        ["STAVE ONE", "STAVE TWO"],
        ["Letter 1", "Letter 2", "Chapter 1", "Chapter 2"],
        ["Chapter 12. The Title", "Chapter 13: Another", "Chapter 14 — A Third", "Chapter 15 Of Dogs and Men"],
        ["CHAPTER I. IN WHICH MR. FOGG ACCEPTS", "CHAPTER II. IN WHICH HE DOES NOT"],
        ["I", "II", "III"],
        ["I.", "II.", "III.", "IV."],
        ["I. The Arrival", "II. The Stay", "III. The Departure"],
        ["PREFACE", "CHAPTER I", "CHAPTER II", "EPILOGUE"],
        ["PROLOGUE", "I", "II", "CONCLUSION"],
        ["VOLUME I", "VOLUME II"],
    ],
)
def test_kinds_of_headings(tmp_path: Path, headings: list[str]) -> None:
    assert labels(written(tmp_path, book(*headings))) == headings


def test_title_under_a_bare_heading_joins_the_label(tmp_path: Path) -> None:
    text = book("CHAPTER I\n\nI Go to Styles", "CHAPTER II.\nTHE 16TH OF JULY.", "CHAPTER III\n\n\n_The  Night_\n\n")
    document = written(tmp_path, text)
    assert labels(document) == [
        "CHAPTER I — I Go to Styles",
        "CHAPTER II — THE 16TH OF JULY.",
        "CHAPTER III — The Night",
    ]
    assert document.text[document.sections[1].start :].startswith("CHAPTER II.")


def test_first_words_of_a_chapter_are_no_title(tmp_path: Path) -> None:
    text = "CHAPTER I\n\nHe ran.\n\n" + PROSE + "\n\nCHAPTER II\n\n“Who is there?”\n\n" + PROSE
    assert labels(written(tmp_path, text)) == ["CHAPTER I", "CHAPTER II"]


def test_headings_are_found_with_indent_and_ornament(tmp_path: Path) -> None:
    text = book("          _I_", "          _II_", "   == III ==")
    document = written(tmp_path, text)
    assert labels(document) == ["I", "II", "III"]
    assert all(document.text[section.start :].startswith(section.label) for section in document.sections)


def test_parts_name_their_chapters(tmp_path: Path) -> None:
    text = book("PART ONE\n\nCHAPTER I", "CHAPTER II", "PART TWO\n\nTHE CITY\n\nCHAPTER I", "CHAPTER II", "EPILOGUE")
    assert [label for label in labels(written(tmp_path, text)) if "CHAPTER" in label or "EPI" in label] == [
        "PART ONE › CHAPTER I",
        "PART ONE › CHAPTER II",
        "PART TWO — THE CITY › CHAPTER I",
        "PART TWO — THE CITY › CHAPTER II",
        "EPILOGUE",
    ]


def test_books_hold_parts_where_they_come_first(tmp_path: Path) -> None:
    text = book("BOOK III\n\nPART 1\n\nI", "II", "BOOK IV\n\nPART 1\n\nI", "II")
    assert labels(written(tmp_path, text))[2:4] == ["BOOK III › PART 1 › I", "BOOK III › PART 1 › II"]


def test_numerals_may_run_on_across_parts(tmp_path: Path) -> None:
    text = book("Book I\n\nI.", "II.", "Book II\n\nIII.", "IV.")
    assert [label for label in labels(written(tmp_path, text)) if "›" in label] == [
        "Book I › I.",
        "Book I › II.",
        "Book II › III.",
        "Book II › IV.",
    ]


def test_numerals_carry_on_the_numbers_of_chapters(tmp_path: Path) -> None:
    assert labels(written(tmp_path, book("Chapter XL", "XLI", "Chapter XLII"))) == ["Chapter XL", "XLI", "Chapter XLII"]


@pytest.mark.parametrize(
    "contents",
    [
        "\n".join(f"CHAPTER {n}. NAME" for n in ("I", "II", "III")),
        "\n\n".join(f"CHAPTER {n}" for n in ("I", "II", "III")),
        "\n\n".join(f"{n}.      THE NAME OF THIS CHAPTER          17" for n in ("I", "II", "III")),
        "\n\n".join(f"CHAPTER {n}\n\nOf what he saw on the way, and what came of it, 17" for n in ("I", "II", "III")),
        "PREFACE\n\nCHAPTER I\n\nCHAPTER II\n\nCHAPTER III",
    ],
)
@pytest.mark.parametrize("between", ["", "A motto, by somebody\n\n"])
def test_table_of_contents_is_no_chapter(tmp_path: Path, contents: str, between: str) -> None:
    body = book("CHAPTER I", "CHAPTER II", "CHAPTER III")
    document = written(tmp_path, f"The Tale\n\nContents\n\n{contents}\n\n{between}{body}")
    assert labels(document) == ["CHAPTER I", "CHAPTER II", "CHAPTER III"]
    assert document.sections[0].start == document.text.index(body[:60])


def test_part_and_chapter_on_neighbouring_lines(tmp_path: Path) -> None:
    document = written(tmp_path, book("PART ONE\nCHAPTER I", "CHAPTER II\nConclusion", "PART TWO\nCHAPTER I"))
    assert [label for label in labels(document) if "›" in label] == [
        "PART ONE › CHAPTER I",
        "PART ONE › CHAPTER II — Conclusion",
        "PART TWO › CHAPTER I",
    ]


def test_very_short_chapters_are_chapters(tmp_path: Path) -> None:
    text = "CHAPTER I\n\nHe came here.\n\nCHAPTER II\n\nHe saw it all.\n\nCHAPTER III\n\nHe won it all.\n"
    assert labels(written(tmp_path, text)) == ["CHAPTER I", "CHAPTER II", "CHAPTER III"]


@pytest.mark.parametrize(
    "text",
    [
        f"Part of the plan\n\n{PROSE}\n\nChapter and verse\n\n{PROSE}",
        f"Part two of the plan\n\n{PROSE}\n\nBook me a room.\n\n{PROSE}",
        f"{PROSE}\nCHAPTER I\n{PROSE}\nCHAPTER II\n{PROSE}",
        f"chapter 1\n\n{PROSE}\n\nchapter 2\n\n{PROSE}",
        f"I\n\n{PROSE}\n\nMIX\n\n{PROSE}",
        f"I nodded.\n\n{PROSE}\n\nI laughed\n\n{PROSE}",
        f"IV\n\n{PROSE}\n\nIX\n\n{PROSE}",
        "\n\n".join(f"{n}\n\n{PROSE * 4}" for n in range(1, 9)),
        "\n\n".join(f"{n}. Item" for n in ("I", "II", "III")) + f"\n\n{PROSE}",
        f"PREFACE\n\n{PROSE}\n\nTHE FIRST STORY\n\n{PROSE}",
        f"CHAPTER I opens with a storm that nobody had seen coming, and then\ngoes on\n\n{PROSE}",
    ],
)
def test_what_only_looks_like_a_heading_is_none(tmp_path: Path, text: str) -> None:
    assert written(tmp_path, text).sections == ()


def test_numbers_far_apart_are_chapters(tmp_path: Path) -> None:
    assert labels(written(tmp_path, book("1", "2", "3", prose=PROSE * 15))) == ["1", "2", "3"]


def test_stanzas_inside_a_chapter_are_no_chapters(tmp_path: Path) -> None:
    poem = "\n\n".join(f"{n}\n\nA line of verse\nAnd another" for n in ("I", "II", "III"))
    assert labels(written(tmp_path, book("CHAPTER ONE", prose=f"{PROSE}\n\n{poem}\n\n{PROSE}"))) == ["CHAPTER ONE"]


def test_a_long_text_without_a_line_end_is_quick(tmp_path: Path) -> None:
    document = written(tmp_path, "CHAPTER I " * 200_000 + "*** " * 200_000)
    assert document.sections == ()


def test_roman_numbers() -> None:
    known = {"I": 1, "IV": 4, "IX": 9, "XIV": 14, "XL": 40, "XLIX": 49, "LXXXVI": 86, "XCIX": 99, "CCCXCIX": 399}
    assert {text: roman_number(text) for text in known} == known
    assert [roman_number(text) for text in ("", "IIII", "IC", "VX", "i", "CIVIL", "LIL")] == [None] * 7


@pytest.mark.parametrize(
    ("line", "kind", "number"),
    [
        ("CHAPTER XII", "chapter", 12),
        ("Chap. 7", "chapter", 7),
        ("PART THE FIRST", "part", 1),
        ("The Second Part", "part", 2),
        ("BOOK FORTY TWO", "part", 42),
        ("Volume Twenty-First", "part", 21),
        ("AUTHOR'S PREFACE", "front", None),
        ("APPENDIX B", "back", None),
        ("XXI The Departure", "numeral", 21),
    ],
)
def test_headlines(line: str, kind: str, number: int | None) -> None:
    head = parse_headline(line)
    assert head is not None
    assert (head.kind, head.number) == (kind, number)


@pytest.mark.parametrize(
    "line", ["", "***", "Chapter", "Chapter One's end", "Part I’ve seen", "Chapter 1234", "Act now"]
)
def test_no_headlines(line: str) -> None:
    assert parse_headline(line) is None


def test_titles() -> None:
    assert all(map(looks_like_title, ["I Go to Styles", "THE TRIAL.", "“IS IT?”", "The Man with the Twisted Lip"]))
    assert not any(map(looks_like_title, ["", "...", "He ran.", "“Who?” he said", "Then he went away", "A title:"]))


@pytest.mark.skipif(BOOKS is None, reason="the shared folder of books is not here")
def test_real_books() -> None:
    assert BOOKS is not None
    index = json.loads((BOOKS / "books/index.json").read_text("utf-8"))
    assert len(index) >= 33
    chapters = {}
    for entry in index:
        path = BOOKS / entry["file"]
        document = load_document(path)
        with gzip.open(path, "rt", encoding="utf-8") as file:
            assert document.text == file.read()
        assert 0 <= document.body[0] - entry["body_start"] <= 10
        assert 0 <= entry["body_end"] - document.body[1] <= 12
        for part in (
            document.text[entry["body_start"] : document.body[0]],
            document.text[document.body[1] : entry["body_end"]],
        ):
            assert not part.strip()
        assert document.title.startswith(entry["title"])
        for section in document.sections:
            heading = section.label.split(" › ")[-1].split(" — ")[0]
            assert " ".join(document.text[section.start : section.end].split()).startswith(heading)
        chapters[entry["gutenberg_id"]] = sum(section.end - section.start > 500 for section in document.sections)
    known = "35:17 41:1 47:30 51:41 77:23 78:28 105:24 174:21 215:7 369:19 498:31 541:34 605:16 720:12 863:13 1063:0"
    known += " 1074:39 1300:23 1661:14 2084:87 2347:0 2349:0 2500:2 2852:15 3475:28 3782:17 4217:5 4709:34 10002:27"
    known += " 13152:51 16517:12 19145:18 39229:17"
    assert " ".join(f"{number}:{count}" for number, count in sorted(chapters.items())) == known
