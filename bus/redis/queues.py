"""The queues of a Redis server as one node sees them: its demand, its claims, and what it must give back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redis.exceptions import ResponseError

from bus.log import log
from bus.redis.client import Command
from bus.redis.connection import RedisLink
from bus.redis.layout import GROUP, LEAVE, RENEW, SERVE, SETTLE, Entry, RedisLayout, StoredFrame
from bus.transport.transport import Delivery, Outgoing, Settlement

VANISHED = ("NOGROUP", "UNBLOCKED")
"""How the errors begin that say that a stream, or its group, is not there any more."""


class Claim(NamedTuple):
    """The entry that a claim is: its stream and its id there. No other claim ever has the same."""

    stream: str
    id: bytes


def claim_of(delivery: Delivery) -> Claim:
    """The claim that a delivery from a queue is.

    Raises:
        TypeError: It came from elsewhere.
    """
    if not isinstance(delivery.token, Claim):
        raise TypeError(f"a delivery of the lane {delivery.lane!r} is not a claim: nothing to settle or extend")
    return delivery.token


MOST_POLLED = 16
"""Most queues of one blocking read: what it costs grows with them, whichever of them has a frame."""


class WatchedQueues:
    """The queues that are in demand: those used lately are polled, of the others the node is notified.

    A node that waits for a notification has its address at the queue: whoever adds a frame there puts the name of the
    queue into the inbox of the node, and takes the address away. So what a frame costs does not depend on how many
    queues its reader serves; one of a queue that is not polled takes a round trip more.

    Attributes:
        polled: Queues that each read looks at, the one used longest ago first; with or without demand.
        awaited: Queues of whose next frame the node is notified; with or without demand.
        unplaced: Queues in demand that are neither.
    """

    def __init__(self) -> None:
        self.polled: OrderedDict[str, None] = OrderedDict()
        self.awaited: dict[str, None] = {}
        self.unplaced: dict[str, None] = {}

    def demanded(self, queue: str) -> None:
        """There is demand for a queue."""
        if queue not in self.polled and queue not in self.awaited:
            self.unplaced[queue] = None

    def unwanted(self, queue: str) -> None:
        """There is none any more."""
        self.unplaced.pop(queue, None)

    def place(self) -> list[str]:
        """Poll from now on as many of the unplaced queues as there is room for, and await the others.

        Returns:
            The others: the server has to know of them, and they need one look now.
        """
        awaited: list[str] = []
        for queue in self.unplaced:
            if len(self.polled) < MOST_POLLED:
                self.polled[queue] = None
            else:
                awaited.append(queue)
        self.unplaced.clear()
        self.awaited.update(dict.fromkeys(awaited))
        return awaited

    def used(self, queue: str) -> str | None:
        """A queue has, or had, a frame: poll it from now on. Returns the one that is not polled any more for it."""
        self.awaited.pop(queue, None)
        self.unplaced.pop(queue, None)
        self.polled[queue] = None
        self.polled.move_to_end(queue)
        return self.polled.popitem(last=False)[0] if len(self.polled) > MOST_POLLED else None

    def forget(self) -> None:
        """The server may have lost our address, or have notified us in vain."""
        self.unplaced.clear()
        self.polled.clear()
        self.awaited.clear()

    def __repr__(self) -> str:
        counts = f"{len(self.polled)} polled, {len(self.awaited)} awaited, {len(self.unplaced)} unplaced"
        return f"<WatchedQueues: {counts}>"


class _Stream(NamedTuple):
    """One of the two streams of a queue."""

    queue: str
    key: str


class RedisQueues:
    """The demand and the claims of one consumer.

    Args:
        layout: Names the streams.
        forgotten_after: Seconds after which a consumer without claims that was not seen is taken off the roster of a
            queue.
    """

    def __init__(self, layout: RedisLayout, forgotten_after: float) -> None:
        self.watched = WatchedQueues()
        self._layout = layout
        self._forgotten_after = forgotten_after
        self._slots: dict[str, int] = {}
        self.begin("")

    def begin(self, owner: str) -> None:
        """From now on this is another consumer, which has no claims yet. The demand stays."""
        self.owner = owner
        self._served: dict[str, None] = {}
        self._known: dict[str, None] = {}
        self._streams: dict[bytes, _Stream] = {}
        self._open: dict[Claim, None] = {}
        self._excess: dict[Claim, None] = {}
        self.reset()

    def reset(self) -> None:
        """The connection is a new one, perhaps to a server that has lost the queues."""
        self._served.clear()
        self.watched.forget()
        for queue in self._slots:
            self.watched.demanded(queue)

    # --- demand ---

    def demand(self, queue: str, slots: int) -> None:
        """From now on claim at most `slots` further frames of a queue."""
        if slots > 0:
            self._slots[queue] = slots
            self.watched.demanded(queue)
        else:
            self._slots.pop(queue, None)
            self.watched.unwanted(queue)

    def used(self, queue: str) -> None:
        """A queue has, or had, a frame: it is polled from now on."""
        unread = self.watched.used(queue)
        if unread in self._slots:
            self.watched.demanded(unread)

    def to_read(self, awaited: Iterable[str]) -> dict[str, int]:
        """The queues that the next read looks at, and how many frames of each it may claim."""
        return {queue: self._slots[queue] for queue in (*self.watched.polled, *awaited) if queue in self._slots}

    def streams(self) -> list[str]:
        """The streams of the queues in demand, in the order in which they are to be read."""
        return self._layout.streams(self._slots)

    async def serve(self, link: RedisLink) -> None:
        """Make sure that queues in demand exist, and give back what the server thinks we have of them.

        We do not know of that if it was on its way when a connection broke, or if an earlier process of the same name
        had it. The former was never handed over, so its attempt does not count.

        Raises:
            TransportError: The connection failed; call it again.
        """
        while queues := [queue for queue in self.watched.unplaced if queue not in self._served]:
            await self._serve(link, queues)

    async def _serve(self, link: RedisLink, queues: Sequence[str]) -> None:
        streams = self._layout.streams(queues)
        owners = [queue for queue in queues for _ in range(2)]
        for queue, stream in zip(owners, streams, strict=True):
            self._streams[stream.encode()] = _Stream(queue, stream)
        forgotten_after = int(1000 * self._forgotten_after)
        serve = SERVE(streams, GROUP, self.owner, forgotten_after, self._layout.served, *queues)
        (claimed,) = await link.checked([serve])
        returns: list[Command] = []
        for queue, stream, ids in zip(owners, streams, claimed, strict=True):
            unknown = [entry for entry in ids if Claim(stream, entry) not in self._open]
            if unknown:
                returns.append(self._give_back(stream, "free" if queue in self._known else "restarted", unknown))
        if returns:
            await link.checked(returns)
        self._served.update(dict.fromkeys(queues))
        self._known.update(dict.fromkeys(queues))

    # --- claims ---

    def take(self, stream: bytes, entries: Iterable[Entry]) -> list[Delivery]:
        """Frames of a queue that are ours now; those for which there is no demand any more are to go back."""
        queue, key = self._streams[stream]
        self.used(queue)
        deliveries: list[Delivery] = []
        for entry in entries:
            claim = Claim(key, entry.id)
            slots = self._slots.get(queue, 0)
            if not slots:
                self._excess[claim] = None
                continue
            self.demand(queue, slots - 1)
            self._open[claim] = None
            frame = StoredFrame.of(entry)
            deliveries.append(Delivery("queue", queue, frame.body, frame.attempts + 1, claim))
        return deliveries

    def return_excess(self) -> list[Command]:
        """The commands that give back what came in excess, as if it had not come."""
        return [self._give_back(stream, "free", ids) for stream, ids in _by_stream(self._excess).items()]

    def excess_returned(self) -> None:
        """They were executed."""
        self._excess.clear()

    async def settle(self, link: RedisLink, settlements: Sequence[tuple[Delivery, Settlement]]) -> list[bool]:
        """End claims in one round trip. False for each that had ended before.

        Raises:
            TransportError: No answer, or refused; each claim may have ended or not.
        """
        claims = [(claim_of(delivery), how) for delivery, how in settlements]
        runs: dict[tuple[str, Settlement], list[Claim]] = {}
        for claim, how in claims:
            runs.setdefault((claim.stream, how), []).append(claim)
        commands = [
            self._give_back(stream, how.value, [claim.id for claim in run]) for (stream, how), run in runs.items()
        ]
        ended: dict[Claim, None] = {}
        for run, reply in zip(runs.values(), await link.checked(commands), strict=True):
            ended.update(dict.fromkeys(claim for claim, settled in zip(run, reply, strict=True) if settled))
        for claim, _ in claims:
            self._open.pop(claim, None)
        return [claim in ended for claim, _ in claims]

    async def renew(self, link: RedisLink, deliveries: Sequence[Delivery]) -> list[bool]:
        """Renew the leases of claims in one round trip. False for each that had ended.

        Raises:
            TransportError: No answer, or refused; some leases may be renewed.
        """
        claims = [claim_of(delivery) for delivery in deliveries]
        renewed = await self._renewed(link, claims)
        for claim in claims:
            if claim not in renewed:
                self._open.pop(claim, None)
        return [claim in renewed for claim in claims]

    async def renew_all(self, link: RedisLink) -> dict[Claim, None]:
        """Renew all leases, from another thread. Returns the claims that have not ended.

        Raises:
            TransportError: No answer, or refused; some leases may be renewed.
        """
        return await self._renewed(link, list(self._open))

    async def _renewed(self, link: RedisLink, claims: Sequence[Claim]) -> dict[Claim, None]:
        runs = _by_stream(claims)
        replies = await link.exchange([RENEW([stream], GROUP, self.owner, *ids) for stream, ids in runs.items()])
        renewed: dict[Claim, None] = {}
        for stream, reply in zip(runs, replies, strict=True):
            if not isinstance(reply, ResponseError):
                renewed.update(dict.fromkeys(Claim(stream, entry) for entry in reply))
            elif not str(reply).startswith(VANISHED):
                await link.refused(reply)
        return renewed

    def answered(self, frames: Iterable[Outgoing]) -> None:
        """Frames are stored: the claims that they settle have ended."""
        for frame in frames:
            if frame.settles is not None:
                self._open.pop(claim_of(frame.settles), None)

    # --- the end ---

    def give_back_all(self) -> list[Command]:
        """The commands that return every claim to its queue."""
        returns = [self._give_back(stream, "closed", ids) for stream, ids in _by_stream(self._open).items()]
        return self.return_excess() + returns

    def leave(self, node: str) -> list[Command]:
        """The commands that take us off the rosters, and our address from where we wait to be notified."""
        waiting: list[Command] = [("SREM", self._layout.waiting(queue), node) for queue in self.watched.awaited]
        return [LEAVE(self._layout.streams(self._served), GROUP, self.owner), *waiting]

    def left(self, *, given_back: bool) -> None:
        """This node serves nothing any more."""
        self._slots.clear()
        if self._open and not given_back:
            log().warning("claims could not be given back: they are delivered again later", claims=len(self._open))

    def _give_back(self, stream: str, how: str, ids: Sequence[bytes]) -> Command:
        back = self._layout.returned(self._streams[stream.encode()].queue)
        return SETTLE([stream, back], GROUP, self._layout.prefix, how, self.owner, *ids)

    def __repr__(self) -> str:
        return f"<RedisQueues of {self.owner!r}: {len(self._open)} open, {len(self._served)} queues>"


def _by_stream(claims: Iterable[Claim]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for claim in claims:
        found.setdefault(claim.stream, []).append(claim.id)
    return found
