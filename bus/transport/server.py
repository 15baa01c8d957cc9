"""Servers: what of a URL may be shown, whether the way there leaves this machine, and what a look at one has found."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

import msgspec

ENCODE = "special characters in user names and passwords are percent-encoded, `@` as %40 and `/` as %2F"

_NO_PORT = re.compile(r":(?!\d*(?:[/,]|$))[^/,]*")

UNPROTECTED = (
    "everything goes to the broker unencrypted and unsigned: whoever gets in between can read it and have jobs done. "
    "Set signing_key (or ACTORBUS_SIGNING_KEY) to one secret in all processes, or use TLS (rediss://, tls://), or both"
)


def redacted(url: str) -> str:
    """A URL, or several with commas, to be shown: without user names, passwords, tokens and options.

    If it is not clear what is a secret, nothing but the scheme is shown. It never raises.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***" if "@" in url or "?" in url else url
    before, at, place = rest.rpartition("@")
    if any(mark in before for mark in "?#"):
        return f"{scheme}://***"
    for mark in "?#":
        place = place.partition(mark)[0]
    if "[" not in place:
        place = _NO_PORT.sub(":***", place)  # who forgets the host leaves a password in its place
    return f"{scheme}://{'***@' if at else ''}{place}"


def check_server_url(url: str, schemes: tuple[str, ...]) -> None:
    """Refuse a URL of another kind, or one that is cut in the wrong places because of what a password contains.

    Raises:
        ValueError: It is. No secret is shown, neither by the message nor by what led to it.
    """
    try:
        parts = urlsplit(url)
        path = "" if parts.scheme == "unix" else parts.path
        fits = parts.scheme in schemes and "@" not in path + parts.fragment and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        usual = " or ".join(f"{scheme}://host:port" for scheme in schemes)
        raise ValueError(f"{redacted(url)!r} is not the URL of a server: it looks like {usual}, and {ENCODE}")


def is_here(host: str) -> bool:
    """Whether the address of a server, or its name, means this machine: `localhost`, 127.0.0.0/8, ::1."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


FAR = 5.0
"""Seconds by which two clocks may differ without a warning: only times that people read depend on them."""


class Finding(msgspec.Struct, frozen=True):
    """What one check found.

    Attributes:
        check: What was looked at.
        state: `ok`, `warning` if jobs can be lost or stolen, `failed` if none can be done.
        text: What was found, and the way out if it is not ok.
    """

    check: str
    state: Literal["ok", "warning", "failed"]
    text: str


def of_clock(difference: float, uncertain: float) -> Finding:
    """What is found about a clock that is `difference` seconds ahead of ours, give or take `uncertain`."""
    state: Literal["ok", "warning"] = "warning" if abs(difference) - uncertain > FAR else "ok"
    advice = "; set both by NTP: times that are shown will be wrong, nothing else" if state == "warning" else ""
    return Finding("clock", state, f"{difference:+.3f} s from ours, within {uncertain:.3f} s{advice}")
