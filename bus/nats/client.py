"""The client of nats-py as this project uses it: less is waited for between the socket and the listeners.

Only this file knows the insides of the library. For asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError, ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE

from bus.errors import BusError
from bus.transport.server import ENCODE, check_server_url, is_here, redacted


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


def number_of(subscription: Subscription) -> int:
    """The number by which the server and the client know a subscription."""
    return subscription._id


def life_of_server(client: Client) -> str:
    """What names the present life of the server; empty in a cluster, where what is stored outlives a server."""
    info = client._server_info
    return "" if "cluster" in info else str(info["server_id"])


_END = b"\r\n"


class UnreadableError(ProtocolError):
    """The server, or what stands between, has sent what the library cannot read; it has logged that."""

    def __str__(self) -> str:
        return "what came over the connection cannot be read"


class StraightClient(Client):
    """The library's client, which hands on messages as they are read, and leaves it to the link to end a connection.

    On its own it wakes one task for what is read and another for each subscription; and it closes a connection that
    failed in the middle of its reader, where an error of it escapes without a report.

    Attributes:
        secure: Whether a server without TLS is refused.
        straight: By number of the subscription, what takes the content of its messages, in a task.
        listeners: By number of the subscription, what takes its messages, also where no task runs: it may not begin
            one, nor ask for the time. None of all these may raise.
    """

    secure = False

    def __init__(self) -> None:
        super().__init__()
        self.straight: dict[int, Callable[[bytes], None]] = {}
        self.listeners: dict[int, Callable[[Msg], None]] = {}
        self._feed: Callable[[bytes], None] = lambda _data: None
        self._unread: Any = b""
        self._ended = asyncio.Event()

    def read_straight(self) -> None:
        """Take what comes over the connection, which has just been made, before the library does."""
        reader = getattr(self._transport, "_io_reader", None)
        if reader is not None:
            self._feed, self._unread = reader.feed_data, reader._buffer
            reader.feed_data = self._read

    def write(self, subject: str, payload: bytes) -> bool:
        """Write a message to the socket. False, and nothing done, if it takes no more or something has to go first."""
        writer = getattr(self._transport, "_io_writer", None)
        if self._pending or writer is None or not self.is_connected or writer.transport.get_write_buffer_size():
            return False
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(payload)
        writer.write(b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(payload), payload))
        return True

    def cut(self) -> None:
        """End the connection at once: one that is closed waits for its buffer to be sent, over a dead link for ever."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        self._ended.set()

    def forget_unsent(self) -> None:
        """Drop what was not written to the socket yet."""
        self._pending.clear()
        self._pending_data_size = 0

    def _read(self, data: bytes) -> None:
        """Hand on the messages in front that are complete; the library has what follows them."""
        place = 0
        library = self._ps
        if (
            not (self._unread or library.buf) and library.state == AWAITING_CONTROL_LINE
        ):  # it is not in the middle of one
            # Nor does it begin with one that cannot be read: the library judges that, in its reader.
            with suppress(ValueError):
                while (line := data.find(_END, place)) > 0:
                    kind, *words = data[place:line].split()
                    begin = line + len(_END)
                    if kind == b"MSG":
                        subject, sid, *reply, size = words
                        body = begin
                    elif kind == b"HMSG":
                        subject, sid, *reply, headers, size = words
                        body = begin + int(headers)
                    else:
                        break
                    end = begin + int(size)
                    if (
                        not begin <= body <= end <= len(data) - len(_END)
                        or int(sid) in self.straight
                        or not self._hand_on(
                            int(sid), subject, reply[0] if reply else b"", data[body:end], data[begin:body]
                        )
                    ):
                        break
                    place = end + len(_END)
        if place < len(data):
            self._feed(data[place:] if place else data)

    def _hand_on(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> bool:
        if (take := self.straight.get(sid)) is not None:
            take(data)
        elif (listen := self.listeners.get(sid)) is not None:
            listen(self._build_message(sid, subject, reply, data, self._headers(headers) if headers else None))
        else:
            return False
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        return True

    def _headers(self, headers: bytes) -> Any:
        try:
            self._process_headers(headers).send(None)
        except StopIteration as done:  # it never waits for anything
            return done.value

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if not self._hand_on(sid, subject, reply, data, headers):
            await super()._process_msg(sid, subject, reply, data, headers)

    async def _flush_pending(self, force_flush: bool = False) -> Any:  # noqa: FBT002 - as the library has it
        """Wake the flusher; wait for it, at most as long as the connection lives, if too much is unsent.

        The library waits for a flusher that may have ended, and takes a cancellation for an answer meanwhile.

        Raises:
            ConnectionClosedError: It has ended first.
        """
        if not force_flush or not self.is_connected or self._flush_queue is None:
            return await super()._flush_pending()
        loop = asyncio.get_running_loop()
        flushed: asyncio.Future[None] = loop.create_future()
        ended = loop.create_task(self._ended.wait())
        queued = loop.create_task(self._flush_queue.put(flushed))
        try:
            await asyncio.wait((flushed, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            queued.cancel()
        if not self.is_connected:
            raise ConnectionClosedError
        return None

    async def _read_loop(self) -> None:
        await super()._read_loop()
        await self._process_op_err(UnreadableError())  # whatever has ended it: nobody reads any more

    async def _process_op_err(self, e: Exception) -> None:
        if self.is_connected and self._disconnected_cb is not None:
            self._status = Client.DISCONNECTED
            self._ended.set()
            await self._error_cb(e)
            await self._disconnected_cb()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT002
        # The library speaks plain text with a server that asks for nothing better, also if the URL says `tls://`.
        if self.secure and initial_connection and not info.get("tls_required"):
            raise BusError(
                "the server speaks no TLS: give it a certificate, or use nats:// knowingly; nothing was sent"
            )
        await super()._process_info(info, initial_connection)
