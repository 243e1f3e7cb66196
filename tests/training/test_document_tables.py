"""Tables of documents: the rows of a dataset, and one line where there is none."""

import sys

import datasets
import pytest

from longfocus.errors import DocumentError, RequestError
from longfocus.training.document_files import open_documents
from longfocus.training.document_tables import TableDocuments, hub_documents

TEXTS = ["The first.\nOf two lines.", "Zweiter: äöü 🦊", "", "  the last "]


@pytest.fixture(autouse=True)
def tables_in_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def written(path):
    table = {"text": TEXTS, "key": [f"k{n}" for n in range(len(TEXTS))]}
    datasets.Dataset.from_dict(table).to_parquet(str(path))
    return path


def test_tables_are_single_splits_with_the_columns_asked_for():
    table = datasets.Dataset.from_dict({"body": TEXTS, "n": [1, 2, 3, 4]})
    assert [document.text for document in TableDocuments(table, "mine", text="body")] == TEXTS
    assert [document.id for document in TableDocuments(table, "mine", text="body", id="n")] == ["1", "2", "3", "4"]
    with pytest.raises(RequestError, match="mine has no column 'text'; it has 'body', 'n'"):
        TableDocuments(table, "mine")
    with pytest.raises(DocumentError, match="row 0 of mine: 'n' is int; wanted text"):
        TableDocuments(table, "mine", text="n")[0]
    for other in (datasets.DatasetDict({"train": table}), table.to_iterable_dataset(), [1]):
        with pytest.raises(RequestError, match="wanted one split of a dataset, loaded without streaming"):
            TableDocuments(other, "mine", text="body")


def test_a_dataset_by_name_comes_through_the_library(tmp_path):
    written(tmp_path / "train.parquet")
    found = hub_documents(str(tmp_path), "train", id="key")
    assert [document.text for document in found] == TEXTS
    with pytest.raises(DocumentError, match="Cannot load the dataset nobody/nothing: "):
        hub_documents("nobody/nothing", "train")


def test_without_the_library_tables_are_refused_in_one_line(tmp_path, monkeypatch):
    path = written(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RequestError, match=r"pip install 'longfocus\[train\]'"):
        open_documents(path)
    with pytest.raises(RequestError, match=r"pip install 'longfocus\[train\]'"):
        hub_documents("some/name", "train")
