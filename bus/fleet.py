"""The fleet: who else is on the network, what they serve, and letting them know of us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from bus.events import log
from bus.mailbox import Mailbox
from bus.messages import (
    BusMessage,
    BusRegistryRequestMessage,
    BusRunnerBeatMessage,
    BusWorkerLostMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
)
from bus.presence import PeerRunner, Presence

if TYPE_CHECKING:
    from bus.network import NetworkBus


BEATS_OF_A_TWIN = 2
"""Beats after which another process of our name is told of."""
MAX_TWINS = 100


class Fleet:
    """Keeps a runner's registry true for all runners of a network.

    Changes are announced to everyone as they happen; beats say how many there have been, and who has missed one asks
    for the whole list. So a lost announcement costs a beat, and a newcomer learns everybody by asking each once.
    """

    def __init__(self, bus: NetworkBus, *, heartbeat: float, lease: float) -> None:
        self.presence = Presence(bus.address, lease=lease, patience=5 * lease)
        self._bus = bus
        self._heartbeat = heartbeat
        self._version = 0
        self._twins: dict[str, int] = {}
        self._news = Mailbox(bus.address, self._handle_news, bus.tasks)

    def number(self, message: BusWorkerReadyMessage | BusWorkerLostMessage) -> None:
        """Count a change of our own list."""
        self._version += 1
        message.version = self._version

    def beat(self, *, leaving: bool = False) -> None:
        """Give a sign of life, or say goodbye."""
        name = self._bus.registry.runner_name
        beat = BusRunnerBeatMessage(source=name, runner=name, version=self._version, leaving=leaving)
        self._bus.put("everyone", "", beat)

    async def run(self) -> None:
        """Beat, and forget who does not, until cancelled."""
        while True:
            self.beat()
            await anyio.sleep(self._heartbeat)
            for peer in self.presence.expired(self._bus.tasks.now()):
                self._gone(peer)
            self._bus.look_round()

    def heard(self, message: Any, now: float, *, to_us: bool) -> None:
        """Take in what another runner says about itself and its workers, to us alone or to everybody."""
        runner = message.origin.partition("#")[0]
        if isinstance(message, BusRunnerBeatMessage) and message.leaving:
            peer = self.presence.left(runner, message.origin)
            if peer is not None:
                self._gone(peer)
            return
        version = message.version if isinstance(message, BusRunnerBeatMessage) else None
        if version is not None and runner == self._bus.registry.runner_name:
            self._meet_twin(message.origin)
        heard = self.presence.heard(runner, message.origin, now, version, to_us=to_us)
        if heard.ask:
            request = BusRegistryRequestMessage(source=self._bus.registry.runner_name)
            self._bus.put("inbox", message.origin, request)
        if heard.ignore:
            return
        if heard.gone is not None:
            self._gone(heard.gone)
        self._take(message, runner)

    def _meet_twin(self, address: str) -> None:
        """Another process has our name. Whose beats go on is no earlier life of ours that has just ended."""
        self._twins[address] = self._twins.get(address, 0) + 1
        while len(self._twins) > MAX_TWINS:
            del self._twins[next(iter(self._twins))]
        if self._twins.get(address) == BEATS_OF_A_TWIN:
            log().error(
                "two processes run under one runner name: all others take the later one for a new life of the first, "
                "and that for dead. Give each WorkerRunner a name of its own, or none",
                runner=self._bus.registry.runner_name,
                here=self._bus.address,
                there=address,
            )

    def _take(self, message: Any, runner: str) -> None:
        if isinstance(message, BusRegistryRequestMessage):
            self._bus.put("inbox", message.origin, self._list())
        elif isinstance(message, (BusWorkerReadyMessage, BusWorkerLostMessage)):
            if self.presence.changed(runner, message.version):
                self._news.put(message)
        elif isinstance(message, BusWorkerRegistryMessage):
            if self.presence.listed(runner, message.version):
                self._news.put(message)
        elif not isinstance(message, BusRunnerBeatMessage):
            self._news.put(message)

    def _list(self) -> BusWorkerRegistryMessage:
        registry = self._bus.registry
        name = registry.runner_name
        return BusWorkerRegistryMessage(source=name, runner=name, workers=registry.entries(), version=self._version)

    def _gone(self, peer: PeerRunner) -> None:
        nothing = BusWorkerRegistryMessage(source=peer.runner, origin=peer.address, runner=peer.runner, workers=[])
        self._news.put(nothing)

    async def _handle_news(self, message: BusMessage) -> None:
        self._bus.tell_runners(message)
