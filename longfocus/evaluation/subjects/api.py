"""Requests to an API that speaks JSON over HTTP: tried again where that may help, and told of in one line where not.

The key goes into a header and nowhere else: not into results, not into errors, not even where an API quotes it.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from longfocus.errors import RequestError

TRIES = 6
LONGEST_WAIT = 120.0
_AGAIN = {408, 409, 425, 429}
_LATE = 2
_MESSAGE = 300


class Refused(RequestError):
    """The API answered with an error.

    Attributes:
        status: Its number.
        message: What the API said, in one line.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the API answered {status}: {message}")
        self.status = status
        self.message = message


def key_of(variable: str, *, needed: bool) -> str | None:
    """The key in an environment variable; None where there is none and none is needed.

    Raises:
        RequestError: It is missing, or no key can look like that.
    """
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        raise RequestError(f"the environment variable {variable} is not set; put the API's key there")
    if key and not (key.isascii() and key.isprintable()):
        raise RequestError(f"the environment variable {variable} holds no key: there are characters that none has")
    return key or None


class Api:
    """Where requests go.

    Args:
        base: The address up to the version, such as `https://api.openai.com/v1`.
        headers: Sent with each request; values are secret.
        secret: What must not be shown; None for nothing.
        seconds: After which an answer counts as not coming.
        wait: Lets seconds pass; for tests.

    Attributes:
        place: The address without user, password or query, for results.

    Raises:
        RequestError: The address is none, or httpx2 is not installed.
    """

    def __init__(
        self,
        base: str,
        headers: Mapping[str, str],
        secret: str | None = None,
        *,
        seconds: float = 600.0,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        if importlib.util.find_spec("httpx2") is None:
            raise RequestError("models behind an API need the package httpx2: pip install longfocus[api]")
        import httpx2

        try:
            address = httpx2.URL(base)
        except httpx2.InvalidURL:
            address = httpx2.URL("")
        if address.scheme not in ("http", "https") or not address.host:
            raise RequestError("the API's address is none: it begins with http:// or https://, then the server's name")
        self.place = str(address.copy_with(userinfo=b"", query=None, fragment=None)).rstrip("/")
        self._base = str(address).rstrip("/")
        self._headers = dict(headers)
        self._secret = secret
        self._seconds = seconds
        self._wait = wait

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return what comes.

        Requests that were too many, and answers that failed at the other end or did not come, are tried again: 6 times
        in all, after as long as the API asks for (2 minutes at most), or else after 1, 2, 4, 8 and 16 seconds. One
        whose answer took too long is tried twice.

        Raises:
            Refused: The API answered with an error.
            RequestError: It could not be reached, gave no answer in time, or none that can be read.
        """
        import httpx2

        failed: RequestError
        with httpx2.Client(headers=self._headers, timeout=httpx2.Timeout(self._seconds, connect=20.0)) as client:
            for attempt in range(1, TRIES + 1):
                pause, tries = float(2 ** (attempt - 1)), TRIES
                try:
                    response = client.post(f"{self._base}/{path}", json=dict(body))
                except httpx2.ReadTimeout:
                    failed, tries = RequestError(f"{self.place} gave no answer in {self._seconds:.0f} s"), _LATE
                except httpx2.RequestError as error:
                    reason = str(error) or type(error).__name__
                    failed = RequestError(self._plain(f"{self.place} cannot be reached: {reason}"))
                else:
                    if response.is_success:
                        return self._read(response)
                    failed = Refused(response.status_code, self._said(response))
                    if response.status_code not in _AGAIN and response.status_code < 500:
                        raise failed
                    pause = _asked_for(response.headers) or pause
                if attempt >= tries or pause > LONGEST_WAIT:
                    break
                self._wait(pause)
        after = f"asks to wait {pause:.0f} s" if pause > LONGEST_WAIT else f"tried {attempt} times"
        raise RequestError(f"{failed}; {after}")

    def _read(self, response: Any) -> dict[str, Any]:
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RequestError(f"{self.place} answered with something else than JSON; is it the address of an API?")
        return found

    def _said(self, response: Any) -> str:
        """What an error says, in the forms that are in use."""
        try:
            found = response.json()
        except ValueError:
            found = None
        error = found.get("error", found) if isinstance(found, dict) else None
        said = error.get("message", error.get("detail")) if isinstance(error, dict) else error
        return self._plain(said if isinstance(said, str) and said.strip() else response.reason_phrase or "no reason")

    def _plain(self, text: str) -> str:
        if self._secret:
            text = text.replace(self._secret, "(key)")
        text = " ".join(text.split())
        return text if len(text) <= _MESSAGE else text[: _MESSAGE - 3] + "..."


def _asked_for(headers: Mapping[str, str]) -> float | None:
    """Seconds that the API asks to wait, by `Retry-After` as a number or a date."""
    said = headers.get("retry-after", "").strip()
    if not said:
        return None
    try:
        return max(float(said), 0.0) if float(said) < float("inf") else None
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    return max((until - datetime.now(UTC)).total_seconds(), 0.0)
