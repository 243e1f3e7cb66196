"""Whether a document is still what a Book of its name was read from.

A Book on the shelf goes by the name of its document, so a file that was changed, or another one of that name, would be
answered for from a text that is not its own. The text tells; and since taking a PDF apart may take minutes, the hash of
the file itself is noted beside the Book when it is read, and asked first.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from longfocus.errors import BookError
from longfocus.loading.cache import sha256_of
from longfocus.memory.layout import ORIGIN, parse_manifest, read_json, replace_file
from longfocus.memory.library import find_book


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file as hexadecimal digits; empty where it cannot be read."""
    try:
        return sha256_of(Path(path))
    except (OSError, ValueError):
        return ""


def note_origin(folder: Path, digest: str) -> None:
    """Note from which file, by its hash, a Book was read; in a folder that cannot be written to nothing is noted."""
    if digest and _noted(folder) != digest:
        try:
            replace_file(folder / ORIGIN, json.dumps({"sha256": digest}).encode())
        except OSError:
            return


def book_of(name: str | Path) -> Path:
    """As `find_book`; of a document, only a Book that was read from what now stands in its file.

    Raises:
        BookError: There is no such Book, or the document is not the one that it was read from.
        DocumentError: The document cannot be read.
    """
    folder, path = find_book(name), Path(name)
    if os.path.isfile(path):  # only a document's name leads to a file
        _check(folder, path)
    return folder


def _check(folder: Path, path: Path) -> None:
    digest = file_hash(path)
    if digest and digest == _noted(folder):
        return
    from longfocus.reading.documents import load_document, suffix_of

    if not suffix_of(path.name):  # a file that only happens to be called as a Book is on the shelf
        return
    manifest = parse_manifest(folder)
    if load_document(path).sha256 != manifest.text_sha256:
        raise BookError(
            f"{path} is not what {folder} was read from ({manifest.title!r}): it was changed, or is another document "
            f"of that name; `longfocus read {path} --out FOLDER` reads it, and the Book is asked as {folder}"
        )
    note_origin(folder, digest)


def _noted(folder: Path) -> object:
    try:
        return read_json(folder, ORIGIN).get("sha256")
    except BookError:
        return None
