"""The fleet: who else is on the network, what they serve, and letting them know of us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

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

    def heard(self, message: Any, now: float) -> None:
        """Take in what another runner says about itself and its workers."""
        runner = getattr(message, "runner", message.source)
        if isinstance(message, BusRunnerBeatMessage) and message.leaving:
            peer = self.presence.left(runner, message.origin)
            if peer is not None:
                self._gone(peer)
            return
        version = message.version if isinstance(message, BusRunnerBeatMessage) else None
        heard = self.presence.heard(runner, message.origin, now, version)
        if heard.ignore:
            return
        if heard.gone is not None:
            self._gone(heard.gone)
        if heard.ask:
            request = BusRegistryRequestMessage(source=self._bus.registry.runner_name)
            self._bus.put("inbox", message.origin, request)
        self._take(message, runner)

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
