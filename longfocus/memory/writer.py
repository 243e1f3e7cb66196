"""Writing a Book, window by window, so that it is valid whenever the process is stopped.

Order within a step: entries are appended to the layers' files, then the window and what is left for later are written,
then the progress record is replaced. What a record does not count is cut off when reading goes on.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save
from torch import Tensor

from longfocus.errors import BookError
from longfocus.memory.layout import (
    LOCK,
    MANIFEST,
    PROGRESS,
    TEXT,
    TOKENS,
    Manifest,
    Progress,
    checksum,
    is_begun,
    late_file,
    layer_files,
    parse_manifest,
    parse_progress,
    replace_file,
    window_file,
    write_anew,
)
from longfocus.memory.verify import check_files, note_verified


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in order, whatever its dtype; at least one."""
    flat: Any = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    return memoryview(flat).cast("B")


class BookWriter:
    """Holds a Book folder open for writing; a second writer is refused.

    Use as a context manager. `progress` tells where reading stands.
    """

    def __init__(self, folder: Path, manifest: Manifest, lock: FileLock, progress: Progress) -> None:
        self.folder = folder
        self.manifest = manifest
        self.progress = progress
        self._lock = lock
        self._files: dict[str, BinaryIO] = {}

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, text: str, tokens: Mapping[str, Tensor]) -> BookWriter:
        """Start a Book or go on with one.

        Args:
            folder: Made if it is not there.
            manifest: What is to be read; a Book that is there must have the same.
            text: The document's text.
            tokens: "ids", "starts" and "ends", each [tokens].

        Raises:
            BookError: The folder holds something else, is being read by another process, or is damaged.
        """
        try:
            held = set(os.listdir(folder)) if folder.exists() else set()
            if held and MANIFEST not in held and not is_begun(held):
                raise BookError(f"{folder} holds something that is no Book; choose another folder")
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / LOCK, thread_local=False)  # who calls a reading off may close it in his thread
            lock.acquire(timeout=0)
        except Timeout:
            raise BookError(f"{folder} is being read by another process; wait for it or stop it") from None
        except OSError as error:
            raise BookError(f"cannot write to {folder}: {error.strerror}") from None
        try:
            if (folder / MANIFEST).exists():
                return cls._resume(folder, manifest, lock)
            return cls._begin(folder, manifest, text, tokens, lock)
        except OSError as error:
            lock.release()
            raise disk_error(folder, error) from None
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _begin(
        cls, folder: Path, manifest: Manifest, text: str, tokens: Mapping[str, Tensor], lock: FileLock
    ) -> BookWriter:
        names = [name for layer in manifest.reading.memory_layers for name in layer_files(layer)]
        progress = Progress(0, 0, 0, dict.fromkeys(names, 0), {}, 0.0)
        replace_file(folder / TEXT, text.encode("utf-8", "surrogatepass"))
        replace_file(folder / TOKENS, save(dict(tokens)))
        replace_file(folder / PROGRESS, json.dumps(asdict(progress)).encode())
        for name in names:
            write_anew(folder / name, b"")
        # last: a folder without a manifest is no Book yet and is begun anew
        replace_file(folder / MANIFEST, json.dumps(manifest.to_json(), indent=1).encode())
        return cls(folder, manifest, lock, progress)

    @classmethod
    def _resume(cls, folder: Path, manifest: Manifest, lock: FileLock) -> BookWriter:
        found = parse_manifest(folder)
        difference = _difference(found, manifest)
        if difference:
            raise BookError(f"{folder} is a Book {difference}; choose another folder with --out, or remove this one")
        progress = parse_progress(folder, found)
        check_files(folder, found, progress)
        for left in (*folder.glob("window-*.safetensors"), *folder.glob("late-*.safetensors")):
            if left.name not in progress.state_files:
                left.unlink()  # by a process that was stopped between two files of a step
        return cls(folder, found, lock, progress)

    def append(
        self,
        entries: Mapping[int, tuple[Tensor, Tensor]],
        window: Mapping[str, Tensor],
        late: Mapping[int, Tensor],
        tokens: int,
        seconds: float,
    ) -> Progress:
        """Make one more window part of the Book.

        Args:
            entries: For each memory layer the keys and values that left the window, [G, N, D].
            window: What is in the window now, by name.
            late: What upper layers have yet to run over, [1, T, hidden size], by the token at which it begins. What
                was there before stays as it was.
            tokens: Tokens that went through the model so far.
            seconds: Time spent reading so far.

        Raises:
            BookError: The disk is full or fails; what was complete before stays valid.
        """
        with _disk_errors(self.folder):
            checksums = dict(self.progress.checksums)
            added = 0
            for layer, tensors in entries.items():
                for name, tensor in zip(layer_files(layer), tensors, strict=True):
                    added = tensor.shape[1]
                    if not added:
                        continue
                    data = raw_bytes(tensor.transpose(0, 1))
                    self._file(name).write(data)
                    checksums[name] = zlib.crc32(data, checksums[name])
            for file in self._files.values():
                file.flush()
            step = self.progress.step + 1
            files = {window_file(step): self._write(window_file(step), window)}
            for start, states in late.items():
                name = late_file(start)
                before = self.progress.state_files.get(name)
                files[name] = self._write(name, {"states": states}) if before is None else before
            progress = Progress(step, tokens, self.progress.entries + added, checksums, files, seconds)
            replace_file(self.folder / PROGRESS, json.dumps(asdict(progress)).encode())
            for name in self.progress.state_files.keys() - files.keys():
                (self.folder / name).unlink(missing_ok=True)
            self.progress = progress
            return progress

    def _write(self, name: str, tensors: Mapping[str, Tensor]) -> int:
        """Write a safetensors file; returns its checksum."""
        contents = save({key: tensor.contiguous() for key, tensor in tensors.items()})
        write_anew(self.folder / name, contents)
        return checksum(contents)

    def _file(self, name: str) -> BinaryIO:
        """The file, cut to what is complete, ready to be appended to."""
        if name not in self._files:
            file = open(self.folder / name, "r+b")  # noqa: SIM115 - closed in `close`
            file.truncate(self.progress.entries * self.manifest.reading.entry_bytes)
            file.seek(0, os.SEEK_END)
            self._files[name] = file
        return self._files[name]

    def finish(self) -> None:
        """See that everything is on the disk, not only with the operating system.

        Once, at the end: a Book that is half read when the power fails may have to be read again, and says so.
        """
        with _disk_errors(self.folder):
            for file in self._files.values():
                file.flush()
            progress = self.progress
            _bring_to_disk(self.folder, (MANIFEST, PROGRESS, TEXT, TOKENS, *progress.checksums, *progress.state_files))
            note_verified(self.folder, self.manifest)

    def close(self) -> None:
        """Let go of the folder."""
        for file in self._files.values():
            try:
                file.close()
            except OSError:  # a full disk was told of already, by `append`
                continue
        self._files = {}
        self._lock.release()

    def __enter__(self) -> BookWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _bring_to_disk(folder: Path, names: Iterable[str]) -> None:
    """See that files of a folder, their names and the folder's own are on the disk, not only with the system."""
    for name in names:
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
    if hasattr(os, "O_DIRECTORY"):  # elsewhere a folder cannot be opened, and its names are the system's matter
        for place in (folder, folder.absolute().parent):
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """What goes wrong with the disk, as one line."""
    try:
        yield
    except OSError as error:
        raise disk_error(folder, error) from None


def disk_error(folder: Path, error: OSError) -> BookError:
    """The one line for a disk that fails."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return BookError(f"no space left for {folder}; make room and read again: it goes on where it stopped")
    return BookError(f"cannot write to {folder}: {error.strerror or error}")


def _difference(found: Manifest, wanted: Manifest) -> str:
    """How a Book that is there differs from the one that is wanted; empty where it does not."""
    if found.text_sha256 != wanted.text_sha256:
        return f"of another document ({found.title!r})"
    if found.spans != wanted.spans:
        return "of the same document cut in another way"
    difference = reading_difference(found.reading, wanted.reading)
    if not difference and found.tokens_sha256 != wanted.tokens_sha256:
        return "of the same document in other tokens (the model's prompt or tokenizer changed)"
    return difference


def reading_difference(found: Any, wanted: Any) -> str:
    """How the model or the settings of a Book differ from those at hand; empty where they do not."""
    if found.fingerprint != wanted.fingerprint:
        there, here = (f"{one.model}, {one.fingerprint[:12]}" for one in (found, wanted))
        return f"read by another model ({there}; here {here})"
    for name in (
        "layers",
        "key_heads",
        "head_dim",
        "memory_layers",
        "dtype",
        "window",
        "overlap",
        "sinks",
        "look_back",
        "discount",
    ):
        if getattr(found, name) != getattr(wanted, name):
            return f"read with {name} {getattr(found, name)} (here {getattr(wanted, name)})"
    return ""
