"""Liveness: which other runners are alive, judged by our own clock. Pure: it decides, `membership` acts."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

MAX_DEAD = 1000
"""Addresses that are remembered as dead, so that what they sent before does not bring them back."""


class PeerRunner(msgspec.Struct):
    """Another runner.

    Attributes:
        runner: Its name.
        address: Its name and incarnation.
        seen: When its last sign of life came, on our clock.
        version: Changes of its list of workers that we have taken in; None if we do not have the list.
        asked: When we last asked it for its list.
        doubted: What `seen` was when we last asked whether it is alive.
        rival: Address of another life of it that has shown itself, and has not proved to be the later one.
        rival_asked: When we last asked that life for its list.
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
    """What a sign of life of a runner calls for.

    Attributes:
        gone: An earlier life of the runner, which is over now.
        ask: Whether to ask the runner for its list of workers.
        ignore: Whether to ignore what it sends, as that life is over or has not proved to be the later one.
    """

    gone: PeerRunner | None = None
    ask: bool = False
    ignore: bool = False


class LivenessStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Liveness`.

    Attributes:
        alive: Runners that are alive.
        silent: Runners that gave no sign of life for a lease, and may come back (at most 1,000).
        dead: Lives of runners that are over (at most 1,000).
    """

    alive: int
    silent: int
    dead: int


class Liveness:
    """Judges which of the other runners are alive.

    A runner is alive until `lease` seconds after its last sign of life. While not even our own heartbeats come back it
    is we who are cut off, so nobody is declared dead until that has lasted `patience` seconds.

    What a runner sends to everybody can be recorded, and replayed to somebody who was not there the first time. So
    another life of a runner ends the life that we know only once it has sent something to us alone, which it is asked
    to do.

    Args:
        address: Our own.
        lease: Seconds without a sign of life after which a runner is dead.
        patience: Seconds for which we may be cut off before we count everybody as dead.
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
        peer = self._peers.get(address.rpartition("#")[0])
        return address == self._address or (peer is not None and peer.address == address)

    def is_gone(self, address: str, now: float) -> bool:
        """Whether that life of a runner is over. While we are cut off ourselves nobody counts as gone."""
        return self.connected(now) and not self.is_alive(address)

    def connected(self, now: float) -> bool:
        """Whether our own heartbeats come back to us."""
        return self._echo is not None and now - self._echo <= self._lease

    def silent_for(self, now: float) -> float:
        """Seconds since a heartbeat of our own came back, or since we began to wait for one."""
        return now - self._silent_since

    def echoed(self, now: float) -> None:
        """Note that a heartbeat of our own has come back. After a gap, all others get a full lease from now."""
        if not self.connected(now):
            for peer in self._peers.values():
                peer.seen = max(peer.seen, now)
        self._echo = self._silent_since = now

    def resumed(self, now: float) -> None:
        """Note that we stood still, and have yet to read what came meanwhile: all leases begin anew now."""
        for peer in self._peers.values():
            peer.seen = max(peer.seen, now)
        if self._echo is not None:
            self._echo = max(self._echo, now)
        self._silent_since = now

    def seen(self, runner: str, address: str, now: float, version: int | None = None, *, to_us: bool) -> Reaction:
        """Note a sign of life of a runner, and say what follows.

        Args:
            runner: Its name.
            address: The life of it that sent something.
            now: The time.
            version: How many changes of its list it has announced, if it said so.
            to_us: Whether it sent that to us alone, and not to everybody.
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
                self._mark_dead(silent.address)  # another life has come after it
        peer.seen = now
        behind = peer.version is None or (version is not None and version > peer.version)
        ask = behind and now - peer.asked > self._lease / 3
        if ask:
            peer.asked = now
        return Reaction(gone=gone, ask=ask)

    def _doubt(self, peer: PeerRunner, address: str, now: float) -> Reaction:
        """Ask another life of a peer to prove itself: what came may have been recorded long ago."""
        ask = address != peer.rival or now - peer.rival_asked > self._lease / 3
        if ask:
            peer.rival, peer.rival_asked = address, now
        return Reaction(ask=ask, ignore=True)

    def changed(self, runner: str, version: int) -> bool:
        """Take in one change of a list. False if it is an old one, or comes after one that we have missed."""
        peer = self._peers.get(runner)
        if peer is None or peer.version is None or version != peer.version + 1:
            return False
        peer.version = version
        return True

    def listed(self, runner: str, version: int) -> bool:
        """Take in a whole list. False if we have had a later one, or the runner is unknown."""
        peer = self._peers.get(runner)
        if peer is None or (peer.version is not None and version < peer.version):
            return False
        peer.version = version
        return True

    def left(self, runner: str, address: str) -> PeerRunner | None:
        """End that life of a runner, because it has left. Returns it if it was the one we knew."""
        self._mark_dead(address)
        peer = self._peers.get(runner)
        if peer is None or peer.address != address:
            return None
        del self._peers[runner]
        return peer

    def doubtful(self, now: float) -> list[PeerRunner]:
        """The runners without a sign of life for half a lease, each once: to be asked, as signs may get lost."""
        doubtful = [
            peer
            for peer in self._peers.values()
            if self.connected(now) and now - peer.seen > self._lease / 2 and peer.doubted < peer.seen
        ]
        for peer in doubtful:
            peer.doubted = peer.seen
        return doubtful

    def behind(self, runner: str) -> None:
        """Note that we do not have the whole list of a runner any more, so that it is asked for."""
        peer = self._peers.get(runner)
        if peer is not None:
            peer.version = None

    def expired(self, now: float) -> list[PeerRunner]:
        """End the leases that are over, and return those runners."""
        if self._echo is not None and not self.connected(now) and now - self._echo < self._patience:
            return []
        gone = [peer for peer in self._peers.values() if now - peer.seen > self._lease]
        for peer in gone:
            del self._peers[peer.runner]
            self._silent[peer.runner] = peer  # it is not marked as dead: it may have been cut off, and come back
        while len(self._silent) > MAX_DEAD:
            self._silent.popitem(last=False)
        return gone

    def _mark_dead(self, address: str) -> None:
        self._dead[address] = None
        while len(self._dead) > MAX_DEAD:
            self._dead.popitem(last=False)
