"""Where Books are kept when nobody says otherwise, and how a name on the command line becomes a Book's folder."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from longfocus.errors import BookError
from longfocus.memory.layout import MANIFEST, parse_manifest, parse_progress

BOOKS_VARIABLE = "LONGFOCUS_BOOKS"
"""Environment variable that names another folder for Books."""
_ENDING = ".book"


def books_dir() -> Path:
    """The shelf: the folder in which Books are kept."""
    return Path(os.environ.get(BOOKS_VARIABLE) or Path(platformdirs.user_data_dir("longfocus"), "books"))


def shelf_folder(name: str | Path) -> Path:
    """Where on the shelf the Book of a document of this name goes."""
    stem = Path(name).name.removesuffix(".gz").removesuffix(_ENDING)
    stem = re.sub(r"\.(txt|text|md|markdown|html?|xhtml|epub|pdf)$", "", stem, flags=re.IGNORECASE)
    # a name of signs alone leaves nothing, and a folder that is all ending would be hidden
    return books_dir() / ((re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "document") + _ENDING)


def find_book(name: str | Path) -> Path:
    """The folder of a Book, named by its folder, by the document it was read from, or as `longfocus books` lists it.

    Raises:
        BookError: There is no such Book.
    """
    path = Path(name)
    # asked this way, a name that no file can have is one that is not there
    if os.path.exists(path / MANIFEST):
        return path
    on_shelf = shelf_folder(path)
    if os.path.exists(on_shelf / MANIFEST):
        return on_shelf
    if os.path.isfile(path):
        raise BookError(f"{path} has not been read yet; `longfocus read {path}` reads it")
    if os.path.isdir(path):
        raise BookError(f"{path} is no Book: it has no {MANIFEST}; `longfocus read` makes one")
    raise BookError(f"no Book {str(name)!r}: neither a folder here nor one of those that `longfocus books` lists")


@dataclass(frozen=True)
class Listed:
    """A Book on the shelf.

    Attributes:
        name: What to call it on the command line.
        folder: Where it lies.
        title: The document's title; for a folder that cannot be read, what is wrong with it.
        model: The model that read it; empty where it cannot be read.
        tokens: Tokens to read.
        done: Tokens read.
        bytes: On the disk.
    """

    name: str
    folder: Path
    title: str
    model: str
    tokens: int
    done: int
    bytes: int


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file in a Book's folder, by name; a file that reading removes meanwhile is left out.

    Raises:
        BookError: The folder cannot be read.
    """
    sizes = {}
    try:
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                sizes[name] = os.lstat(folder / name).st_size
    except OSError as error:
        raise BookError(f"cannot read {folder}: {error.strerror}") from None
    return sizes


def list_books() -> Iterator[Listed]:
    """The Books on the shelf, by name; damaged ones are listed with what is wrong.

    Raises:
        BookError: The shelf cannot be read.
    """
    shelf = books_dir()
    try:
        folders = sorted(shelf / name for name in os.listdir(shelf) if name.endswith(_ENDING))
    except FileNotFoundError:
        return
    except OSError as error:
        raise BookError(f"cannot read {shelf}: {error.strerror}") from None
    for folder in folders:
        name, size = folder.name.removesuffix(_ENDING), 0
        try:
            size = sum(file_sizes(folder).values())
            manifest = parse_manifest(folder)
            progress = parse_progress(folder, manifest)
        except BookError as error:
            yield Listed(name, folder, str(error), "", 0, 0, size)
            continue
        yield Listed(name, folder, manifest.title, manifest.reading.model, manifest.tokens, progress.tokens, size)
