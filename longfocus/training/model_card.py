"""The card of what a run made: README.md, from the run's own records and nothing else.

The same records give the same card. What recipes were given, paths and names can hold anything; here it stands in code
blocks and code spans, where it means nothing but itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from longfocus.loading.adapters import NOTE
from longfocus.loading.catalogue import MODEL_TABLE
from longfocus.training.lessons import CONFIGURATION
from longfocus.training.run_records import EVALUATED, read_about, read_log

_ENDS = 10
_ADAPTER, _TOKENIZER = "adapter_config.json", "tokenizer_config.json"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_NOT_FIGURES = {"step", "seconds", "epoch", "loss", "grad_norm", "learning_rate"}


def write_card(folder: Path) -> None:
    """Write the card of the adapter or the model in `folder`, where the run's records are as well.

    A card that is there (peft leaves a template) is replaced.
    """
    about, log = read_about(folder), read_log(folder)
    adapter, memory = (folder / _ADAPTER).is_file(), (folder / NOTE).is_file()
    speaks = adapter or (folder / _TOKENIZER).is_file()
    base = str(about["base"]["name"])
    header = ModelCardData(
        base_model=_repository(base),
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["longfocus", *(["lora"] if adapter else []), *(["memory"] if memory else [])],
    )
    parts = [
        f"---\n{header.to_yaml()}\n---\n",
        f"# {'An adapter for' if adapter else 'A model made from'} {_span(base or 'an unnamed model')}\n",
        _opening(about, adapter, memory),
        _loading(base, adapter, memory, speaks, (folder / CONFIGURATION).is_file()),
        _training(about, log),
        _evaluation(log),
        _made_of(about),
    ]
    ModelCard("\n".join(part for part in parts if part)).save(folder / "README.md")


def _repository(base: str) -> str | None:
    """Its repository on the hub, which is all that a header may name."""
    name = base.partition("@")[0]
    repo = next((entry.repo for entry in MODEL_TABLE if entry.name == name), name)
    return repo if _REPOSITORY.fullmatch(repo) and not Path(base).exists() else None


def _opening(about: Mapping[str, Any], adapter: bool, memory: bool) -> str:
    weights = f"{about['trained_parameters']:,} of {about['parameters']:,} weights were trained"
    taught = " to use a memory beside its window" if memory else ""
    recipe = f" by the recipe {_span(about['recipe'])}" if about["recipe"] else ""
    merged = "" if adapter or about["trained_parameters"] == about["parameters"] else ", and put into the model's own"
    return f"Made by Longfocus{recipe}{taught}: {weights}{merged}.\n"


def _loading(base: str, adapter: bool, memory: bool, speaks: bool, stretched: bool) -> str:
    ways = []
    if speaks and (memory or not adapter):
        here = f"{json.dumps(base)}, adapter=folder" if adapter else "folder"
        ways.append(f"import longfocus\n\nloaded = longfocus.load({here})")
    if adapter and stretched:  # without its configuration the model would not know its positions
        ways.append(
            "from peft import PeftModel\nfrom transformers import AutoConfig, AutoModelForCausalLM\n\n"
            f'config = AutoConfig.from_pretrained(f"{{folder}}/{CONFIGURATION}")\n'
            f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base)}, config=config)\n"
            "model = PeftModel.from_pretrained(base, folder)"
        )
    elif adapter:
        ways.append(
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
            f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base)})\n"
            "model = PeftModel.from_pretrained(base, folder)"
        )
    else:
        ways.append(
            "from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained(folder)"
        )
    blocks = "\n".join(f"```python\n{way}\n```\n" for way in ways)
    return f"## Use\n\n`folder` is where this file is.\n\n{blocks}"


def _training(about: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        ("steps", f"{about['steps']:,}"),
        ("time", _duration(about["seconds"])),
        ("finished", about["ended"]),
        ("processes", about["processes"]),
        ("processor", f"{about['machine']['cpu']}, {about['machine']['cores']} cores"),
        ("GPU", ", ".join(about["machine"]["gpus"]) or "none"),
    ]
    for name, taken in about.get("taken", {}).items():
        rows.append((f"data: {name}", f"{taken['documents']:,} documents, {taken['tokens']:,} tokens"))
    lines = [line for line in log if "loss" in line]
    if lines:
        few = min(_ENDS, max(1, len(lines) // 2))
        names = ["loss", *(name for name in lines[-1] if name not in _NOT_FIGURES)]
        for name in names:
            first, last = (_mean(ends, name) for ends in (lines[:few], lines[-few:]))
            rows.append((f"{name}, first and last {few} logged", f"{first}, {last}"))
    return f"## Training\n\n{_table(('', ''), rows)}"


def _evaluation(log: Sequence[Mapping[str, Any]]) -> str:
    found = [line for line in log if any(name.startswith(EVALUATED) for name in line)]
    if not found:
        return ""
    last = found[-1]
    rows = [
        (name.removeprefix(EVALUATED), f"{value:.4g}") for name, value in last.items() if name.startswith(EVALUATED)
    ]
    return f"## Evaluation\n\nAfter step {last['step']:,}, by what the run evaluated itself:\n\n" + _table(
        ("figure", "value"), rows
    )


def _made_of(about: Mapping[str, Any]) -> str:
    told = {name: about[name] for name in ("recipe", "fields", "base", "versions") if about.get(name)}
    return f"## All that it was made with\n\n```json\n{json.dumps(told, indent=1)}\n```\n"


def _table(head: tuple[str, str], rows: Sequence[tuple[Any, Any]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {_cell(name)} | {_cell(said)} |" for name, said in rows)]
    return "\n".join(lines) + "\n"


def _cell(said: object) -> str:
    """Text that a table takes as text."""
    return re.sub(r"([\\`*_<>|\[\]#&~$])", r"\\\1", " ".join(str(said).split()))


def _span(said: str) -> str:
    """Text as a code span, whatever is in it."""
    text = " ".join(said.split())
    ticks = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    room = " " if "`" in text else ""
    return f"{ticks}{room}{text}{room}{ticks}"


def _mean(lines: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [line[name] for line in lines if isinstance(line.get(name), int | float)]
    return f"{sum(values) / len(values):.4g}" if values else "none"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
