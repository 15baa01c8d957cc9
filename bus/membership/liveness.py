"""Who else is on the network: leases of runners, judged by our own clock. Pure: it decides, the bus acts."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

MAX_DEAD = 1000
"""Addresses remembered as gone, so that what they sent before does not bring them back."""


class PeerRunner(msgspec.Struct):
    """Another runner.

    Attributes:
        runner: Its name.
        address: Its name and incarnation.
        seen: When we last heard it, on our clock.
        version: Changes of its list of workers that we have taken in; None if we do not have the list.
        asked: When we last asked it for its list.
        doubted: When it was last heard before we asked whether it is alive.
        rival: Address of another life of it that was heard meanwhile, and has not proved to be the later one.
        rival_asked: When we last asked that one.
    """

    runner: str
    address: str
    seen: float
    version: int | None = None
    asked: float = -1e9
    doubted: float = -1e9
    rival: str = ""
    rival_asked: float = -1e9


class Reaction(msgspec.Struct, frozen=True):
    """What follows from having heard a runner.

    Attributes:
        gone: An earlier life of it that is over now.
        ask: Whether to ask it for its list of workers.
        ignore: Whether what it says counts no more: that life of it is over.
    """

    gone: PeerRunner | None = None
    ask: bool = False
    ignore: bool = False


class LivenessStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Liveness`.

    Attributes:
        alive: Runners that are.
        silent: Those that were silent for a lease and may come back (at most 1,000).
        dead: Lives that are over (at most 1,000).
    """

    alive: int
    silent: int
    dead: int


class Liveness:
    """The leases of the other runners.

    A runner is alive while it was heard within `lease` seconds. While we do not hear even ourselves it is we who are
    cut off, so nobody is declared dead until that has lasted `patience` seconds.

    What a runner says to everybody can be recorded, and played again to who was not there the first time. So another
    life ends the one we know only once it has said something to us alone: it is asked to.

    Args:
        address: Our own.
        lease: Seconds without a sign after which a runner is dead.
        patience: Seconds we may be cut off before we count everybody as dead.
    """

    def __init__(self, address: str, *, lease: float, patience: float) -> None:
        self._address = address
        self._lease = lease
        self._patience = patience
        self._peers: dict[str, PeerRunner] = {}
        self._dead: OrderedDict[str, None] = OrderedDict()
        self._silent: OrderedDict[str, PeerRunner] = OrderedDict()
        self._echo: float | None = None
        self._silent_since = 0.0

    def statistics(self) -> LivenessStatistics:
        """How many runners there are now."""
        return LivenessStatistics(len(self._peers), len(self._silent), len(self._dead))

    @property
    def peers(self) -> list[PeerRunner]:
        """The runners that are alive."""
        return list(self._peers.values())

    def is_alive(self, address: str) -> bool:
        """Whether that life of a runner is alive as far as we know."""
        peer = self._peers.get(address.partition("#")[0])
        return address == self._address or (peer is not None and peer.address == address)

    def is_gone(self, address: str, now: float) -> bool:
        """Whether that life of a runner is over, as far as we can tell: not while we are cut off ourselves."""
        return self.connected(now) and not self.is_alive(address)

    def connected(self, now: float) -> bool:
        """Whether our own beats come back to us."""
        return self._echo is not None and now - self._echo <= self._lease

    def silent_for(self, now: float) -> float:
        """Seconds since our own beats came back, or since we began to listen for them."""
        return now - self._silent_since

    def echoed(self, now: float) -> None:
        """Our own beat has come back: we are connected. Others get a full lease from a first echo after a gap."""
        if not self.connected(now):
            for peer in self._peers.values():
                peer.seen = max(peer.seen, now)
        self._echo = self._silent_since = now

    def resumed(self, now: float) -> None:
        """We stood still, and have yet to read what was said meanwhile: nobody's silence counts before now."""
        for peer in self._peers.values():
            peer.seen = max(peer.seen, now)
        if self._echo is not None:
            self._echo = max(self._echo, now)
        self._silent_since = now

    def seen(self, runner: str, address: str, now: float, version: int | None = None, *, to_us: bool) -> Reaction:
        """A runner gave a sign of life. `version` is the count of changes it says it is at.

        `to_us` tells what it said to us alone from what it said to everybody.
        """
        if address in self._dead:
            return Reaction(ignore=True)
        peer = self._peers.get(runner)
        gone = None
        if peer is None or peer.address != address:
            if peer is not None and not to_us:
                return self._doubt(peer, address, now)
            gone = peer
            if gone is not None:
                self._mark_dead(gone.address)
            peer = self._peers[runner] = PeerRunner(runner, address, now)
        silent = self._silent.get(runner)
        if silent is not None and (to_us or silent.address == address):
            del self._silent[runner]
            if silent.address != address:
                self._mark_dead(silent.address)  # with another life after it, it is over
        peer.seen = now
        behind = peer.version is None or (version is not None and version > peer.version)
        ask = behind and now - peer.asked > self._lease / 3
        if ask:
            peer.asked = now
        return Reaction(gone=gone, ask=ask)

    def _doubt(self, peer: PeerRunner, address: str, now: float) -> Reaction:
        """Another life of a peer was heard, now or when what it said was recorded: it may tell us itself."""
        ask = address != peer.rival or now - peer.rival_asked > self._lease / 3
        if ask:
            peer.rival, peer.rival_asked = address, now
        return Reaction(ask=ask, ignore=True)

    def changed(self, runner: str, version: int) -> bool:
        """A runner announced one change. Whether it is the next one, and not older or beyond one we missed."""
        peer = self._peers.get(runner)
        if peer is None or peer.version is None or version != peer.version + 1:
            return False
        peer.version = version
        return True

    def listed(self, runner: str, version: int) -> bool:
        """A runner sent its whole list. Whether it is news."""
        peer = self._peers.get(runner)
        if peer is None or (peer.version is not None and version < peer.version):
            return False
        peer.version = version
        return True

    def left(self, runner: str, address: str) -> PeerRunner | None:
        """A runner said goodbye, or its lease ended. The peer, if it was known."""
        self._mark_dead(address)
        peer = self._peers.get(runner)
        if peer is None or peer.address != address:
            return None
        del self._peers[runner]
        return peer

    def doubtful(self, now: float) -> list[PeerRunner]:
        """The runners that were not heard for half a lease, each once: to be asked, for what they say may get lost."""
        doubtful = [
            peer
            for peer in self._peers.values()
            if self.connected(now) and now - peer.seen > self._lease / 2 and peer.doubted < peer.seen
        ]
        for peer in doubtful:
            peer.doubted = peer.seen
        return doubtful

    def behind(self, runner: str) -> None:
        """What we know of the list of a runner is not all: it is asked for the whole."""
        peer = self._peers.get(runner)
        if peer is not None:
            peer.version = None

    def expired(self, now: float) -> list[PeerRunner]:
        """The runners whose leases have ended; they are forgotten."""
        if self._echo is not None and not self.connected(now) and now - self._echo < self._patience:
            return []
        gone = [peer for peer in self._peers.values() if now - peer.seen > self._lease]
        for peer in gone:
            del self._peers[peer.runner]
            self._silent[peer.runner] = peer  # not buried: it may have been cut off, and come back
        while len(self._silent) > MAX_DEAD:
            self._silent.popitem(last=False)
        return gone

    def _mark_dead(self, address: str) -> None:
        self._dead[address] = None
        while len(self._dead) > MAX_DEAD:
            self._dead.popitem(last=False)
