"""From what a user calls a model to the folder that it lies in.

A name is nothing (the default model), a short name of the catalogue, a folder, a GGUF file, or a name on the Hugging
Face hub. What is on this machine under that name comes first. What has to be fetched or converted is, once.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from longfocus.errors import CheckpointError, RequestError
from longfocus.loading.cache import CACHE_VARIABLE, build_once, is_intact, models_dir, record_source
from longfocus.loading.catalogue import MODEL_TABLE
from longfocus.loading.default_model import DEFAULT_MODEL, default_model_dir
from longfocus.loading.fingerprint import known_sha256

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_CONVERSION = 1
"""Raised when a GGUF file is converted differently, so that folders made before are made anew."""
_GGUF_TYPES = {0: "float32", 1: "float16"}  # general.file_type; all others are quantised, or bfloat16 already


@dataclass(frozen=True)
class Whereabouts:
    """Where a model is on this machine."""

    name: str
    """Finds the same model again."""
    folder: Path


def find(name: str | Path | None, revision: str | None, say: Callable[[str], None]) -> Whereabouts:
    """Find the model called `name`, and fetch or convert it where that has to be done first.

    Args:
        name: See the module; a `Path` never means the hub.
        revision: Of a model on the hub; may also stand behind its name, as `@revision`.
        say: Told in a sentence what takes long.

    Raises:
        CheckpointError: There is none, or it cannot be had.
        RequestError: A revision of something that has none.
    """
    if name is None or name == DEFAULT_MODEL:
        _without_revision(DEFAULT_MODEL, revision)
        return Whereabouts(DEFAULT_MODEL, default_model_dir(say))
    path = Path(name).expanduser()
    if path.is_dir():
        _without_revision(name, revision)
        return Whereabouts(str(path.absolute()), path.absolute())
    if path.suffix.lower() == ".gguf":
        _without_revision(name, revision)
        return Whereabouts(str(path.absolute()), _converted(path.absolute(), say))
    if path.exists():
        raise CheckpointError(f"{path} is a file; wanted a folder with a model, or a .gguf file.")
    called, _, behind = str(name).partition("@")
    repo = next((entry.repo for entry in MODEL_TABLE if entry.name == called), called)
    if isinstance(name, Path) or not _HUB_NAME.fullmatch(repo):
        raise CheckpointError(
            f"There is no model {str(name)!r}; wanted a folder, a .gguf file, a name on the Hugging Face hub "
            "(owner/name), or one of those that `longfocus models` lists."
        )
    from longfocus.loading.hub import fetch

    revision = revision or behind or None
    return Whereabouts(f"{repo}@{revision}" if revision else repo, fetch(repo, revision, say))


def _without_revision(name: object, revision: str | None) -> None:
    if revision is not None:
        raise RequestError(f"A revision belongs to a model on the Hugging Face hub, and {name} is none.")


def _converted(path: Path, say: Callable[[str], None]) -> Path:
    """The folder in the cache that the GGUF file at `path` was converted to, by now or before.

    It is known by the file's content, so a file that was moved is not converted again.
    """
    from longfocus.loading.gguf import write_model
    from longfocus.loading.gguf_header import read_header

    try:
        digest = known_sha256(path, say)
    except OSError as error:
        raise CheckpointError(f"Cannot read the GGUF file {path}: {error.strerror or error}.") from error

    def fill(folder: Path) -> None:
        header = read_header(path)
        say(f"Converting {path.name} (once).")
        kind = header.values.get("general.file_type")
        write_model(header, folder, _GGUF_TYPES.get(kind, "bfloat16") if isinstance(kind, int) else "bfloat16")
        record_source(folder, f"gguf:{path.name}@{digest}")

    target = models_dir() / f"gguf-{digest[:20]}-{_CONVERSION}"
    try:
        return build_once(
            target,
            fill,
            is_complete=is_intact,
            on_wait=lambda: say(f"Another process is converting {path.name}; waiting for it."),
        )
    except OSError as error:
        raise CheckpointError(
            f"Cannot keep the converted model in {target.parent}: {error.strerror or error}. "
            f"Set {CACHE_VARIABLE} to a folder with room that can be written to."
        ) from error
