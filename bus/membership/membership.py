"""Membership: which runners are on the network and what they serve; heartbeats and lists of workers go both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import msgspec

from bus.errors import TransportError
from bus.local.mailbox import Mailbox
from bus.log import log
from bus.membership.liveness import Liveness, LivenessStatistics, PeerRunner
from bus.messages import (
    BusMessage,
    BusRegistryRequestMessage,
    BusRunnerBeatMessage,
    BusWorkerLostMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    WorkerRegistryEntry,
)
from bus.transport.connection import ECHO, Connection
from bus.transport.node import Node

LATE = 1.5
"""Heartbeat periods from one heartbeat to the next after which we have stood still: with three of them in a lease, that
is noticed before any lease can have run out only because we did not read."""

HEARTBEATS_WAITING = 3
"""Heartbeats that may wait for the network: as many as fit into a lease."""

ENTRY_BYTES = 256
"""More bytes than an entry in a list of workers takes without its topics: its two names have at most 64 characters."""

TOPIC_BYTES = 66
"""Bytes that a topic takes in such an entry: it has at most 64 characters."""

MAX_CHANGES = 10_000
"""Changes of the lists of others that wait for the runner of this process; beyond, whole lists are asked for."""


class MembershipStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Membership`.

    Attributes:
        runners: The other runners.
        news: Changes of their lists that wait for the runner here (at most 10,000, and one for each death).
        lists: Lists of which not all parts have come (at most one for each runner).
    """

    runners: LivenessStatistics
    news: int
    lists: int


HEARTBEATS_OF_A_NAMESAKE = 2
"""Heartbeats of another process under our name after which that is logged."""
MAX_NAMESAKES = 100


class Membership:
    """Gives all runners of a network the same view of who serves what.

    A change of the workers here is announced to everyone when it happens. Heartbeats carry the number of changes so
    far, and a runner that has missed one asks for the whole list. So a lost announcement costs a heartbeat, and a new
    runner learns of everybody by asking each once.

    Args:
        node: Who it works for.
        connection: Is given up when our own heartbeats do not come back.
        on_heartbeat: Called after each heartbeat, once the leases of the others were judged.
        heartbeat: Seconds between two heartbeats.
        lease: Seconds without a sign of life after which a runner is dead.
        max_message_bytes: Most bytes of a message: a long list is sent in parts.
    """

    def __init__(
        self,
        node: Node,
        connection: Connection,
        on_heartbeat: Callable[[], None],
        *,
        heartbeat: float,
        lease: float,
        max_message_bytes: int,
    ) -> None:
        self.liveness = Liveness(node.address, lease=lease, patience=5 * lease)
        self._node = node
        self._connection = connection
        self._on_heartbeat = on_heartbeat
        self._heartbeat = heartbeat
        self._lease = lease
        self._version = 0
        self._namesakes: dict[str, int] = {}
        self._part_bytes = max_message_bytes // 4
        self._parts: dict[str, tuple[int, dict[int, list[WorkerRegistryEntry]]]] = {}
        self._waiting = 0
        self._changes = Mailbox(node.address, self._apply, node.tasks)

    def number(self, message: BusWorkerReadyMessage | BusWorkerLostMessage) -> None:
        """Give a change of our own list its number."""
        self._version += 1
        message.version = self._version

    def send_heartbeat(self, *, leaving: bool = False) -> None:
        """Send a heartbeat, unless earlier ones still wait for the network. One that says that we leave always goes."""
        if self._waiting < HEARTBEATS_WAITING or leaving:
            self._waiting += 1
            self._node.put("everyone", "", self.heartbeat_message(leaving=leaving), accepted=self._accepted)

    def _accepted(self) -> None:
        self._waiting -= 1

    def heartbeat_message(self, *, leaving: bool = False, asks: bool = False) -> BusRunnerBeatMessage:
        """Make a heartbeat. It may be called from any thread.

        Args:
            leaving: Whether it is the last one of this life.
            asks: Whether its receiver is to answer with one of its own.
        """
        name = self._node.registry.runner_name
        return BusRunnerBeatMessage(source=name, runner=name, version=self._version, leaving=leaving, asks=asks)

    def statistics(self) -> MembershipStatistics:
        """What is held of the others now."""
        return MembershipStatistics(self.liveness.statistics(), self._changes.statistics().data, len(self._parts))

    async def run(self) -> None:
        """Send heartbeats, and judge those of the others, until cancelled."""
        self.liveness.resumed(self._node.tasks.now())
        while True:
            self.send_heartbeat()
            before = self._node.tasks.now()
            await anyio.sleep(self._heartbeat)
            now = self._node.tasks.now()
            if now - before > LATE * self._heartbeat:
                self.liveness.resumed(now)
                continue
            self._judge_echo(now)
            for peer in self.liveness.doubtful(now):
                self._node.put("inbox", peer.address, self.heartbeat_message(asks=True))
            for peer in self.liveness.expired(now):
                self._gone(peer)
            self._on_heartbeat()

    def echoed(self, now: float) -> None:
        """Note that one of our own heartbeats has come back."""
        self.liveness.echoed(now)
        self._connection.works(ECHO)

    def _judge_echo(self, now: float) -> None:
        # A link may be open and carry nothing, and a reader may read from where nobody writes any more.
        silent = self.liveness.silent_for(now)
        if silent > self._lease:
            error = TransportError(f"no heartbeat of ours has come back for {silent:.1f} seconds")
            self._connection.failed(ECHO, error)

    def receive(self, message: Any, now: float, *, to_us: bool) -> None:
        """Take in what another runner says of itself and its workers, to us alone or to everybody."""
        runner = message.origin.rpartition("#")[0]
        if isinstance(message, BusRunnerBeatMessage) and message.leaving:
            peer = self.liveness.left(runner, message.origin)
            if peer is not None:
                self._gone(peer)
            return
        version = None
        if isinstance(message, BusRunnerBeatMessage):
            version = message.version
            if runner == self._node.registry.runner_name:
                self._meet_namesake(message.origin)
            if message.asks:
                self._node.put("inbox", message.origin, self.heartbeat_message())
        reaction = self.liveness.seen(runner, message.origin, now, version, to_us=to_us)
        if reaction.ask:
            request = BusRegistryRequestMessage(source=self._node.registry.runner_name)
            self._node.put("inbox", message.origin, request)
        if reaction.ignore:
            return
        if reaction.gone is not None:
            self._gone(reaction.gone)
        self._take(message, runner)

    def _meet_namesake(self, address: str) -> None:
        """Log another process under our name. One whose heartbeats go on is no life of ours that has just ended."""
        self._namesakes[address] = self._namesakes.get(address, 0) + 1
        while len(self._namesakes) > MAX_NAMESAKES:
            del self._namesakes[next(iter(self._namesakes))]
        if self._namesakes.get(address) == HEARTBEATS_OF_A_NAMESAKE:
            log().error(
                "two processes run under one runner name: all others take the later one for a new life of the first, "
                "and that for dead. Give each WorkerRunner a name of its own, or none",
                runner=self._node.registry.runner_name,
                here=self._node.address,
                there=address,
            )

    def _take(self, message: Any, runner: str) -> None:
        if isinstance(message, BusRegistryRequestMessage):
            for part in self._list():
                self._node.put("inbox", message.origin, part)
        elif isinstance(message, (BusWorkerReadyMessage, BusWorkerLostMessage)):
            if self.liveness.changed(runner, message.version):
                self._queue(message, runner)
        elif isinstance(message, BusWorkerRegistryMessage):
            if self._is_whole(message) and self.liveness.listed(runner, message.version):
                self._queue(message, runner)
        elif not isinstance(message, BusRunnerBeatMessage):
            self._changes.put(message)

    def _queue(self, message: BusMessage, runner: str) -> None:
        if self._changes.statistics().data >= MAX_CHANGES:
            self.liveness.behind(runner)
        else:
            self._changes.put(message)

    def _list(self) -> list[BusWorkerRegistryMessage]:
        registry = self._node.registry
        name = registry.runner_name
        entries = registry.entries()
        parts: list[list[WorkerRegistryEntry]] = [[]]
        left = self._part_bytes
        for entry in entries:
            size = ENTRY_BYTES + TOPIC_BYTES * len(entry.topics)
            if size > left and parts[-1]:
                parts.append([])
                left = self._part_bytes
            parts[-1].append(entry)
            left -= size
        return [
            BusWorkerRegistryMessage(
                source=name, runner=name, workers=part, version=self._version, part=(index, len(parts))
            )
            for index, part in enumerate(parts)
        ]

    def _is_whole(self, message: BusWorkerRegistryMessage) -> bool:
        """Whether all parts of a list have come. They are put together in this message then."""
        index, count = message.part
        if count == 1:
            return True
        version, parts = self._parts.get(message.origin, (-1, {}))
        if version != message.version:
            version, parts = self._parts[message.origin] = (message.version, {})
        parts[index] = message.workers
        if len(parts) < count:
            return False
        del self._parts[message.origin]
        message.workers = [entry for number in range(count) for entry in parts.get(number, [])]
        return True

    def _gone(self, peer: PeerRunner) -> None:
        self._parts.pop(peer.address, None)
        nothing = BusWorkerRegistryMessage(source=peer.runner, origin=peer.address, runner=peer.runner, workers=[])
        self._changes.put(nothing)

    async def _apply(self, message: BusMessage) -> None:
        self._node.tell_runners(message)
