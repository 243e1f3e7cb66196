"""Documents to train on in tables: datasets of the `datasets` library, from the hub, and parquet files.

The library is in the optional extra `train`. It maps its tables from Arrow files, so rows are not held in memory.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from longfocus.errors import DocumentError, RequestError
from longfocus.loading.hub_quiet import hub_quiet
from longfocus.training.documents import Documents, TrainingDocument, document_of_record


class TableDocuments(Documents):
    """The rows of a `datasets.Dataset`.

    Args:
        table: The dataset; one split of it, not streamed.
        name: What it is called in messages, and in ids where no column holds them.
        text: The column with the text.
        id: The column with the id; None numbers the rows, "name:12" being the row 12 (from 0).

    Raises:
        RequestError: It is no such dataset, or lacks the columns.
    """

    def __init__(self, table: Any, name: str, text: str = "text", id: str | None = None) -> None:
        columns = getattr(table, "column_names", None)
        if not isinstance(columns, list) or not hasattr(table, "__len__"):
            kind = type(table).__name__
            raise RequestError(f"{name} is a {kind}; wanted one split of a dataset, loaded without streaming.")
        wanted = [column for column in (text, id) if column is not None]
        for column in wanted:
            if column not in columns:
                raise RequestError(f"{name} has no column {column!r}; it has {', '.join(map(repr, columns))}.")
        self._table, self._name, self._text, self._id = table.select_columns(wanted), name, text, id

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> TrainingDocument:
        where = f"row {index} of {self._name}"
        return document_of_record(self._table[int(index)], where, f"{self._name}:{index}", self._text, self._id)


def hub_documents(
    name: str,
    split: str,
    *,
    subset: str | None = None,
    revision: str | None = None,
    text: str = "text",
    id: str | None = None,
) -> Documents:
    """The documents of a dataset on the Hugging Face hub, or in its cache; fetched whole.

    Raises:
        RequestError: The `datasets` library is not installed, or the columns are others.
        DocumentError: The dataset cannot be loaded.
    """
    library = _datasets()
    with _table_told(library, f"the dataset {name}"):
        table = library.load_dataset(name, subset, split=split, revision=revision)
    return TableDocuments(table, name, text, id)


def parquet_documents(path: Path, name: str, text: str = "text", id: str | None = None) -> Documents:
    """The rows of a parquet file, by way of the library's cache on disk, from which any row is at hand at once.

    Raises:
        RequestError: The `datasets` library is not installed, or the columns are others.
        DocumentError: The file cannot be read.
    """
    library = _datasets()
    with _table_told(library, str(path)):
        table = library.Dataset.from_parquet(str(path))
    return TableDocuments(table, name, text, id)


def _datasets() -> Any:
    """The `datasets` library."""
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise RequestError("Tables need the datasets library: pip install 'longfocus[train]'") from error


@contextlib.contextmanager
def _table_told(library: Any, what: str) -> Iterator[None]:
    """Without the library's bars, and with what goes wrong as one line."""
    bars = not library.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        with hub_quiet():
            yield
    except Exception as error:  # the library raises what its many readers raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DocumentError(f"Cannot load {what}: {reason}") from error
    finally:
        if bars:
            library.enable_progress_bars()
