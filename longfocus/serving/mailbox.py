"""From the worker's thread to a task of the server's event loop."""

from __future__ import annotations

import asyncio
import contextlib

from longfocus.serving.worker import Told


class Mailbox:
    """What a job tells, for one task to wait for. Made in the event loop; filled from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Told] = asyncio.Queue()

    def put(self, told: Told) -> None:
        """Hand something over; where the loop is gone, nobody waits for it any more."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, told)

    async def get(self) -> Told:
        """The next thing told."""
        return await self._queue.get()
