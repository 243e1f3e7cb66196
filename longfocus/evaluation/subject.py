"""What a subject is: that which takes a task, a model together with a way of being long."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Protocol

import torch

from longfocus.evaluation.task import Form, Opened


class Subject(Protocol):
    """What is evaluated.

    Attributes:
        name: For people.
        identity: The same for the same weights and settings; results of one subject are only joined with its own.
    """

    name: str
    identity: str

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        ...

    def read(self, document: str, form: Form) -> AbstractContextManager[Opened]:
        """Read a document, to be asked any number of times; an empty one is nothing to read.

        Raises:
            RequestError: The subject cannot take it.
        """
        ...


def peak_bytes() -> int:
    """Most memory that this process has had: on its GPU where it uses one, else resident; 0 where nobody tells."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
