"""What a server is made of, apart from HTTP."""

from __future__ import annotations

from longfocus.loading.load import LoadedModel
from longfocus.memory.kinds import AUTO
from longfocus.serving.kept import Kept
from longfocus.serving.limits import Limits
from longfocus.serving.metrics import Metrics
from longfocus.serving.preparing import Preparing
from longfocus.serving.readings import Readings
from longfocus.serving.schedule import Schedule
from longfocus.serving.shelf import Shelf
from longfocus.serving.together import Together
from longfocus.serving.worker import Job, Worker

KEPT = "uploads"
"""The folder on the shelf with documents that are to be read."""


class Service:
    """One model, its Books, and the thread that computes.

    Attributes:
        loaded: The model.
        limits: How much may be asked for.
        worker: Runs all that the model does.
        shelf: The Books.
        kept: Documents to be read.
        readings: How they are read.
        preparing: What can be asked.
        metrics: What is counted.
        is_stopping: Whether no more is taken on.

    Args:
        loaded: The model.
        limits: How much may be asked for.
        memory: Which memory answers, as for `Session`.

    Raises:
        RequestError: Another server has this shelf, or it cannot be written to.
    """

    def __init__(self, loaded: LoadedModel, limits: Limits, memory: str = AUTO) -> None:
        self.loaded = loaded
        self.limits = limits
        together = Together(loaded, limits.at_once)
        self.worker = Worker(Schedule[Job](limits.questions, limits.readings), together.turn, limits.at_once)
        self.shelf = Shelf(loaded, limits.open_books, memory)
        self.kept = Kept(self.shelf.folder / KEPT)
        self.metrics = Metrics(self.worker)
        self.readings = Readings(
            loaded, self.worker, self.shelf, self.kept, limits.watchers, lambda tokens: self.metrics.read.inc(tokens)
        )
        self.preparing = Preparing(loaded, self.shelf.session)
        self.is_stopping = False

    def start(self) -> None:
        """Begin to work, first on what an earlier server left."""
        self.kept.open()
        for name in self.kept.deleted():
            self.remove(name)
        self.worker.start()
        self.readings.resume()

    def remove(self, name: str) -> None:
        """Remove a Book, and all that is kept of it; killed at this, a server ends it at its next start.

        Raises:
            OSError: Its files cannot be removed.
        """
        self.kept.mark(name, deleted=True)
        if name in self.shelf.names():
            self.shelf.remove(name, self.kept.place("gone"))
        self.kept.forget(name)
        self.readings.forget(name)

    def drain(self) -> None:
        """Take nothing more on; send those away who wait or follow a reading."""
        self.is_stopping = True
        self.worker.drain()
        self.readings.end_all()

    def stop(self) -> None:
        """End: a question gets its time, reading ends with its window and goes on at the next start."""
        self.drain()
        self.worker.stop(self.limits.grace_seconds)  # before this, uvicorn has waited for answers as long
        self.kept.close()
