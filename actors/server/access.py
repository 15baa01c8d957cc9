"""What a server is told about whom to let in, and how much."""

from __future__ import annotations

import hmac
import math
import re
from collections import OrderedDict
from enum import Enum
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio
import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.server.problem import REQUEST_ID, HttpError, refusal, request_id_of

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""The names by which only this machine calls itself."""

_ALLOWED_HOST = re.compile(r"\*|(\*\.)?[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]")


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a server, each checked when it is made.

    Attributes:
        token: What an operator shows as `Authorization: Bearer ...`; None lets in everybody who reaches the port.
        read_token: One that may read and change nothing; needs `token`.
        allowed_hosts: By which names it may be called: what stands in `Host`, without the port. `*.example.com` is all
            names below that, `*` any name. By default loopback only, so that no page in a browser can get at it
            through a name of its own.
        cors_origins: The pages in browsers that may ask it, exactly: `https://app.example.com`. None by default.
        max_body_bytes: Bytes of a request's body, 1 or more.
        max_depth: How deeply a body's JSON may be nested, 1 or more.
        body_timeout: Seconds in which a body must have come; and, where `listen` serves, the head before it.
        rate: Requests a second from one address, on average, more than 0.
        burst: Requests from one address that may come at once, 1 or more.
        max_streams: Streams open at once, 0 or more.
        ping: Seconds between two signs of life on a stream.
        send_timeout: Seconds a reader of a stream may take to read on, before its stream is ended.
        invoke_timeout: Seconds an invocation may take; None for as long as its caller waits.
        drain_timeout: Seconds invocations may take when the server ends.
    """

    token: str | None = None
    read_token: str | None = None
    allowed_hosts: tuple[str, ...] = LOOPBACK
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 1_048_576
    max_depth: int = 64
    body_timeout: float = 30.0
    rate: float = 500.0
    burst: int = 1_000
    max_streams: int = 2_000
    ping: float = 15.0
    send_timeout: float = 30.0
    invoke_timeout: float | None = None
    drain_timeout: float = 30.0

    def __post_init__(self) -> None:
        for name in ("token", "read_token"):
            token = getattr(self, name)
            if token is not None and not (isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token)):
                raise ValueError(f"{name} must be a text of visible ASCII characters without spaces, or None")
        if self.read_token is not None and self.token in {None, self.read_token}:
            raise ValueError(
                "read_token needs another token= beside it: else everybody, or its owner, may do everything"
            )
        _check_hosts(self.allowed_hosts)
        _check_origins(self.cors_origins)
        for name, least in (("max_body_bytes", 1), ("max_depth", 1), ("burst", 1), ("max_streams", 0)):
            number = getattr(self, name)
            if not isinstance(number, int) or number < least:
                raise ValueError(f"{name} must be a whole number, {least} or more, got {number!r}")
        for name in ("body_timeout", "rate", "ping", "send_timeout", "invoke_timeout", "drain_timeout"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise ValueError(f"{name} must be more than 0, got {limit!r}")


def _check_hosts(hosts: Any) -> None:
    if isinstance(hosts, str) or not all(isinstance(host, str) and _ALLOWED_HOST.fullmatch(host) for host in hosts):
        raise ValueError(
            f"allowed_hosts must be names in small letters, without port, got {hosts!r}: ('api.example.com',)"
        )


def _check_origins(origins: Any) -> None:
    for origin in (origins,) if isinstance(origins, str) else origins:
        parts = urlsplit(origin)
        if isinstance(origins, str) or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}".lower():
            raise ValueError(
                f"cors_origins must be exact origins, got {origins!r}: ('https://app.example.com',), "
                "without a path and without wildcards"
            )
        if "*" in origin or parts.scheme not in {"http", "https"}:
            raise ValueError(f"cors_origins must be exact http or https origins, got {origin!r}")


def is_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a host, without port and in small letters, is one of those that are allowed."""
    return any(
        pattern in {"*", host} or (pattern.startswith("*.") and host.endswith(pattern[1:])) for pattern in allowed
    )


class Access(Enum):
    """What a route asks for."""

    OPEN = "open"
    """Nothing: whoever reaches the port."""
    READ = "read"
    """Either token."""
    OPERATE = "operate"
    """The operator's token."""


class Tokens:
    """Compares tokens in constant time, so that none can be guessed by how long its refusal takes."""

    def __init__(self, settings: ServerSettings) -> None:
        self._operator = _bytes(settings.token)
        self._reader = _bytes(settings.read_token)

    def require(self, headers: Headers, access: Access) -> None:
        """Refuse a request that does not show what a route asks for.

        Raises:
            HttpError: 401 without a token that is known, 403 with one that may only read.
        """
        if access is Access.OPEN or self._operator is None:
            return
        shown = headers.getlist("authorization")
        scheme, _, token = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
        given = token.strip(" ").encode("latin-1") if scheme.lower() == "bearer" else b""
        operates = hmac.compare_digest(given, self._operator)
        reads = self._reader is not None and hmac.compare_digest(given, self._reader)
        if operates or (reads and access is Access.READ):
            return
        if reads:
            raise HttpError(403, "forbidden", "this token may only read: use the operator's")
        raise HttpError(
            401,
            "unauthorized",
            "show a token that is known: Authorization: Bearer <token>",
            headers={"www-authenticate": 'Bearer realm="actorbus"'},
        )


def _bytes(token: str | None) -> bytes | None:
    return token.encode() if token is not None else None


MOST_ADDRESSES = 10_000
"""Addresses remembered. Who is forgotten begins anew with a full measure, so this is no way to be refused."""


class RateLimit:
    """A measure for each address, filled at a rate and emptied by requests.

    Args:
        rate: Requests a second.
        burst: How many may come at once.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def ask(self, address: str, now: float) -> float:
        """Count a request. 0 if it may go on, else the seconds after which it may."""
        left, since = self._left.pop(address, (float(self._burst), now))
        left = min(left + (now - since) * self._rate, self._burst)
        allowed = left >= 1
        self._left[address] = (left - 1 if allowed else left, now)
        if len(self._left) > MOST_ADDRESSES:
            self._left.popitem(last=False)
        return 0.0 if allowed else math.ceil((1 - left) / self._rate)


_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_READS = {"GET", "HEAD"}


class Guarded(Protocol):
    """What the guard must know of the server it stands before."""

    settings: ServerSettings
    rate: RateLimit

    def refused(self, status: int) -> None:
        """Count a request that was not let in."""


class Guard:
    """ASGI middleware in front of all routes; also of those that do not exist."""

    def __init__(self, app: ASGIApp, server: Guarded) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        if _REQUEST_ID.fullmatch(given):
            scope[REQUEST_ID] = given

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer["x-request-id"] = request_id_of(scope)
                answer["x-content-type-options"] = "nosniff"
                answer.setdefault("cache-control", "no-store")
            await send(message)

        try:
            self._check_host(headers)
            self._check_rate(scope)
            self._check_origin(scope, headers)
        except HttpError as error:
            self._server.refused(error.status)
            await refusal(error, scope)(scope, receive, named)
            return
        await self._app(scope, receive, named)

    def _check_host(self, headers: Headers) -> None:
        """Refuse a name that is none of ours: a page in a browser may give its own name our address."""
        hosts = headers.getlist("host")
        parts = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if parts is None:
            raise HttpError(400, "bad_host", "a request needs one Host header, with a name and perhaps a port")
        if not is_allowed(parts["name"].lower(), self._server.settings.allowed_hosts):
            raise HttpError(421, "wrong_host", f"this server is not called {parts['name']!r}: see allowed_hosts=")

    def _check_rate(self, scope: Scope) -> None:
        client = scope.get("client")
        wait = self._server.rate.ask(client[0] if client else "", anyio.current_time())
        if wait:
            headers = {"retry-after": f"{wait:.0f}"}
            raise HttpError(429, "too_many_requests", "too many requests: slower", retry=True, headers=headers)

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuse what a page of somebody else would change: not every such request is asked about before."""
        origins = headers.getlist("origin")
        if not origins or scope["method"] in _READS:
            return
        # Its own pages may come through a proxy that speaks another scheme: of those only the host is compared.
        own = origins[0].partition("://")[2].lower() == headers["host"].lower()
        if len(origins) != 1 or not (own or origins[0] in self._server.settings.cors_origins):
            raise HttpError(403, "wrong_origin", f"pages of {origins[0]!r:.100} may not do that: see cors_origins=")
