"""Where models live on this machine, and how a folder comes to be there whole or not at all.

A folder is filled under a temporary name beside its final one, written through to the disk, and only then renamed.
A process that is killed on the way leaves a hidden temporary folder, which nobody takes for a model and which the
next build of the same folder removes. A lock file makes the second of two processes wait for the first one's work.
A record in the folder (`source.json`) says where its files came from and lets later damage be noticed.

What is put into the folder is the caller's business.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

CACHE_VARIABLE = "LONGFOCUS_CACHE"
RECORD = "source.json"
_PARTIAL = ".partial"
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust tell of a full disk, in errors of their own."""


def cache_dir() -> Path:
    """The folder for everything that can be fetched or made again; `LONGFOCUS_CACHE` moves it."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else Path(user_cache_dir("longfocus", appauthor=False))


def models_dir() -> Path:
    """The folder that holds one folder for each model."""
    return cache_dir() / "models"


def build_once(
    target: Path,
    fill: Callable[[Path], None],
    is_complete: Callable[[Path], bool] = Path.is_dir,
    on_wait: Callable[[], None] | None = None,
) -> Path:
    """Return `target`, made by `fill(temporary_folder)` unless `is_complete(target)` says it is there already.

    A folder that is there but not complete is replaced. When another process is building the same folder,
    `on_wait` is called once, and its result is used if it is complete. An error in `fill` leaves everything
    as it was; what the system refused is an OSError, whichever library it came through.
    """
    if is_complete(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target rather than in the cache: processes with different caches may share the target.
    lock_path = target.with_name(f".{target.name}.lock")
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait is not None:
            on_wait()
        lock.acquire()
    try:
        if not is_complete(target):
            _remove_partials(target)
            _build(target, fill)
    finally:
        # Taken away while still held, so that none is left about: whoever waits on it looks at the target again.
        if os.name == "posix":
            lock_path.unlink(missing_ok=True)
        lock.release()
    return target


def record_source(folder: Path, origin: str) -> None:
    """Write the record of a filled `folder`: where its files came from, and by what to know them again."""
    files = {
        path.relative_to(folder).as_posix(): {**_stamp(path), "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RECORD
    }
    (folder / RECORD).write_text(json.dumps({"origin": origin, "files": files}, indent=2) + "\n", encoding="utf-8")


def is_intact(folder: Path) -> bool:
    """Whether every file in the record of `folder` is there and unchanged.

    A file of the recorded size and time of change is believed; one of another time (a copied cache) is read
    through, and one of another size is damaged. So the usual answer costs no reading.
    """
    try:
        files = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
        return bool(files) and all(_is_unchanged(folder / name, known) for name, known in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def write_json(path: Path, contents: Mapping[str, object]) -> None:
    """Write a small file, whole or not at all, whoever else writes it at the same time.

    Raises:
        OSError: It cannot be written; a file that was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        temporary.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_unchanged(path: Path, known: dict[str, object]) -> bool:
    stamp = _stamp(path)
    if stamp["bytes"] != known["bytes"]:
        return False
    return stamp["mtime_ns"] == known["mtime_ns"] or sha256_of(path) == known["sha256"]


def _build(target: Path, fill: Callable[[Path], None]) -> None:
    temporary = _partial_name(target)
    temporary.mkdir()
    try:
        fill(temporary)
        _write_through(temporary)
        if target.exists() or target.is_symlink():
            # A folder cannot be renamed onto one that holds files. Killed between the two renames, the target is
            # missing and the old one has a partial's name: the next process builds anew.
            retired = _partial_name(target)
            os.rename(target, retired)
            os.rename(temporary, target)
            _remove(retired)
        else:
            os.rename(temporary, target)
        _sync(target.parent)
    except BaseException as error:
        _remove(temporary)
        number = _SYSTEM_ERROR.search(str(error))
        if isinstance(error, Exception) and not isinstance(error, OSError) and number:
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise


def _partial_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}{_PARTIAL}")


def _remove_partials(target: Path) -> None:
    """Remove what killed builds of `target` left; called with the lock held, so none of them is at work."""
    prefix = f".{target.name}."
    for entry in target.parent.iterdir():
        middle = entry.name.removeprefix(prefix).removesuffix(_PARTIAL)
        # The whole name must match: "model" must not remove the partials of a neighbour called "model.v2".
        if len(middle) == 12 and entry.name == f"{prefix}{middle}{_PARTIAL}":
            _remove(entry)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write_through(folder: Path) -> None:
    for directory, _, names in os.walk(folder):
        for name in names:
            _sync(Path(directory, name))
        _sync(Path(directory))


def _sync(path: Path) -> None:
    """Ask the system to put a file or a folder's list of names on the disk, where it can (Windows cannot)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
