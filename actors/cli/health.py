"""Health of a worker process, over HTTP by a thread of its own: also while the event loop is stuck."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import anyio

from actors.cli.failures import usage
from actors.cli.output import encoded

BEAT = 1.0
"""Seconds between two signs of life of the event loop."""

PATIENCE = 10.0
"""Seconds without one after which it counts as stuck."""

SLOWEST_CALLER = 5.0
"""Seconds a caller may take to say what it wants."""


class Health:
    """What is known of this process.

    Args:
        clock: Tells seconds that only grow.

    Attributes:
        ready: Whether it is connected and serves.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.ready = False
        self._clock = clock
        self._beat = clock()

    async def beat(self) -> None:
        """Give signs of life until cancelled."""
        while True:
            self._beat = self._clock()
            await anyio.sleep(BEAT)

    def answer(self, path: str) -> tuple[HTTPStatus, dict[str, object]]:
        """What is answered to a GET."""
        silent = self._clock() - self._beat
        alive = silent < PATIENCE
        state: dict[str, object] = {
            "alive": alive,
            "ready": alive and self.ready,
            "loop_silent_seconds": round(silent, 1),
        }
        match path.partition("?")[0]:
            case "/livez":
                good = alive
            case "/readyz" | "/health":
                good = alive and self.ready
            case _:
                return HTTPStatus.NOT_FOUND, {"error": "there is /livez, /readyz and /health"}
        return HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, state


@contextmanager
def served(health: Health, port: int) -> Iterator[int]:
    """Tell the health of this process at a port of this machine, as long as the block; it is given the port.

    Raises:
        CommandError: The port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout: ClassVar[float] = SLOWEST_CALLER

        def do_GET(self) -> None:
            status, state = health.answer(self.path)
            body = encoded(state).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """A probe a second is no news."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_arguments: object) -> None:
            """A caller that hangs up before its answer is no news either."""

    try:
        server = Server(("127.0.0.1", port), Handler)
    except OSError as error:
        raise usage(
            f"port {port} for --health-port cannot be had: {error.strerror}; name another, or 0 for a free one"
        ) from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
