"""A whole checkpoint with the adapter that a run trained put into its model's own weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from longfocus.errors import RequestError
from longfocus.loading.cache import build_once
from longfocus.loading.load import quiet
from longfocus.loading.vocabulary import load_tokenizer
from longfocus.loading.whereabouts import find
from longfocus.model.registration import register
from longfocus.training.engine import Run
from longfocus.training.model_card import write_card
from longfocus.training.parallel import is_sharded
from longfocus.training.run_records import ABOUT, LOG, read_about


def is_merged(run_folder: Path, folder: Path) -> bool:
    """Whether `folder` has what that run made already.

    Raises:
        RequestError: It has something else in it, or is no folder.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    here, there = read_about(run_folder), read_about(folder)
    if "ended" not in here or here != there:
        raise RequestError(f"{folder} exists already; name a new folder for the merged model.")
    return True


def write_merged(run: Run, folder: Path) -> None:
    """Write weights, configuration with memory, tokenizer, the run's records and a card; of a run that is over.

    `longfocus.load` and transformers read it. Where the run trained an adapter, the student is the merged model
    afterwards and learns no more. The folder appears whole or not at all; one that has it already stays.

    Args:
        run: After `train`.
        folder: A new one.

    Raises:
        RequestError: The folder has something else in it, or the weights are divided among processes.
        CheckpointError: The checkpoint that the run began with is no longer there.
    """
    if is_merged(run.folder, folder):
        return
    if is_sharded(run.lesson):
        raise RequestError(
            "The weights are divided among processes and cannot be merged there. Give the same command once more to "
            "one process: the run is over, and only merging is left to do."
        )
    student: Any = run.lesson.student
    register()
    with quiet():
        tokenizer = run.tokenizer or _tokenizer(student)
        model = student.merge_and_unload() if hasattr(student, "merge_and_unload") else student
        run.lesson.student = model

        def fill(target: Path) -> None:
            model.save_pretrained(str(target))
            tokenizer.save_pretrained(str(target))
            if run.lesson.note is not None:
                run.lesson.note.write(target)
            for name in (ABOUT, LOG):
                shutil.copyfile(run.folder / name, target / name)
            write_card(target)

        build_once(folder.absolute(), fill, is_complete=lambda made: made.is_dir() and any(made.iterdir()))


def _tokenizer(student: Any) -> Any:
    """That of the checkpoint that the student was made from."""
    config = student.config
    found = find(str(getattr(student, "name_or_path", "")) or None, None, lambda _: None)
    kind = json.loads((found.folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    return load_tokenizer(found.folder, config, kind)
