"""Who may ask: checked before anything else of a request is looked at.

A server on this machine is within reach of every page that its user visits. So a request has to name a host that we
are (a page elsewhere can have its own name point here), and one that a page sends has to come from our own page.
Beyond this machine there is a key.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longfocus.errors import RequestError
from longfocus.serving.refusals import Refusal
from longfocus.serving.responses import refused

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:\d*)?")
_OPEN = ("/health",)
_KEYED = ("/v1", "/metrics")
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every response: the page may use nothing but this server, and nobody may embed it."""


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        keys: Each of them is one client's; none means that everybody may.
        hosts: What requests may call this server; none means anything.
    """

    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = LOOPBACK


def access_for(host: str, keys: tuple[str, ...], more_hosts: tuple[str, ...], proxies: tuple[str, ...] = ()) -> Access:
    """Who may ask a server that listens at an address.

    Args:
        host: The address.
        keys: Keys of clients.
        more_hosts: Names by which it is called besides; beyond this machine any will do where none is given.
        proxies: Addresses of proxies in front of it.

    Raises:
        RequestError: It would be open to other machines without a key, or a key is none.
    """
    for key in keys:
        if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
            raise RequestError("a key must have 16 characters or more, of ASCII and without spaces")
    is_ours = is_loopback(host)
    if not keys and not is_ours:
        raise RequestError(
            f"listening at {host} lets other machines in; set a key in LONGFOCUS_API_KEY, or listen at 127.0.0.1"
        )
    if not keys and proxies:
        raise RequestError("a proxy lets other machines in; set a key in LONGFOCUS_API_KEY, or leave out --proxy")
    if not is_ours and not more_hosts:
        return Access(keys, ())
    return Access(keys, (*LOOPBACK, *(name.lower() for name in more_hosts)))


def is_loopback(host: str) -> bool:
    """Whether an address is within reach of this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """Lets requests through that may ask, and notes in their state whose they are (`client`).

    Args:
        app: What serves them.
        access: Who may ask.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        request_id = f"req_{secrets.token_hex(8)}"

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("X-Request-ID", request_id)
            await send(message)

        try:
            who = self._let_in(scope["path"], scope.get("scheme", "http"), Headers(scope=scope))
        except Refusal as refusal:
            await refused(refusal)(scope, receive, guarded)
            return
        address = scope["client"][0] if scope.get("client") else "?"
        scope.setdefault("state", {})["client"] = f"{who}@{address}"
        await self._app(scope, receive, guarded)

    def _let_in(self, path: str, scheme: str, headers: Headers) -> str:
        host = headers.get("host", "")
        named = _HOST.fullmatch(host)
        if self._access.hosts and (named is None or named[1].lower() not in self._access.hosts):
            raise Refusal(421, "this server is not called that; --allow-host lets it be called otherwise", "wrong_host")
        origin = headers.get("origin")
        if origin is not None and not _same_origin(origin, host):
            raise Refusal(403, "pages of other servers may not ask this one", "cross_origin")
        if not self._access.keys or path in _OPEN or not path.startswith(_KEYED):
            return "any"
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            for number, key in enumerate(self._access.keys):
                if hmac.compare_digest(given.strip().encode(), key.encode()):
                    return f"key {number}"
        raise Refusal(401, "the API key is missing or wrong; send `Authorization: Bearer KEY`", "invalid_api_key")


def _same_origin(origin: str, host: str) -> bool:
    """Whether a page's origin is this server, by the name that the request calls it; a proxy may add the s of https."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
