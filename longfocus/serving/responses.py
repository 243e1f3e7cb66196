"""Responses: JSON, and server-sent events that end when the client is gone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from longfocus.serving.refusals import Refusal


class Json(Response):
    """An object as JSON. In ASCII, so that half a character in a document harms nothing."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def refused(refusal: Refusal) -> Json:
    """The response to a request that is not served."""
    return Json(refusal.to_json(), refusal.status, refusal.headers)


class Events(StreamingResponse):
    """Server-sent events.

    Args:
        events: The events, as `event` and `comment` write them.
        gone: Called when no more is sent, because all was or because the client is gone.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], gone: Callable[[], None]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._gone = gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events as they come."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._gone()


def event(content: Any) -> str:
    """One event that carries JSON, or a word."""
    data = content if isinstance(content, str) else json.dumps(content, allow_nan=False, separators=(",", ":"))
    return f"data: {data}\n\n"


COMMENT = ": still here\n\n"
"""Keeps a connection open on which nothing happens."""
