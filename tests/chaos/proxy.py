"""A TCP proxy on this machine that does to connections what networks do: cut, garble, hold up, swallow."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from random import Random
from types import TracebackType
from typing import Self

CHUNK = 65536


class _Side:
    """One direction of a connection."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.garble = False
        self._proxy = proxy
        self._reader = reader
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await self._reader.read(CHUNK):
            if self.garble:
                data = self._proxy.rng.randbytes(len(data))
            elif self._proxy.flips and self._proxy.rng.random() < self._proxy.flips:
                data = self._proxy.flip(data)
            self._queue.put_nowait((loop.time() + self._proxy.latency, data))
        self._queue.put_nowait((loop.time() + self._proxy.latency, b""))

    async def write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await self._queue.get()
            await asyncio.sleep(due - loop.time())
            await self._proxy.flowing.wait()
            if not data:
                break
            self.writer.write(data)
            await self.writer.drain()
        self.writer.write_eof()


class _Connection:
    def __init__(self, inward: _Side, outward: _Side) -> None:
        self.inward = inward
        self.outward = outward

    async def pump(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for side in (self.inward, self.outward):
                    tasks.create_task(side.read())
                    tasks.create_task(side.write())
        except* (OSError, RuntimeError):
            pass
        finally:
            for side in (self.inward, self.outward):
                side.writer.transport.abort()

    def half_close(self) -> None:
        with suppress(OSError, RuntimeError):  # it is closed
            self.inward.writer.write_eof()

    def garble(self) -> None:
        self.inward.garble = True

    def reset(self) -> None:
        for side in (self.inward, self.outward):
            with suppress(OSError):  # it is closed
                found = side.writer.transport.get_extra_info("socket")
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            side.writer.transport.abort()


class Proxy:
    """Forwards one port to another, in a thread of its own.

    Args:
        port: Where to.
        rng: Where garbage comes from.
    """

    def __init__(self, port: int, rng: Random) -> None:
        self.rng = rng
        self.latency = 0.0
        self.flips = 0.0
        """Share of the chunks, in both directions, in each of which one byte is changed."""
        self.flipped = 0
        self.flowing: asyncio.Event
        self.port = 0
        self.accepted = 0
        self._to = port
        self._connections: dict[_Connection, None] = {}
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)

    def flip(self, data: bytes) -> bytes:
        """Change one byte."""
        self.flipped += 1
        place = self.rng.randrange(len(data))
        return data[:place] + bytes([data[place] ^ self.rng.randrange(1, 256)]) + data[place + 1 :]

    def reset(self) -> None:
        """Cut every connection with an RST."""
        self._do(_Connection.reset)

    def half_close(self) -> None:
        """Say to the clients that the server will send no more."""
        self._do(_Connection.half_close)

    def garble(self) -> None:
        """From now on every connection there is brings noise to the client."""
        self._do(_Connection.garble)

    def hold(self) -> None:
        """Forward nothing, and say nothing."""
        self._do_itself(self.flowing.clear)

    def release(self) -> None:
        """Forward what was held, and what comes."""
        self._do_itself(self.flowing.set)

    def _do(self, what: Callable[[_Connection], None]) -> None:
        def to_all() -> None:
            for connection in tuple(self._connections):
                what(connection)

        self._do_itself(to_all)

    def _do_itself(self, what: Callable[[], None]) -> None:
        done: Future[None] = Future()

        def do() -> None:
            try:
                done.set_result(what())  # type: ignore[func-returns-value]  # it returns when it is done
            except Exception as error:  # noqa: BLE001 - raised where it was asked for
                done.set_exception(error)

        self._loop.call_soon_threadsafe(do)
        done.result(20)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.flowing = asyncio.Event()
        self.flowing.set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        for connection in tuple(self._connections):
            connection.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(_Side(self, from_server, writer), _Side(self, reader, to_server))
        self._connections[connection] = None
        try:
            await connection.pump()
        except asyncio.CancelledError:  # the proxy ends, and asyncio would print that
            pass
        finally:
            del self._connections[connection]
