"""What a Book folder holds, and the checks before any of it is believed.

    manifest.json         what was read, by which model, with which settings; written once
    text.txt              the document's text, UTF-8
    tokens.safetensors    token ids and the characters each token stands for
    progress.json         how far reading has come, with checksums; replaced after each window
    window-N.safetensors  what was in the window then, to read on from
    late-M.safetensors    while reading goes on: what layers above the last memory layer have yet to run over
    layer-III.keys        keys of one memory layer: entry after entry, [entries, key heads, head_dim]
    layer-III.values      values, likewise; in a packed Book both are records of one entry each (`int8`)
    origin.json           hash of the file that it was read from; may be missing, and is no part of the Book
    lock                  held while a process reads the document

All names are fixed here: nothing a folder says about itself is ever used as a path, links are not followed, and
nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longfocus.errors import READ_ANEW, BookError, RequestError
from longfocus.memory.int8 import STEP_BYTES
from longfocus.memory.sections import Section
from longfocus.model.config import LongLlamaConfig

FORMAT = 3
"""The newest format; a Book is written in the oldest that can hold it, so that older versions read what they can."""
INT8 = "int8"
"""The dtype of a Book whose keys and values are packed (`int8`); only format 3 has it."""
MANIFEST, TEXT, TOKENS, PROGRESS, LOCK, VERIFIED, ORIGIN = (
    "manifest.json",
    "text.txt",
    "tokens.safetensors",
    "progress.json",
    "lock",
    "verified.json",
    "origin.json",
)
_NEW = ".new"
_LAYER_FILE = re.compile(r"layer-\d{3,}\.(keys|values)")
_LATE_FILE = re.compile(r"late-(0|[1-9]\d{0,15})\.safetensors", re.ASCII)
_LARGEST_JSON = 64 * 2**20
_OLDEST = 2
_ITEM_BYTES = {INT8: 1, "bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class Reading:
    """By which model and how a document is read; two Books may share nothing else than this and still be refused.

    Attributes:
        model: The model's name, for people.
        fingerprint: What identifies its weights, architecture and tokenizer.
        layers: Layers of the model.
        memory_layers: Which of them have a memory.
        key_heads: Key heads of a layer.
        head_dim: Size of a head.
        dtype: In which keys and values are kept.
        window: Most tokens in the window.
        overlap: Tokens of the previous window that stay in the next.
        sinks: First tokens that never leave the window.
        look_back: Entries of memory that were attended to while reading; None means all of them.
        discount: How much less those counted the more they were (`mem_discount`); 0 where none was attended to.
    """

    model: str
    fingerprint: str
    layers: int
    memory_layers: tuple[int, ...]
    key_heads: int
    head_dim: int
    dtype: str
    window: int
    overlap: int
    sinks: int
    look_back: int | None
    discount: float = 0.0

    @classmethod
    def by(
        cls, name: str, fingerprint: str, config: LongLlamaConfig, look_back: int | None, packed: bool = False
    ) -> Reading:
        """Reading by the model of this name, fingerprint and configuration; `packed` into one byte a number.

        Raises:
            RequestError: No Book is kept in the model's `mem_dtype`.
        """
        assert config.mem_layers is not None and config.num_key_value_heads is not None and config.head_dim is not None
        dtype = INT8 if packed else str(config.mem_dtype)
        if dtype not in _ITEM_BYTES:
            known = ", ".join(name for name in _ITEM_BYTES if name != INT8)
            raise RequestError(
                f"the model's mem_dtype is {dtype}, in which no Book is kept; its config.json may say {known}"
            )
        return cls(
            model=name,
            fingerprint=fingerprint,
            layers=config.num_hidden_layers,
            memory_layers=tuple(config.mem_layers),
            key_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            dtype=dtype,
            window=config.window,
            overlap=config.window_overlap,
            sinks=config.sink_tokens,
            look_back=look_back,
            discount=0.0 if look_back == 0 else float(config.mem_discount),
        )

    @property
    def lower(self) -> int:
        """How many layers run over all of a document; those above run over its last windows."""
        return max(self.memory_layers) + 1 if self.memory_layers else self.layers

    @property
    def packed(self) -> bool:
        """Whether keys and values are packed into one byte a number."""
        return self.dtype == INT8

    @property
    def item_bytes(self) -> int:
        """Bytes of one number of a key or a value."""
        return _ITEM_BYTES[self.dtype]

    @property
    def entry_bytes(self) -> int:
        """Bytes of one entry's key (or value) in one layer."""
        head = self.head_dim * self.item_bytes + (STEP_BYTES if self.packed else 0)
        return self.key_heads * head


@dataclass(frozen=True)
class Manifest:
    """What a Book is of.

    Attributes:
        title: The document's title.
        text_sha256: Hash of `text.txt`.
        tokens_sha256: Hash of `tokens.safetensors`.
        tokens: Tokens to read, those of the prompt's opening included.
        opening: How many tokens the prompt's opening has.
        spans: Which characters of the text are read, in order.
        sections: Chapters and pages.
        reading: By which model and how.
        versions: Of the libraries that wrote it.
    """

    title: str
    text_sha256: str
    tokens_sha256: str
    tokens: int
    opening: int
    spans: tuple[tuple[int, int], ...]
    sections: tuple[Section, ...]
    reading: Reading
    versions: dict[str, str]

    @property
    def left_out(self) -> tuple[int, int] | None:
        """Characters cut out of the middle of the document, or None."""
        return (self.spans[0][1], self.spans[-1][0]) if len(self.spans) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {"format": FORMAT if self.reading.packed else _OLDEST, **asdict(self)}


@dataclass(frozen=True)
class Progress:
    """How far reading has come.

    Attributes:
        step: Number of the last window that is complete; names the window file. 0 before the first.
        tokens: Tokens that went through the model.
        entries: Entries in each memory layer's files. Of the tokens read, the first `sinks` and the last ones are in
            the window, those between them are the entries.
        checksums: CRC-32 of the first `entries` entries of each file, by file name.
        state_files: CRC-32 of each file with the rest of the model's state, by file name: the window and, while
            reading goes on, what is left for later.
        seconds: Time spent reading so far.
    """

    step: int
    tokens: int
    entries: int
    checksums: dict[str, int]
    state_files: dict[str, int]
    seconds: float

    @property
    def late(self) -> list[int]:
        """At which tokens the windows begin that upper layers have yet to run over."""
        found = (_LATE_FILE.fullmatch(name) for name in self.state_files)
        return sorted(int(match[1]) for match in found if match)


def layer_files(layer: int) -> tuple[str, str]:
    """Names of the files with a layer's keys and values."""
    return f"layer-{layer:03d}.keys", f"layer-{layer:03d}.values"


def window_file(step: int) -> str:
    """Name of the file with the window after `step` windows."""
    return f"window-{step}.safetensors"


def late_file(start: int) -> str:
    """Name of the file with what upper layers have yet to run over of the window that begins at token `start`."""
    return f"late-{start}.safetensors"


def checksum(contents: bytes) -> int:
    """CRC-32 of a file's contents."""
    return zlib.crc32(contents)


def read_bytes(folder: Path, name: str, limit: int) -> bytes:
    """Contents of a file of the Book.

    Raises:
        BookError: It is missing, no plain file, or longer than `limit` bytes.
    """
    try:
        # a pipe would be waited for
        handle = os.open(folder / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise BookError(f"{folder} is no complete Book: {name} is missing; {READ_ANEW}") from None
    except OSError as error:
        raise BookError(f"cannot read {folder / name}: {error.strerror}") from None
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        raise BookError(f"{folder / name} is no plain file; this is not a Book that longfocus wrote")
    with os.fdopen(handle, "rb") as file:
        if facts.st_size > limit:
            raise BookError(f"{folder / name} has {facts.st_size} bytes, more than a Book's can have ({limit})")
        return file.read()


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the Book.

    Raises:
        BookError: It is missing or no JSON object.
    """
    try:
        found = json.loads(read_bytes(folder, name, _LARGEST_JSON))
    except (ValueError, RecursionError):
        raise BookError(f"{folder / name} is damaged: it is no JSON; {READ_ANEW}") from None
    if not isinstance(found, dict):
        raise BookError(f"{folder / name} is damaged: expected an object; {READ_ANEW}")
    return found


def parse_manifest(folder: Path) -> Manifest:
    """The manifest of a Book.

    Raises:
        BookError: No manifest, another format, or values that make no sense.
    """
    if not os.path.isdir(folder):
        raise BookError(f"no Book at {folder}: there is no such folder; `longfocus read` makes one")
    try:
        os.stat(folder / MANIFEST)
    except PermissionError as error:
        raise BookError(f"cannot read {folder}: {error.strerror}") from None
    except OSError:
        raise BookError(f"{folder} is no Book: it has no {MANIFEST}; `longfocus read` makes one") from None
    found = read_json(folder, MANIFEST)
    version = found.pop("format", None)
    if version not in range(_OLDEST, FORMAT + 1) or isinstance(version, bool | float):
        raise BookError(
            f"{folder} has the Book format {str(version)[:40]!r}, this version reads formats {_OLDEST} to {FORMAT}; "
            + READ_ANEW
        )
    try:
        reading = found["reading"]
        manifest = Manifest(
            **{
                **found,
                "spans": tuple((_whole(start), _whole(end)) for start, end in found["spans"]),
                "sections": tuple(Section(**section) for section in found["sections"]),
                "reading": Reading(**{**reading, "memory_layers": tuple(map(_whole, reading["memory_layers"]))}),
            }
        )
        _check(manifest)
        if manifest.reading.packed and version == _OLDEST:
            raise ValueError(f"dtype is {INT8!r} in format {version}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BookError(f"{folder / MANIFEST} is damaged ({one_line(error)}); {READ_ANEW}") from None
    return manifest


def _check(manifest: Manifest) -> None:
    """ValueError for a manifest that no reading could have written."""
    reading = manifest.reading
    for name in ("layers", "key_heads", "head_dim", "window"):
        if not 0 < _whole(getattr(reading, name)) < 2**20:
            raise ValueError(f"{name} is {getattr(reading, name)}")
    if reading.dtype not in _ITEM_BYTES:
        raise ValueError(f"dtype is {reading.dtype!r}")
    if reading.packed and reading.head_dim * reading.key_heads % STEP_BYTES:
        raise ValueError(f"{reading.key_heads} heads of {reading.head_dim} are packed")
    if any(not 0 <= layer < reading.layers for layer in reading.memory_layers):
        raise ValueError(f"memory layers are {reading.memory_layers}")
    if min(_whole(reading.overlap), _whole(reading.sinks)) < 0 or reading.overlap + reading.sinks >= reading.window:
        raise ValueError(f"overlap is {reading.overlap}, sinks are {reading.sinks}")
    if reading.look_back is not None and _whole(reading.look_back) < 0:
        raise ValueError(f"look_back is {reading.look_back}")
    if type(reading.discount) not in (int, float) or not 0 <= reading.discount < math.inf:
        raise ValueError(f"discount is {reading.discount}")
    if not 0 <= _whole(manifest.opening) < _whole(manifest.tokens) < 2**40:
        raise ValueError(f"tokens are {manifest.tokens}, of which {manifest.opening} open the prompt")
    texts = (manifest.title, manifest.text_sha256, manifest.tokens_sha256, reading.model, reading.fingerprint)
    if not all(isinstance(text, str) for text in (*texts, *(section.label for section in manifest.sections))):
        raise ValueError("names are no text")
    if any(s.kind not in ("chapter", "page") or not 0 <= _whole(s.start) <= _whole(s.end) for s in manifest.sections):
        raise ValueError("sections make no sense")
    borders = [border for span in manifest.spans for border in span]
    if not borders or borders[0] < 0 or borders != sorted(borders):
        raise ValueError("spans make no sense")


def _whole(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError(f"{str(number)[:40]!r} is no whole number")
    return number


def one_line(error: Exception) -> str:
    """What an error says, short enough for a line."""
    return " ".join(str(error).split())[:200]


def parse_progress(folder: Path, manifest: Manifest) -> Progress:
    """How far reading has come.

    Raises:
        BookError: The record is missing, damaged, or does not fit the manifest.
    """
    try:
        progress = Progress(**read_json(folder, PROGRESS))
        files = {name for layer in manifest.reading.memory_layers for name in layer_files(layer)}
        if not isinstance(progress.checksums, dict) or progress.checksums.keys() != files:
            raise ValueError("checksums are of other files")
        if not isinstance(progress.seconds, int | float) or not 0 <= progress.seconds < math.inf:
            raise ValueError("seconds make no sense")
        if not 0 <= _whole(progress.entries) <= _whole(progress.tokens) <= manifest.tokens or _whole(progress.step) < 0:
            raise ValueError(f"{progress.entries} entries of {progress.tokens} tokens")
        if (progress.step == 0) != (progress.tokens == 0):
            raise ValueError(f"{progress.tokens} tokens in {progress.step} steps")
        if not isinstance(progress.state_files, dict):
            raise ValueError("state_files is no object")
        wanted = {window_file(progress.step)} if progress.step else set()
        if progress.state_files.keys() != wanted | {late_file(start) for start in progress.late}:
            raise ValueError("state_files names other files")
        if any(start >= progress.tokens for start in progress.late):
            raise ValueError(f"windows at {progress.late} of {progress.tokens} tokens")
    except (TypeError, ValueError, OverflowError) as error:
        raise BookError(f"{folder / PROGRESS} is damaged ({one_line(error)}); {READ_ANEW}") from None
    return progress


def replace_file(path: Path, contents: bytes) -> None:
    """Put `contents` in place of `path` at once: a reader finds the old or the new contents, never a part."""
    temporary = path.with_name(path.name + _NEW)
    write_anew(temporary, contents)
    os.replace(temporary, path)


def write_anew(path: Path, contents: bytes | memoryview) -> None:
    """Write a file that was not there before; what lay under its name is removed, a link is not followed."""
    path.unlink(missing_ok=True)
    with open(path, "xb") as file:
        file.write(contents)


def is_begun(names: set[str]) -> bool:
    """Whether these files are what a process leaves that was stopped before the manifest was written."""
    own = {TEXT, TOKENS, PROGRESS, LOCK} | {name + _NEW for name in (TEXT, TOKENS, PROGRESS, MANIFEST)}
    return LOCK in names and all(name in own or _LAYER_FILE.fullmatch(name) for name in names)
