"""Whether a Book's files are what its records say: sizes always, contents once.

The large files are read through once after they changed; size, time and identity of each are then noted, so that the
next opening costs nothing.
"""

import json
import os
import stat
import zlib
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

from longfocus.errors import READ_ANEW, BookError
from longfocus.memory.layout import (
    PROGRESS,
    TEXT,
    TOKENS,
    VERIFIED,
    Manifest,
    Progress,
    checksum,
    layer_files,
    read_bytes,
    replace_file,
)

_LARGEST_TEXT = 4 * 2**30
_BLOCK = 4 * 2**20


def check_files(folder: Path, manifest: Manifest, progress: Progress) -> None:
    """Check every file of a Book against its records.

    Raises:
        BookError: A file is missing, too short or changed.
    """
    names = [name for layer in manifest.reading.memory_layers for name in layer_files(layer)]
    length = progress.entries * manifest.reading.entry_bytes
    for name in names:
        found = _facts(folder, name)["size"]
        if found < length:
            raise BookError(f"{folder / name} has {found} bytes, expected {length}: it was cut short; {READ_ANEW}")
    if _noted(folder) == _all_facts(folder, manifest, progress):
        return
    for name, wanted in ((TEXT, manifest.text_sha256), (TOKENS, manifest.tokens_sha256)):
        if sha256(read_bytes(folder, name, _LARGEST_TEXT)).hexdigest() != wanted:
            raise BookError(f"{folder / name} was changed after it was written; {READ_ANEW}")
    for name, sum_wanted in progress.state_files.items():
        if checksum(read_bytes(folder, name, _LARGEST_TEXT)) != sum_wanted:
            raise BookError(f"{folder / name} was changed after it was written; {READ_ANEW}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sums = pool.map(lambda name: _sum_of_file(folder / name, length), names)
        for name, found in zip(names, sums, strict=True):
            if found != progress.checksums[name]:
                raise BookError(f"{folder / name} is damaged: its checksum is wrong; {READ_ANEW}")
    if progress.tokens == manifest.tokens:
        note_verified(folder, manifest)


def note_verified(folder: Path, manifest: Manifest) -> None:
    """Note that the files are as they should be; in a folder that cannot be written to they are checked each time."""
    try:
        progress = Progress(**json.loads((folder / PROGRESS).read_bytes()))
        replace_file(folder / VERIFIED, json.dumps(_all_facts(folder, manifest, progress)).encode())
    except OSError:
        return


def _noted(folder: Path) -> Any:
    try:
        return json.loads(read_bytes(folder, VERIFIED, 2**20))
    except (BookError, ValueError, RecursionError):
        return None


def _all_facts(folder: Path, manifest: Manifest, progress: Progress) -> dict[str, Any]:
    names = [TEXT, TOKENS, PROGRESS, *progress.state_files]
    names += [name for layer in manifest.reading.memory_layers for name in layer_files(layer)]
    return {name: _facts(folder, name) for name in names}


def _facts(folder: Path, name: str) -> dict[str, int]:
    try:
        found = os.lstat(folder / name)
    except OSError:
        raise BookError(f"{folder} is no complete Book: {name} is missing; {READ_ANEW}") from None
    if not stat.S_ISREG(found.st_mode):
        raise BookError(f"{folder / name} is no plain file; this is not a Book that longfocus wrote")
    return {"size": found.st_size, "changed": found.st_mtime_ns, "identity": found.st_ino}


def _sum_of_file(path: Path, length: int) -> int:
    found = 0
    with open(path, "rb") as file:
        while length > 0:
            block = file.read(min(_BLOCK, length))
            if not block:
                break
            found = zlib.crc32(block, found)
            length -= len(block)
    return found
