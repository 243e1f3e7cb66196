"""Files of documents: every form of file gives the same texts, and what is wrong with one is one line."""

import copy
import gzip
import json

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.errors import DocumentError
from longfocus.training.document_files import JsonLines, open_documents

TEXTS = ["The first.\nOf two lines.", "Zweiter: äöü 🦊", "", "  the last "]


@pytest.fixture(autouse=True)
def tables_in_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def lines_of(texts, field="text"):
    return "".join(json.dumps({field: text, "key": f"k{n}"}) + "\n" for n, text in enumerate(texts)).encode()


def written(path, texts):
    """The texts in the form that the path's suffix says."""
    if path.suffix == ".parquet":
        datasets.Dataset.from_dict({"text": texts, "key": [f"k{n}" for n in range(len(texts))]}).to_parquet(str(path))
    else:
        data = lines_of(texts)
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json.gz", "a.parquet", "UPPER.JSONL"])
def test_records_of_every_form_are_the_texts(name, tmp_path):
    path = written(tmp_path / name, TEXTS)
    found = open_documents(path, id="key")
    assert [(document.text, document.id) for document in found] == [(text, f"k{n}") for n, text in enumerate(TEXTS)]
    assert found[2].text == TEXTS[2]  # any of them, in any order
    assert found[0].text == TEXTS[0]
    first = 0 if path.suffix == ".parquet" else 1  # rows are counted from 0, lines from 1
    numbered = open_documents(path)
    assert numbered[3].id.rpartition(":")[2] == str(3 + first)


def test_lines_keep_their_numbers_where_some_are_blank(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"text": "one"}\r\n  \n{"text": "two"}')
    assert [(document.text, document.id) for document in open_documents(path)] == [
        ("one", "a.jsonl:2"),
        ("two", "a.jsonl:4"),
    ]


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=8), st.booleans())
def test_any_text_comes_back_from_lines(tmp_path_factory, texts, packed):
    path = tmp_path_factory.mktemp("lines") / ("a.jsonl.gz" if packed else "a.jsonl")
    data = "\n".join(json.dumps({"text": text}, ensure_ascii=True) for text in texts).encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    assert [document.text for document in open_documents(path)] == texts


def test_a_folder_is_all_its_files_in_the_order_of_their_names(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_text("in b", encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("in ä".encode()))
    written(tmp_path / "c.jsonl", ["x", "y"])
    (tmp_path / "README.md").write_text("not a document")
    found = list(open_documents(tmp_path))
    assert [document.text for document in found] == ["in ä", "x", "y", "in b"]
    assert [document.id for document in found] == ["a.txt.gz", "c.jsonl:1", "c.jsonl:2", "deep/b.txt"]
    assert [document.id for document in open_documents(tmp_path, pattern="*.gz")] == ["a.txt.gz"]


def test_an_unpacked_file_is_mapped_anew_in_a_copy(tmp_path):
    """As in a worker process that gets a copy of the collection."""
    found = open_documents(written(tmp_path / "a.jsonl.gz", TEXTS))
    other = copy.deepcopy(found)
    assert [document.text for document in other] == [document.text for document in found] == TEXTS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": ', "line 2 of .*a.jsonl: it is no JSON"),
        ("a.jsonl", b'{"text": "x"}\n["text"]', "line 2 of .*wanted a JSON object with the field 'text'"),
        ("a.jsonl", b'{"body": "x"}', "line 1 of .*has no 'text'; it has 'body'"),
        ("a.jsonl", b'{"text": 3}', "'text' is int; wanted text"),
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b'{"text": "\xff"}', "line 1 of .*it is no JSON"),
        ("a.jsonl.gz", b"not gzip at all", "a.jsonl.gz: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(lines_of(TEXTS))[:-9], "a.jsonl.gz: Compressed file ended"),
        ("a.txt", b"\xff\xfe", "it is not UTF-8 .byte 0.. Convert it"),
        ("a.parquet", b"PAR1 is not all", "Cannot load .*a.parquet: "),
        ("a.docx", b"x", "wanted .txt, "),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(name, data, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DocumentError, match=message) as caught:
        list(open_documents(path))
    assert "\n" not in str(caught.value)


def test_nothing_to_read(tmp_path):
    with pytest.raises(DocumentError, match="no such file or folder"):
        open_documents(tmp_path / "missing.jsonl")
    with pytest.raises(DocumentError, match="or a folder with such files"):
        open_documents(tmp_path)


def test_json_lines_hold_places_and_no_texts(tmp_path):
    path = written(tmp_path / "a.jsonl", ["x" * 100_000] * 20)
    found = JsonLines(path, "a")
    assert len(found) == 20
    assert sum(value.nbytes for value in vars(found).values() if hasattr(value, "nbytes")) < 1000
