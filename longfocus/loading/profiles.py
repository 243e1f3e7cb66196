"""Profiles: which layers of a checkpoint need memory, how much overlap, how many entries, as `longfocus probe` found.

A profile that was made on this machine lies in the cache and is for one model, known by its fingerprint. Those that
come with the package are for all models of a shape: further training moves the heads that retrieve only little (Wu et
al., "Retrieval Head Mechanistically Explains Long-Context Factuality", 2024). They say what a checkpoint does that was
not trained to use memory; one that was brings its own fields, and an adapter its own.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from longfocus.errors import CheckpointError
from longfocus.loading.cache import CACHE_VARIABLE, cache_dir, write_json
from longfocus.model.config import LongLlamaConfig

SHIPPED = Path(__file__).parent.parent / "profiles"
"""Profiles that are part of the package."""
SHAPE = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
)
"""Fields of a configuration that tell shapes apart; `rope_theta` does besides, as generations of one shape differ."""
_FORMAT = 1
_LARGEST_BYTES = 1 << 20
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Found:
    """How much of what was asked for was found.

    Attributes:
        measure: What was asked for.
        right: How many were found.
        asked: Of how many.
    """

    measure: str
    right: int
    asked: int


@dataclass(frozen=True)
class Profile:
    """How a checkpoint that was not trained to use memory best uses it.

    Attributes:
        model: Its name, for people.
        layers: How many layers it has.
        memory_layers: Which of them get a memory.
        window: Most tokens that a layer attends to directly.
        overlap: Tokens of a window that stay in the next, without the sinks.
        sinks: First tokens that never leave the window.
        top_k: Entries of memory that each query sees when asking.
        found: How far it can be trusted.
    """

    model: str
    layers: int
    memory_layers: tuple[int, ...]
    window: int
    overlap: int
    sinks: int
    top_k: int
    found: tuple[Found, ...] = ()


def shape_of(config: LongLlamaConfig) -> dict[str, float]:
    """What a shipped profile knows its models by."""
    fields: dict[str, float] = {name: getattr(config, name) for name in SHAPE}
    rope: dict[str, Any] = dict(config.rope_parameters or {})
    return fields | {"rope_theta": float(rope.get("rope_theta", 0.0))}


def profile_of(fingerprint: str, config: LongLlamaConfig) -> Profile | None:
    """The profile of the model with this fingerprint and configuration: the user's own, or the one shipped.

    Raises:
        CheckpointError: The profile cannot be read, is damaged, or is not for such a model.
    """
    path = profile_path(fingerprint)
    if os.path.lexists(path):
        return _read(path, lambda held: held == {"fingerprint": fingerprint}, config.num_hidden_layers)
    shape = shape_of(config)
    return next((profile for known, profile in _shipped() if known == shape), None)


def profile_path(fingerprint: str) -> Path:
    """Where the profile of a model lies once it was made."""
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise ValueError(f"{fingerprint!r} is no fingerprint")
    return cache_dir() / "profiles" / f"{fingerprint}.json"


def write_profile(fingerprint: str, profile: Profile) -> Path:
    """Keep a profile, for `longfocus.load` to find; returns its file.

    Raises:
        CheckpointError: The cache cannot be written to.
    """
    path = profile_path(fingerprint)
    try:
        write_json(path, {"format": _FORMAT, "of": {"fingerprint": fingerprint}, **asdict(profile)})
    except OSError as error:
        raise CheckpointError(
            f"Cannot keep the profile in {path.parent}: {error.strerror or error}. "
            f"Set {CACHE_VARIABLE} to a folder with room that can be written to."
        ) from error
    return path


def parse_profile(text: str | bytes, fits: Callable[[Any], bool], layers: int | None = None) -> Profile:
    """A profile from its file's contents.

    Args:
        text: The contents.
        fits: Whether what the file says of its models is true of the model at hand.
        layers: Those of the model, if known.

    Raises:
        ValueError: It makes no sense, or is not for the model.
    """
    try:
        held = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(held, dict) or held.pop("format", None) != _FORMAT:
        raise ValueError(f"it is no profile of format {_FORMAT}")
    if not fits(held.pop("of", None)):
        raise ValueError("it is for another model")
    if held.keys() != Profile.__dataclass_fields__.keys():
        raise ValueError("it has other fields than a profile")
    if not all(isinstance(held[name], list) for name in ("memory_layers", "found")):
        raise ValueError("its layers or figures are no list")
    memory_layers = tuple(_whole(layer, 0, 1 << 16) for layer in held["memory_layers"])
    found = tuple(_found(one) for one in held["found"])
    profile = Profile(**{**held, "memory_layers": memory_layers, "found": found})
    if not isinstance(profile.model, str):
        raise ValueError("its model has no name")
    _whole(profile.layers, 1, 1 << 16)
    _whole(profile.window, 1, 1 << 30)
    _whole(profile.top_k, 1, 1 << 30)
    if not memory_layers or any(layer >= profile.layers for layer in memory_layers):
        raise ValueError(f"memory layers {list(memory_layers)} are not among {profile.layers} layers")
    if _whole(profile.overlap, 0, 1 << 30) + _whole(profile.sinks, 0, 1 << 30) >= profile.window:
        raise ValueError("overlap and sinks fill the window")
    if layers is not None and layers != profile.layers:
        raise ValueError(f"it is for a model of {profile.layers} layers")
    return profile


def _found(one: Any) -> Found:
    if not isinstance(one, dict) or one.keys() != Found.__dataclass_fields__.keys():
        raise ValueError("a figure has other fields than figures have")
    if not isinstance(one["measure"], str):
        raise ValueError("a figure has no name")
    asked = _whole(one["asked"], 1, 1 << 30)
    return Found(one["measure"], _whole(one["right"], 0, asked), asked)


def _whole(number: Any, least: int, most: int) -> int:
    if type(number) is not int or not least <= number <= most:
        raise ValueError(f"{str(number)[:40]!r} is no number from {least} to {most}")
    return number


def _read(path: Path, fits: Callable[[Any], bool], layers: int | None) -> Profile:
    """A profile's file; what it says is checked, since anyone may have put it there."""
    try:
        with open(path, "rb", opener=_plain_file) as file:
            return parse_profile(file.read(_LARGEST_BYTES), fits, layers)
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"The profile {path} cannot be used ({reason}); remove it, then make it anew by `longfocus probe`."
        ) from None


def _plain_file(path: str, flags: int) -> int:
    """Open neither links nor what would be waited for, such as a pipe."""
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError("it is no plain file")
    return handle


@cache
def _shipped() -> tuple[tuple[dict[str, float], Profile], ...]:
    """The shapes and profiles that come with the package."""
    found = []
    for path in sorted(SHIPPED.glob("*.json")):
        shapes: list[dict[str, float]] = []

        def taken(held: Any, shapes: list[dict[str, float]] = shapes) -> bool:
            shapes.append(held["shape"])
            return True

        profile = _read(path, taken, None)
        found.append((shapes[0], profile))
    return tuple(found)
