"""The NATS servers that a URL names."""

from __future__ import annotations

from urllib.parse import urlsplit

from nats.aio.client import Client

from bus.server_url import ENCODE, check_server_url, is_here, redacted


def servers(url: str) -> list[str]:
    """The servers that a URL names, each as a URL.

    Raises:
        ValueError: One of them is none. No secret is shown.
    """
    pieces = [piece if "://" in piece else f"nats://{piece}" for piece in url.split(",")]
    for piece in pieces:
        try:
            check_server_url(piece, ("nats", "tls"))
            parts = urlsplit(piece)
            usable = parts.hostname and not (parts.path.strip("/") or parts.query or parts.fragment)
        except ValueError:
            usable = False
        if not usable:
            # With a comma in a password, a piece alone looks harmless and is half a secret.
            raise ValueError(
                f"{redacted(url)!r} is not the URL of a NATS server: that is nats://host:port or tls://host:port, with "
                f"nothing behind the port; {ENCODE}, `,` as %2C"
            )
    return pieces


def exposed(url: str, client: Client | None) -> str:
    """The servers that are reached without encryption beyond this machine; empty if there are none."""
    if client is not None and client.options.get("tls"):
        return ""
    uris = [server.uri.geturl() for server in client._server_pool] if client is not None else servers(url)
    places = [urlsplit(uri) for uri in uris]
    return ",".join(
        place.hostname
        for place in places
        if place.hostname and place.scheme not in {"tls", "wss"} and not is_here(place.hostname)
    )
