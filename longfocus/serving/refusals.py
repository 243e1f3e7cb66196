"""Why a request is not served, as OpenAI's API says it: a status and a JSON object `error`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longfocus.errors import BookError, DocumentError, RequestError, UserError

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refusal(Exception):
    """A request that is not served.

    Attributes:
        status: HTTP's number for it.
        message: What was wanted, what came, what to do; in one line, without paths of this machine.
        code: A word for programs.
        param: The field that is at fault.
        retry_after: Seconds after which asking again makes sense.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = " ".join(message.split())
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def to_json(self) -> dict[str, Any]:
        """The body of the response."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def refusal_of(error: Exception, folder: Path | None = None, name: str = "") -> Refusal:
    """What a client is told of an error below: its line where it can mend the cause, no more than that where not.

    Args:
        error: What was raised.
        folder: A path of this machine that may stand in its line.
        name: What the client calls it.
    """
    if isinstance(error, Refusal):
        return error
    if not isinstance(error, UserError):
        return Refusal(500, "the server failed at this; its log says why", "internal_error")
    line = str(error) if folder is None else str(error).replace(str(folder), name)
    if isinstance(error, RequestError):
        return Refusal(400, line, "context_length_exceeded" if "shorten it" in line else None)
    if isinstance(error, DocumentError):
        return Refusal(400, line, "document_unreadable", "file")
    return Refusal(409, line, "book_unusable" if isinstance(error, BookError) else None)


def no_such(book: str) -> Refusal:
    """There is no Book of this name."""
    return Refusal(404, f"there is no book {book[:100]!r} here; /v1/books lists those that there are", "book_not_found")
