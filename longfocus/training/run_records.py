"""What a run tells of itself, beside its checkpoints, for programs and for the model card.

`run.json` says what was run, on what, when and how far; `run.jsonl` has one line for each thing that was logged:
"step" and "seconds" (of training, without what was lost between a checkpoint and a kill), then "loss" and the figures
of a training log, or the "eval_..." figures of an evaluation. A run that goes on from a checkpoint drops the lines
after it, so that no step is told twice.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from longfocus.memory.layout import replace_file

ABOUT, LOG = "run.json", "run.jsonl"
EVALUATED = "eval_"
_PACKAGES = ("longfocus", "torch", "transformers", "accelerate", "peft")
_SUMMARY = "train_runtime"  # in what Trainer logs at the end; it is in run.json

About = dict[str, Any]


class RunRecorder(TrainerCallback):
    """Keeps both files of a run; in process 0 only, the others may call it as well.

    Args:
        folder: The run's.
        about: What `run.json` says besides times; it must be of JSON's types.
        writes: Whether this process is the one.
    """

    def __init__(self, folder: Path, about: About, writes: bool = True) -> None:
        self._folder, self._about, self._writes = folder, about, writes
        self._before = 0.0
        self._begun = time.monotonic()

    def begin(self, step: int, over: bool = False) -> list[str]:
        """Begin at the step of a checkpoint, or at 0; what else was begun in the folder is forgotten.

        Args:
            step: After which there is nothing yet.
            over: Whether it was the last one; then what the files say stays.

        Returns:
            The names of fields that are not what they were when the run began.
        """
        kept = [line for line in read_log(self._folder) if line["step"] <= step]
        earlier = read_about(self._folder) if step else {}
        self._before = kept[-1]["seconds"] if kept else 0.0
        self._begun = time.monotonic()
        now = {"step": step, "time": _now()}
        resumed = [*earlier.get("resumed", ()), now] if step else []
        fields, were = self._about.get("fields", {}), earlier.get("fields", {})
        if over and "ended" in earlier:
            self._about = earlier
            return []
        self._about = {**self._about, "started": earlier.get("started", now["time"]), "resumed": resumed}
        if self._writes:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._folder / LOG, "".join(f"{json.dumps(line)}\n" for line in kept).encode())
            self._write()
        return sorted(name for name in {*fields, *were} if were and fields.get(name) != were.get(name))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """See `TrainerCallback`."""
        if logs and self._writes and _SUMMARY not in logs:
            line = {"step": state.global_step, "seconds": self._seconds(), **logs}
            with (self._folder / LOG).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")

    def end(self, step: int, **more: Any) -> None:
        """Say how far it came, once; `more` goes into `run.json` as well."""
        if "ended" not in self._about:
            self._about |= {"ended": _now(), "steps": step, "seconds": self._seconds(), **more}
            if self._writes:
                self._write()

    def _seconds(self) -> float:
        return round(self._before + time.monotonic() - self._begun, 2)

    def _write(self) -> None:
        replace_file(self._folder / ABOUT, (json.dumps(self._about, indent=1) + "\n").encode())


def read_about(folder: Path) -> About:
    """What `run.json` says; nothing where there is none."""
    path = folder / ABOUT
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of `run.jsonl`, but for a last one that a kill cut short."""
    path = folder / LOG
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them: those of other types, such as paths, as text."""
    found: dict[str, Any] = json.loads(json.dumps(dict(fields), default=str))
    return found


def machine() -> dict[str, Any]:
    """The kind of machine: its processor, how many cores this process may use, and its GPUs."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"cpu": _processor(), "cores": os.cpu_count(), "gpus": gpus}


def versions() -> dict[str, str]:
    """Of Python and of the packages that make a difference."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a copy of the sources
            continue
    return found


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
