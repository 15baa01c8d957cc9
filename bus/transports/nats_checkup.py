"""A look at a NATS server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio

from bus.checkup import Finding
from bus.errors import BusError, TransportError
from bus.transports.jetstream_layout import Layout, token
from bus.transports.nats_link import NatsLink, connect

OLDEST = (2, 9)
"""The first version of the server that the transport runs on."""


async def examine_nats(url: str, namespace: str, patience: float) -> AsyncIterator[Finding]:
    """Look at the server of a URL; see `bus.checkup.examine`."""
    link: NatsLink | None = None
    try:
        try:
            with anyio.fail_after(patience):
                link = await connect(url, "actorbus-doctor", lambda: None)
        except (BusError, TimeoutError) as error:
            why = str(error) or "it does not answer"
            yield Finding("broker", "failed", f"{why}: is it running, and is the URL right?")
            return
        yield Finding("broker", "ok", f"{link.where} answers")
        version = link.client.connected_server_version
        known = f"NATS {version.major}.{version.minor}.{version.patch}"
        old = (version.major, version.minor) < OLDEST
        yield (
            Finding("version", "failed", f"{known}: 2.9 or newer is needed") if old else Finding("version", "ok", known)
        )
        try:
            with anyio.fail_after(patience):
                yield await _persistence(link, namespace)
                yield await _rights(link, namespace)
        except (TransportError, TimeoutError) as error:
            yield Finding("persistence", "failed", str(error) or "JetStream does not answer: start the server with -js")
            return
        yield Finding("clock", "ok", "NATS does not tell its time, and nothing depends on it")
    finally:
        if link is not None:
            with anyio.CancelScope(shield=True):
                await link.close()


async def _persistence(link: NatsLink, namespace: str) -> Finding:
    account = await link.api("INFO")
    if "error" in account:
        why = account["error"].get("description", "no reason given")
        return Finding("persistence", "failed", f"JetStream is refused ({why}): give this account JetStream")
    layout = Layout(namespace, 30.0)
    in_memory = []
    for name in (layout.jobs, layout.inboxes, layout.dead):
        stream: dict[str, Any] = await link.api(f"STREAM.INFO.{name}")
        if stream.get("config", {}).get("storage") == "memory":
            in_memory.append(name)
    if in_memory:
        text = f"{', '.join(in_memory)} in memory: a crash of it loses queued jobs; make them with storage file"
        return Finding("persistence", "warning", text)
    return Finding("persistence", "ok", "JetStream writes to files what it accepts; they are synced every two minutes")


async def _rights(link: NatsLink, namespace: str) -> Finding:
    subject = f"{token(namespace)}.doctor"

    def heard(_message: object) -> None:
        """Nobody writes there but us."""

    await link.listen(subject, heard)
    await link.tell(subject)
    await link.api("INFO")  # what was refused is told before this is answered
    if link.forbidden:
        text = (
            f"{link.forbidden}: allow this user to publish and subscribe {token(namespace)}.>, $JS.API.> and _INBOX.>"
        )
        return Finding("rights", "failed", text)
    return Finding("rights", "ok", f"publishing and subscribing below {token(namespace)}. is allowed")
