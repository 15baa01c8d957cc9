"""The server on a port, run in the loop of its workers."""

from __future__ import annotations

import ipaddress
import math
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from actors.runner.signals import watching
from actors.server.app import service_of
from actors.server.service import Service
from bus.log import log


class Connection(H11Protocol):
    """Closes itself when the head of a request does not come within `body_timeout` seconds.

    h11 refuses what is ambiguous in a request, which others let through to be read in two ways.
    """

    _late: Any = None

    def connection_made(self, transport: Any) -> None:
        """Somebody has connected."""
        super().connection_made(transport)
        self._expect_a_head()

    def data_received(self, data: bytes) -> None:
        """Something of a request has come."""
        super().data_received(data)
        cycle: Any = self.cycle  # None before the first request, whatever uvicorn says
        if cycle is not None and not cycle.response_complete:
            self._be_patient()
        elif self._late is None:
            self._expect_a_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._be_patient()
        super().connection_lost(exc)

    def _expect_a_head(self) -> None:
        app: Any = self.config.app
        self._late = self.loop.call_later(service_of(app).settings.body_timeout, self.transport.close)

    def _be_patient(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


DEFAULT_PORT = 8_000

LONGEST_PATIENCE = 2**31 - 1
"""Milliseconds: what a socket takes."""


def check_binding(host: str, token: str | None) -> None:
    """Refuse to be reachable from other machines without a token.

    Args:
        host: The address that is to be bound.
        token: The operator's token.

    Raises:
        ValueError: The address is not one of loopback, and there is no token.
    """
    if token is None and not _is_loopback(host):
        raise ValueError(
            f"refusing to listen on {host!r} without a token: whoever reaches the port could submit and cancel. "
            "Give token=, or listen on 127.0.0.1"
        )


async def listen(
    app: Starlette,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    stop: anyio.Event | None = None,
    **options: Any,
) -> None:
    """Serve an app until a signal ends it: first it takes no more work (503), then what is under way ends, then it.

    A second signal ends it at once, and so does cancelling the call. Loopback by default.

    Args:
        app: What `create_app` or `serve` made.
        host: The address to bind.
        port: The port; 0 for a free one.
        stop: Ends it as a signal does.
        options: Further ones of `uvicorn.Config`.

    Raises:
        ValueError: The address can be reached from other machines, and the app has no token.
        OSError: The address cannot be bound.
        RuntimeError: The app did not start; the log says why.
    """
    service = service_of(app)
    check_binding(host, service.settings.token)
    settings: dict[str, Any] = {"lifespan": "on", "http": Connection, "ws": "none", "server_header": False, **options}
    drain = service.settings.drain_timeout
    patience = math.ceil(drain) if math.isfinite(drain) else None
    server = _Server(uvicorn.Config(app, timeout_graceful_shutdown=patience, **settings), stop or anyio.Event())
    with _bind(host, port, service.settings.send_timeout) as bound:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_run, server, service, bound)
            try:
                await server.over.wait()
            except BaseException:
                service.close()
                server.should_exit = True
                raise
    if not server.started:
        raise RuntimeError("the server did not start: the log says why")


class _Server(uvicorn.Server):
    """Drains before it stops to listen, so that who comes meanwhile is told to come back."""

    def __init__(self, config: uvicorn.Config, asked: anyio.Event) -> None:
        super().__init__(config)
        self.asked = asked
        self.over = anyio.Event()
        self.signal = ""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """End by signals, but by those that the program around handles itself."""
        with watching((signal.SIGINT, signal.SIGTERM), self.received):
            yield

    def received(self, number: signal.Signals) -> None:
        """A signal came."""
        if self.asked.is_set():
            self.should_exit = self.force_exit = True
            return
        self.signal = number.name
        self.asked.set()


async def _run(server: _Server, service: Service, bound: socket.socket) -> None:
    """Serve, shielded from whoever cancels: that ends it in order, like any other end."""
    try:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_drain_first, server, service)
                with suppress(SystemExit):  # how it says that the app did not start
                    await server.serve(sockets=[bound])
                tasks.cancel_scope.cancel()
    finally:
        server.over.set()


async def _drain_first(server: _Server, service: Service) -> None:
    await server.asked.wait()
    if server.signal:
        log().info("signal: draining, once more to stop at once", signal=server.signal)
    await service.drain()
    server.should_exit = True


def _bind(host: str, port: int, patience: float) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # With its protocol said: asyncio sends small writes at once only then, and else an answer may wait 40 ms for the
    # acknowledgement of its head.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Connections inherit it. A reader that stalls is given up by the server, but what it had been sent waits
            # in the system for as long as the reader likes: seen on Linux, for ever without this.
            bound.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, math.ceil(min(patience * 1000, LONGEST_PATIENCE))
            )
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False  # a name may stand for any address
