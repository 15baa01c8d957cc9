"""What a server is told about whom to let in, and how much."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""The names by which only this machine calls itself."""

_HOST = re.compile(r"\*|(\*\.)?[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]")


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
    if isinstance(hosts, str) or not all(isinstance(host, str) and _HOST.fullmatch(host) for host in hosts):
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
