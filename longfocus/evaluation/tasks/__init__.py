"""The tasks by name.

To add one, write a file here with a class that is a `longfocus.evaluation.task.Task` and add a line to TASKS.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from longfocus.evaluation.task import Task
from longfocus.evaluation.tasks.lines import Lines
from longfocus.evaluation.tasks.passkey import Passkey, ReferencePasskey
from longfocus.evaluation.tasks.perplexity import Perplexity

TASKS: dict[str, Callable[[Path], Task]] = {
    "passkey": lambda data: Passkey(),
    "passkey-reference": lambda data: ReferencePasskey(),
    "lines": lambda data: Lines(),
    "perplexity": lambda data: Perplexity(data),
}
"""What makes each task from a folder with data sets; those that are made up need none."""
