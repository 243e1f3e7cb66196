"""Bodies of requests, bounded in size and in time while they come in."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.types import Message

from longfocus.serving.refusals import Refusal


def bounded(request: Request, most: int, seconds: float, silence: float) -> Request:
    """The same request, whose body is refused where it is too large or too slow.

    Args:
        request: As it came.
        most: Most bytes of the body.
        seconds: How long it may take.
        silence: How long nothing may come.

    Raises:
        Refusal: The request says itself that it is too large.
    """
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said[:20]) > most:
        raise _too_large(most)
    until = time.monotonic() + seconds
    came = 0

    async def receive() -> Message:
        nonlocal came
        try:
            async with asyncio.timeout(min(silence, until - time.monotonic())):
                message = await request.receive()
        except TimeoutError:
            raise Refusal(408, "the request's body came too slowly", "too_slow") from None
        came += len(message.get("body", b""))
        if came > most:
            raise _too_large(most)
        return message

    return Request(request.scope, receive)


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the request's body has more than {most:,} bytes; send less", "too_large")
