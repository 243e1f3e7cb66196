"""The files that hold a checkpoint's weights: which they are, and their tensors by name, read as they are needed.

safetensors files are preferred, whole or in shards, and are mapped rather than read. A `.bin` file is a pickle, which
can run any code when opened; torch opens it in the mode that builds tensors only, and what needs more is refused.
Whether these are the weights that a model wants is not decided here.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from longfocus.errors import CheckpointError

SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
WEIGHT_FILES = (SAFETENSORS, SAFETENSORS_INDEX, BIN, BIN_INDEX)
"""Where weights are looked for in a folder; the first that is there counts."""

_LFS = b"version https://git-lfs"


def find_weights(folder: Path) -> list[Path]:
    """Return the files with the weights of the checkpoint in `folder`, in the order of their names.

    Raises:
        CheckpointError: There are none, shards of them are missing, or an adapter belongs to them.
    """
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{folder} holds an adapter, which cannot be loaded; merge it into its model first.")
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file():
            return _shards(path) if name.endswith(".json") else [path]
    raise CheckpointError(f"{folder} holds no weights; wanted {SAFETENSORS} or {BIN}, whole or in shards.")


@contextmanager
def open_weights(files: list[Path]) -> Iterator[dict[str, Any]]:
    """Open `files` and yield every tensor by its name.

    A value is a tensor, or stands for one that is read from its file when it is indexed with `...`, which is the
    form that transformers takes. It can be read until the context ends.

    Raises:
        CheckpointError: A file is damaged, or holds something other than tensors.
    """
    with ExitStack() as stack:
        tensors: dict[str, Any] = {}
        for path in files:
            tensors.update(_open_safetensors(path, stack) if path.suffix == ".safetensors" else _open_bin(path))
        yield tensors


def _shards(index: Path) -> list[Path]:
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted({str(name) for name in named})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} cannot be read as a list of shards: fetch it again.") from error
    if outside := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{index} names the shard {outside[0]!r}; wanted names of files in the same folder.")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing or not names:
        lost = f"lacks {len(missing)} of {len(names)} shards, such as {missing[0]}" if names else "names no shards"
        raise CheckpointError(f"The checkpoint in {index.parent} {lost}: fetch it again.")
    return [index.parent / name for name in names]


def _open_safetensors(path: Path, stack: ExitStack) -> dict[str, Any]:
    try:
        opened = stack.enter_context(safe_open(path, framework="pt"))
        return {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it is no dictionary
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _open_bin(path: Path) -> dict[str, torch.Tensor]:
    try:
        # What was written before torch 1.6 is not a zip file and cannot be mapped.
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
    except Exception as error:  # whatever a forged or damaged pickle leads to, it is not loaded
        if "Weights only load failed" in str(error):
            raise CheckpointError(
                f"{path} is refused: it is damaged, or holds something other than tensors, which could run any code. "
                "Look for the same model as safetensors."
            ) from error
        raise _damaged(path, error) from error
    if not isinstance(held, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in held.values()):
        raise CheckpointError(f"{path} holds a {type(held).__name__}; wanted tensors by name.")
    return {str(name): tensor for name, tensor in held.items()}


def _damaged(path: Path, error: Exception) -> CheckpointError:
    with path.open("rb") as stream:
        pointer = stream.read(len(_LFS)) == _LFS
    if pointer:
        return CheckpointError(f"{path} stands for a file that Git LFS did not fetch: run `git lfs pull` beside it.")
    reason = " ".join(str(error).split())
    return CheckpointError(f"{path} is cut short or damaged, fetch it again ({reason[:160]}).")
