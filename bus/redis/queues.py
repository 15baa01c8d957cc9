"""What a node holds of the queues on a Redis server: their streams, its claims, and what it must give back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from re import fullmatch
from typing import NamedTuple

from redis.exceptions import ResponseError

from bus.log import log
from bus.redis.client import Command
from bus.redis.connection import RedisLink
from bus.redis.inbox import RedisInbox
from bus.redis.layout import GROUP, LEAVE, RENEW, SERVE, SETTLE, call
from bus.transport.transport import Delivery, Outgoing, Settlement

COUNT = rb"\d{1,6}"
"""How often a frame was claimed, as the scripts write it."""

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


class RedisClaims:
    """The queues and claims of one consumer. It makes the commands; the transport sends them.

    Args:
        owner: Name of the consumer.
        prefix: How all keys begin.
        keep: Seconds after which a consumer without claims that was not seen is taken off the roster of a queue.
    """

    def __init__(self, owner: str, prefix: str, keep: float) -> None:
        self.owner = owner
        self.served: dict[str, None] = {}
        """Queues whose streams and group are known to exist."""
        self._prefix = prefix
        self._keep = keep
        self._open: dict[Claim, None] = {}
        self._excess: dict[Claim, None] = {}
        self._known: dict[str, None] = {}
        self._queues: dict[bytes, tuple[str, str]] = {}

    def new(self, queue: str) -> str:
        """The stream of what was sent to a queue."""
        return f"{self._prefix}queue:{queue}"

    def back(self, queue: str) -> str:
        """The stream of what went back to a queue; it is read first."""
        return f"{self._prefix}again:{queue}"

    def streams(self, queues: Iterable[str]) -> list[str]:
        """The streams of some queues, in the order in which they are to be read."""
        return [stream for queue in queues for stream in (self.back(queue), self.new(queue))]

    def queue_of(self, stream: bytes) -> str | None:
        """The queue that a stream belongs to; None for an inbox."""
        found = self._queues.get(stream)
        return found[0] if found is not None else None

    async def serve(self, queues: Sequence[str], reader: RedisLink) -> None:
        """Make sure that queues exist, and give back what the server thinks we have of them and we do not know of.

        That is what was on its way when a connection broke, or what an earlier process of the same name had. The former
        was never handed over, so its attempt does not count.

        Raises:
            TransportError: The connection failed; call it again.
        """
        streams = self.streams(queues)
        for queue in queues:
            for stream in (self.new(queue), self.back(queue)):
                self._queues[stream.encode()] = (queue, stream)
        served, keep = f"{self._prefix}served", int(1000 * self._keep)
        (claimed,) = await reader.checked([call(SERVE, streams, GROUP, self.owner, keep, served, *queues)])
        returns: list[Command] = []
        for number, (stream, ids) in enumerate(zip(streams, claimed, strict=True)):
            how = "free" if queues[number // 2] in self._known else "restarted"
            unknown = [entry for entry in ids if Claim(stream, entry) not in self._open]
            if unknown:
                returns.append(self._give_back(stream, how, unknown))
        if returns:
            await reader.checked(returns)
        self.served.update(dict.fromkeys(queues))
        self._known.update(dict.fromkeys(queues))

    def claimed(self, queue: str, key: bytes, entry: bytes, fields: Sequence[bytes]) -> Delivery:
        """A frame of a queue is ours now, or what somebody else has written there: a frame that nobody can read."""
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        attempts = values.get(b"a", b"")
        claim = Claim(self._queues[key][1], entry)
        self._open[claim] = None
        attempt = int(attempts) + 1 if fullmatch(COUNT, attempts) else 1
        return Delivery("queue", queue, values.get(b"b", b""), attempt, claim)

    def exceeding(self, key: bytes, entry: bytes) -> None:
        """A frame came for which there is no demand any more: it goes back, as if it had not come."""
        self._excess[Claim(self._queues[key][1], entry)] = None

    def return_excess(self) -> list[Command]:
        """The commands that give back what came in excess."""
        return [self._give_back(stream, "free", ids) for stream, ids in _by_stream(self._excess).items()]

    def excess_returned(self) -> None:
        """They were executed."""
        self._excess.clear()

    def settlements(self, claims: Iterable[tuple[Claim, Settlement]]) -> list[tuple[Command, list[Claim]]]:
        """The commands that end claims, each with those it ends; they return 1 for each that was ours, else 0."""
        runs: dict[tuple[str, Settlement], list[Claim]] = {}
        for claim, how in claims:
            runs.setdefault((claim.stream, how), []).append(claim)
        return [
            (self._give_back(stream, how.value, [claim.id for claim in run]), run)
            for (stream, how), run in runs.items()
        ]

    async def renew(self, claims: Sequence[Claim], link: RedisLink) -> dict[Claim, None]:
        """Renew leases. Returns the claims that have not ended.

        Raises:
            TransportError: No answer, or refused; some leases may be renewed.
        """
        runs = _by_stream(claims)
        replies = await link.exchange([call(RENEW, [stream], GROUP, self.owner, *ids) for stream, ids in runs.items()])
        kept: dict[Claim, None] = {}
        for stream, reply in zip(runs, replies, strict=True):
            if not isinstance(reply, ResponseError):
                kept.update(dict.fromkeys(Claim(stream, entry) for entry in reply))
            elif not str(reply).startswith(VANISHED):
                await link.refused(reply)
        return kept

    async def keep(self, beats: Sequence[Command], inbox: RedisInbox, link: RedisLink) -> dict[Claim, None]:
        """Say that we are alive, and renew every lease, from another thread. Returns the claims that have not ended."""
        try:
            inbox.born((await link.checked(beats))[0])
            return await self.renew(list(self._open), link)
        finally:
            await link.shut()

    def forget(self, claim: Claim) -> None:
        """A claim has ended."""
        self._open.pop(claim, None)

    def answered(self, frames: Iterable[Outgoing]) -> None:
        """Frames are stored: the claims that they settle have ended."""
        for frame in frames:
            if frame.settles is not None:
                self.forget(claim_of(frame.settles))

    def give_back_all(self) -> list[Command]:
        """The commands that return every claim to its queue."""
        return self.return_excess() + [
            self._give_back(stream, "closed", ids) for stream, ids in _by_stream(self._open).items()
        ]

    def leave(self) -> Command:
        """The command that takes us off the rosters."""
        return call(LEAVE, self.streams(self.served), GROUP, self.owner)

    def lost_touch(self) -> None:
        """The server was not there to take the claims back."""
        if self._open:
            log().warning("claims could not be given back: they are delivered again later", claims=len(self._open))

    def _give_back(self, stream: str, how: str, ids: Sequence[bytes]) -> Command:
        queue = self._queues[stream.encode()][0]
        return call(SETTLE, [stream, self.back(queue)], GROUP, self._prefix, how, self.owner, *ids)

    def __repr__(self) -> str:
        return f"<RedisClaims of {self.owner!r}: {len(self._open)} open, {len(self.served)} queues>"


def _by_stream(claims: Iterable[Claim]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for claim in claims:
        found.setdefault(claim.stream, []).append(claim.id)
    return found


HOT = 16
"""Most queues of one blocking read: what it costs grows with them, whichever of them has a frame."""


class RedisWatch:
    """The queues that are in demand: the ones used lately are read, the others have a bell.

    A bell is a node's address at a queue: whoever adds a frame there tells the node so, in its inbox, and takes the
    bell away. So what a frame costs does not depend on how many queues its reader serves; one of a queue with a bell
    takes a round trip more.

    Attributes:
        hot: Queues to read, the one used longest ago first; with or without demand.
        bells: Queues that have a bell; with or without demand.
        fresh: Queues in demand that are neither hot nor have a bell.
    """

    def __init__(self) -> None:
        self.hot: OrderedDict[str, None] = OrderedDict()
        self.fresh: dict[str, None] = {}
        self.bells: dict[str, None] = {}

    def demanded(self, queue: str) -> None:
        """There is demand for a queue."""
        if queue not in self.hot and queue not in self.bells:
            self.fresh[queue] = None

    def unwanted(self, queue: str) -> None:
        """There is none any more."""
        self.fresh.pop(queue, None)

    def place(self) -> list[str]:
        """Read the fresh queues from now on, as many as there is room for. The others need a bell, and one look now."""
        bells: list[str] = []
        for queue in self.fresh:
            if len(self.hot) < HOT:
                self.hot[queue] = None
            else:
                bells.append(queue)
        self.fresh.clear()
        self.bells.update(dict.fromkeys(bells))
        return bells

    def used(self, queue: str) -> str | None:
        """A queue has, or had, a frame: read it from now on. Returns the one that is not read any more for it."""
        self.bells.pop(queue, None)
        self.fresh.pop(queue, None)
        self.hot[queue] = None
        self.hot.move_to_end(queue)
        return self.hot.popitem(last=False)[0] if len(self.hot) > HOT else None

    def forget(self) -> None:
        """The server may have lost the bells, or have told us in vain."""
        self.fresh.clear()
        self.hot.clear()
        self.bells.clear()

    def __repr__(self) -> str:
        return f"<RedisWatch: {len(self.hot)} queues read, {len(self.bells)} with a bell, {len(self.fresh)} fresh>"
