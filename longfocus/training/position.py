"""Where the data of a run stands, in each checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from longfocus.errors import RequestError
from longfocus.training.loader import PackedLoader

_FILE = "position.json"


def write_position(folder: Path, batches_per_step: int, data: Any) -> None:
    """Say where the data stands.

    Args:
        folder: The checkpoint's.
        batches_per_step: How many of its batches a step of the optimizer takes, over all processes.
        data: A loader is asked for its state; of batches by number the number of steps tells enough.

    Raises:
        ValueError: The state is nothing that JSON can hold.
    """
    state = data.state_dict() if isinstance(data, PackedLoader) else None
    text = json.dumps({"batches_per_step": batches_per_step, "data": state})
    if json.loads(text)["data"] != state:
        raise ValueError("the loader's state does not survive being written as JSON")
    (folder / _FILE).write_text(text + "\n", encoding="utf-8")


def read_position(folder: Path, batches_per_step: int, data: Any) -> None:
    """Have the data go on from where it stood; the arguments are those of `write_position`.

    Raises:
        RequestError: A step would take another number of batches, or the data is of another kind.
    """
    path = folder / _FILE
    if not path.is_file():
        return  # of a version that knew batches by number only
    found = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(data, PackedLoader) != (found["data"] is not None):
        raise RequestError(f"Training cannot go on from {folder}: its data was of another kind. Name a new folder.")
    if found["batches_per_step"] != batches_per_step:
        raise RequestError(
            f"Training cannot go on: a step took {found['batches_per_step']} batches and would take "
            f"{batches_per_step}. Start as many processes as before, or accumulate as many batches more."
        )
    if isinstance(data, PackedLoader):
        data.load_state_dict(found["data"])
