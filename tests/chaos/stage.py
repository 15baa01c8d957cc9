"""Where a chaos scenario plays: a broker, processes with a proxy each, and their lines."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec

from bus import BusOptions
from bus.brokers import BROKERS, Broker
from tests.chaos.lines import Event, Journal, Line, Reader
from tests.chaos.node import Ask, Settings
from tests.chaos.proxy import Proxy
from tests.support.environment import ROOT, environment

Kind = Literal["redis", "nats"]
KINDS: tuple[Kind, ...] = ("redis", "nats")

QUICK: BusOptions = {"heartbeat": 0.5, "lease": 2.0, "ack_wait": 2.0}
"""Leases as short as a busy machine allows: what most scenarios wait for."""

LONGEST_WAIT = 60.0
"""Seconds until something that is waited for counts as never coming: a fault, not a slow machine."""

POLL = 0.02


class Node:
    """One process, through its proxy if it has one."""

    def __init__(self, stage: Stage, settings: Settings, proxy: Proxy | None) -> None:
        self.settings = settings
        self.proxy = proxy
        self._stage = stage
        command = [sys.executable, "-m", "tests.chaos.node", msgspec.json.encode(settings).decode()]
        said = stage.directory / f"{settings.name}.log"
        with said.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.life = f"{settings.name}#{self.process.pid}"

    def tell(self, command: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + b"\n")
        self.process.stdin.flush()

    def ask(self, **what: Any) -> None:
        """Ask for jobs; see `Ask`."""
        self.tell(msgspec.json.encode(Ask(**{"seed": self._stage.rng.getrandbits(32), **what})))

    def signal(self, number: signal.Signals, event: Event | None = None) -> None:
        """Send a signal, and write down that it was."""
        if event is not None:
            self._stage.note(event, self)
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self._stage.note("died", self)
        self.close()

    def left(self, within: float = LONGEST_WAIT) -> None:
        """Wait until it has ended, and write down how."""
        code = self.process.wait(within)
        self.close()
        self._stage.note("left", self, number=code)

    def close(self) -> None:
        """Let it end in order."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def again(self) -> Node:
        """Start it once more."""
        return self._stage.start(self.settings, self.proxy)

    def lines(self, *events: str) -> list[Line]:
        """What it wrote in this life."""
        return [line for line in self._stage.lines if line.node == self.life and line.event in events]

    def statistics(self) -> dict[str, int]:
        """What it holds now."""
        before = len(self.lines("statistics"))
        self.tell(b"statistics")
        self._stage.until(lambda: len(self.lines("statistics")) > before, f"{self.life} does not answer")
        return self.lines("statistics")[-1].figures


class Stage:
    """One scenario's world.

    Args:
        kind: Of broker.
        directory: For lines, logs and what the broker keeps.
        rng: Where all chance comes from.
    """

    def __init__(self, kind: Kind, directory: Path, rng: Random) -> None:
        self.kind = kind
        self.directory = directory
        self.rng = rng
        self.nodes: dict[str, Node] = {}
        self._stack = ExitStack()
        self._reader = Reader(directory)
        self._journal = Journal(directory / "stage.jsonl", "stage")
        self.broker: Broker

    def __enter__(self) -> Self:
        self.broker = self._stack.enter_context(BROKERS[self.kind]())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            if node.process.poll() is None:
                node.process.kill()
                node.process.wait()
            node.close()
        self._stack.close()
        self._reader.read()
        self._journal.close()

    @property
    def lines(self) -> list[Line]:
        """All lines so far."""
        return self._reader.lines

    def of(self, *events: str) -> list[Line]:
        """The lines of some events."""
        return [line for line in self.lines if line.event in events]

    def note(self, event: Event, node: Node | None = None, **fields: Any) -> None:
        """Write a line of our own."""
        self._journal.write(event, node.life if node is not None else "", **fields)

    def node(self, name: str, *, slots: int = 0, proxied: bool = False, **more: Any) -> Node:
        """Start a node."""
        proxy = self._stack.enter_context(Proxy(self.broker.port, self.rng)) if proxied else None
        url = self.broker.url
        if proxy is not None:
            parts = urlsplit(url)
            url = urlunsplit(parts._replace(netloc=f"127.0.0.1:{proxy.port}"))
        options: BusOptions = {**QUICK, **more.pop("options", {})}
        settings = Settings(name=name, url=url, directory=str(self.directory), slots=slots, options=options, **more)
        return self.start(settings, proxy)

    def empty_broker(self) -> None:
        """Let the broker lose everything."""
        if self.kind == "redis":
            with socket.create_connection(("127.0.0.1", self.broker.port)) as connection:
                connection.sendall(b"FLUSHALL\r\n")
                assert connection.recv(100) == b"+OK\r\n"
        else:
            self.broker.kill()
            self.broker.wipe()
            self.broker.start()

    def start(self, settings: Settings, proxy: Proxy | None) -> Node:
        """Start a process."""
        node = self.nodes[settings.name] = Node(self, settings, proxy)
        return node

    def ready(self, *nodes: Node) -> None:
        """Wait until nodes are."""
        for node in nodes or tuple(self.nodes.values()):
            self.until(lambda node=node: node.lines("ready"), f"{node.life} is not ready")  # type: ignore[misc]

    def until(self, true: Callable[[], object], otherwise: str, within: float = LONGEST_WAIT) -> float:
        """Wait until something is true of the lines; return how long that took.

        Raises:
            TimeoutError: It does not become so.
        """
        begin = time.monotonic()
        while True:
            self._reader.read()
            if true():
                return time.monotonic() - begin
            if time.monotonic() - begin > within:
                raise TimeoutError(f"{otherwise} within {within:g} s\n{self.logs()}")
            time.sleep(POLL)

    def pass_time(self, seconds: float) -> None:
        """Let a fault last."""
        time.sleep(seconds)

    def all_told(self, within: float = LONGEST_WAIT) -> float:
        """Wait until every job of a requester that lives has ended."""

        def told() -> bool:
            dead = {line.node for line in self.of("died")}
            ended = {line.job for line in self.of("ended")}
            return all(line.job in ended for line in self.of("asked") if line.node not in dead)

        return self.until(told, "not every job has ended", within)

    def finish(self) -> list[Line]:
        """End every node in order, and return all lines."""
        for node in self.nodes.values():
            if node.process.poll() is None:
                self.note("told", node)
                node.close()
        for node in self.nodes.values():
            if not any(line.node == node.life for line in self.of("died", "left")):
                node.left()
        self._reader.read()
        return self.lines

    def logs(self) -> str:
        """The ends of what the processes said."""
        texts = []
        for path in sorted(self.directory.glob("*.log")):
            text = path.read_text(errors="replace")
            if text:
                texts.append(f"--- {path.name}\n{text[-3000:]}")
        return "\n".join(texts)
