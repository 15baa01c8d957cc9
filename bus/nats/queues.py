"""The queues of a NATS server as one node sees them: its demand, and its claims with their leases. For asyncio."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus.errors import TransportError
from bus.log import log
from bus.nats.connection import Answers, NatsLink, status_of
from bus.nats.inbox import Arrivals
from bus.nats.layout import NANOSECONDS, NatsLayout, metadata, token
from bus.transport.transport import Delivery, Settlement

UNWRITTEN = 2.0
"""Seconds after which a server has certainly written down what it gave out; it does so about ten times a second."""

ROUNDED = 1.0
"""Seconds that a server which was killed may count too much: it writes down the second in which a lease began."""

RENEWALS = 8
"""Latest leases of a claim that are remembered: more than fall into the time of what may be unwritten."""


class Claim:
    """A job that is ours until `until`, on our clock: at the server its lease ends no earlier."""

    __slots__ = ("_leases", "body", "id", "queue", "sent", "subject", "until", "word")

    def __init__(self, queue: str, message: Msg, now: float, until: float) -> None:
        self.queue = queue
        self.subject = message.reply
        self.id = (message.headers or {}).get("Nats-Msg-Id", "")
        self.body = message.data
        self.until = until
        self.word = b""
        self.sent = 0.0
        # Replaced, never changed: while the event loop is blocked another thread renews.
        self._leases: tuple[tuple[float, float], ...] = ((now, until),)

    def renew(self, now: float, until: float) -> None:
        """The server has confirmed a lease until then."""
        self.until = until
        self._leases = (*self._leases, (now, until))[-RENEWALS:]

    def forgotten(self, since: float) -> None:
        """The server may have forgotten what it has confirmed `since` then."""
        self.until = max((until for known, until in self._leases if known <= since), default=-math.inf) - ROUNDED
        self._leases = ((-math.inf, self.until),)

    def __repr__(self) -> str:
        return f"<Claim {self.subject!r}: {self.word.decode() or 'open'}, until {self.until:.3f}>"


def claim_of(delivery: Delivery) -> Claim:
    """The claim that a delivery from a queue is.

    Raises:
        TypeError: It came from elsewhere.
    """
    if not isinstance(delivery.token, Claim):
        raise TypeError(f"a delivery of the lane {delivery.lane!r} is not a claim: nothing to settle or extend")
    return delivery.token


PULL_TIME = 10.0
"""Most seconds a request for work waits at the server, where it outlives who made it: after them, one that was lost
there is made again. No longer than a lease, so that a node that stands still is not given a job again and again."""

CANCEL_AFTER = 0.05
"""Seconds a smaller demand must last before a request for more is cancelled: local jobs come and go faster."""

PAUSE = 1.0
"""Seconds before a queue that the server took away is asked for again, and between two looks at what is overdue."""

RETRY = 10.0
"""Seconds between two attempts with a queue that the server refuses: a missing right shows itself by a time-out."""

EXTEND_TIMEOUT = 3.0
"""Seconds the server may take to confirm renewals."""

CONFIRMATION = 2.0
"""Seconds after which an acknowledgement that was not confirmed is sent again."""

LIFE = 1000
"""What is added to the number of an attempt when the server was killed since: more than it can have been given out."""

_WORDS = {Settlement.ACK: b"+ACK", Settlement.NAK: b"-NAK", Settlement.TERM: b"+TERM"}


class _Confirmation:
    """Waits for the server to confirm that a claim has ended."""

    def __init__(self, unconfirmed: dict[Claim, None], claim: Claim) -> None:
        self._unconfirmed = unconfirmed
        self._claim = claim

    def answered(self, message: Msg) -> None:  # noqa: ARG002 - that it came is all there is to know
        self._unconfirmed.pop(self._claim, None)

    def lost(self) -> None:
        pass


class _Pull:
    """What was asked of the server for one queue, and has not come: `out` jobs, the first request at `since`."""

    __slots__ = ("expires", "out", "since", "subject", "subscription")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.subscription: Subscription | None = None
        self.out = 0
        self.since = 0.0
        self.expires = 0.0


class _Served:
    """One queue: `want` further jobs."""

    __slots__ = ("less_since", "name", "pull", "ready", "refused", "retry_at", "want")

    def __init__(self, name: str) -> None:
        self.name = name
        self.want = 0
        self.ready = False
        self.pull: _Pull | None = None
        self.retry_at = 0.0
        self.less_since = math.inf
        self.refused = ""


class QueueStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `NatsQueues`.

    Attributes:
        claims: Jobs claimed and not settled.
        unconfirmed: Acknowledgements that the server has not confirmed.
        late: Jobs that came when their lease may have been over; they were not handed over.
        stale: Settlements refused because the lease had ended.
    """

    claims: int
    unconfirmed: int
    late: int
    stale: int


class NatsQueues:
    """Asks for jobs as far as there is demand, and knows the leases of what came.

    JetStream takes an acknowledgement, or a renewal, also from a node that has lost its claim. So leases are judged on
    this side: each lasts from a moment at which the job had certainly not left the server yet, and when it is over,
    nothing is sent for it.
    """

    def __init__(self, layout: NatsLayout, arrivals: Arrivals) -> None:
        self._layout = layout
        self._arrivals = arrivals
        self._served: dict[str, _Served] = {}
        self._changed: dict[_Served, None] = {}
        self._claims: dict[Claim, None] = {}
        self._unconfirmed: dict[Claim, None] = {}
        self._pull_time = min(PULL_TIME, layout.ack_wait)
        self._life = 0
        self._lived = self._next_look = 0.0
        self._late = 0
        self._stale = 0

    def statistics(self) -> QueueStatistics:
        """What is held now, and has been counted."""
        return QueueStatistics(len(self._claims), len(self._unconfirmed), self._late, self._stale)

    def demand(self, name: str, slots: int) -> None:
        """Claim at most `slots` further jobs."""
        served = self._served.get(name)
        if served is None:
            if slots <= 0:
                return
            served = self._served[name] = _Served(name)
        elif slots == served.want:
            return
        served.want = max(0, slots)
        self._changed[served] = None
        self._arrivals.wake()

    def reset(self, life: int) -> None:
        """The connection is a new one: what was asked is forgotten, the claims stay.

        A server that was killed may have forgotten the last ones, and give their jobs to others: those claims end. It
        may have forgotten the last renewals of others: those end earlier.

        Args:
            life: Where in the stream of jobs the present life of the server begins.
        """
        for claim in self._claims if life > self._life else ():
            claim.forgotten(self._lived - UNWRITTEN)
        self._life = life
        for served in self._served.values():
            served.ready = False
            served.pull = None
            served.retry_at = 0.0
            self._changed[served] = None

    def forget(self) -> None:
        """The server has lost everything: no claim is one any more."""
        self._claims.clear()
        self._unconfirmed.clear()

    async def maintain(self, link: NatsLink, now: float) -> float:
        """Ask for what is in demand; return when to look again.

        Raises:
            TransportError: JetStream did not answer, or refused.
        """
        self._lived = link.echo_sent
        if now >= self._next_look:
            self._next_look = now + PAUSE
            await self._clear_up(link, now)
        again = self._next_look
        for served in tuple(self._changed):
            due = await self._adjust(link, served, now)
            if due is None:
                self._changed.pop(served, None)
            else:
                again = min(again, due)
        return again

    def valid(self, delivery: Delivery, now: float) -> bool:
        """Whether a delivery that waited here may still be handed over."""
        claim = delivery.token
        if isinstance(claim, Claim) and now >= claim.until:
            self._late += 1
            self.demand(claim.queue, self._served[claim.queue].want + 1)  # it is not what was wanted
            return False
        return True

    async def settle(self, link: NatsLink, settlements: Sequence[tuple[Delivery, Settlement]]) -> list[bool]:
        """End claims, one after the other. False for each whose lease had ended.

        Raises:
            TransportError: A claim could not be settled; those before it have ended.
        """
        return [await self._settle(link, delivery, how) for delivery, how in settlements]

    async def _settle(self, link: NatsLink, delivery: Delivery, how: Settlement) -> bool:
        claim, now = claim_of(delivery), asyncio.get_running_loop().time()
        if claim not in self._claims or now >= claim.until:
            self._claims.pop(claim, None)
            self._stale += 1
            return False
        if how is Settlement.TERM:
            await self._store_dead(link, claim, attempt=delivery.count)
        claim.word = _WORDS[how]
        await self._send(link, claim, now)
        del self._claims[claim]
        return True

    async def _store_dead(self, link: NatsLink, claim: Claim, *, attempt: int) -> None:
        """Store a dead letter.

        Raises:
            TransportError: It may be stored or not.
        """
        headers = {"Nats-Msg-Id": f"dead-{claim.id}", "Actorbus-Queue": claim.queue, "Actorbus-Attempt": str(attempt)}
        answers = Answers(link)
        await answers.ask(self._layout.dead_subject(claim.queue), claim.body, headers)
        (message,) = await answers.wait()
        if status_of(message) == "503" or b'"error"' in message.data:
            why = message.data.decode(errors="replace") or "no stream"
            raise TransportError(f"the dead letters are refused: {why}")

    async def renew(self, link: NatsLink, deliveries: Sequence[Delivery]) -> list[bool]:
        """Renew the leases of claims. False for each that had ended.

        Raises:
            TransportError: No confirmation; the leases are as they were.
        """
        now = asyncio.get_running_loop().time()
        claims = [claim_of(delivery) for delivery in deliveries]
        ours = [claim for claim in claims if claim in self._claims and now < claim.until]
        if not ours:
            return [False] * len(claims)
        gone: list[str] = []
        if not await _renewed(link, ours):
            queues = dict.fromkeys(claim.queue for claim in ours)
            gone = [queue for queue in queues if await self._is_gone(link, queue)]
        done = asyncio.get_running_loop().time()
        for claim in ours:
            if done < claim.until and claim.queue not in gone:
                claim.renew(done, now + self._layout.ack_wait)
            else:
                self._claims.pop(claim, None)  # renewed too late, perhaps: it may be somebody else's
        return [claim in self._claims and now < claim.until for claim in claims]

    async def renew_all(self, link: NatsLink) -> dict[Claim, None]:
        """Renew all leases, from another thread. Returns the claims that have not ended.

        Raises:
            TransportError: No confirmation; the leases are as they were.
        """
        now = asyncio.get_running_loop().time()
        ours = [claim for claim in tuple(self._claims) if now < claim.until]
        if not ours or not await _renewed(link, ours):
            return {}
        done = asyncio.get_running_loop().time()
        renewed = [claim for claim in ours if done < claim.until]
        for claim in renewed:
            claim.renew(done, now + self._layout.ack_wait)
        return dict.fromkeys(renewed)

    async def give_back_all(self, link: NatsLink) -> None:
        """Return every claim to its queue."""
        now = asyncio.get_running_loop().time()
        for claim in tuple(self._claims):
            if now < claim.until:
                await link.publish(claim.subject, _WORDS[Settlement.NAK])
        self._claims.clear()

    async def _adjust(self, link: NatsLink, served: _Served, now: float) -> float | None:
        if now < served.retry_at:
            return served.retry_at
        pull = served.pull
        if pull is not None and pull.out > served.want:
            served.less_since = min(served.less_since, now)
            if now < served.less_since + CANCEL_AFTER:
                return served.less_since + CANCEL_AFTER
            self._cancel(link, served)
        served.less_since = math.inf
        if served.want > (served.pull.out if served.pull is not None else 0):
            try:
                await self._ask(link, served)
            except TransportError as error:
                if not link.connected:
                    raise
                # One queue that cannot be had must not keep the others, and the inbox, from being read.
                served.retry_at = now + RETRY
                if served.refused != str(error):
                    served.refused = str(error)
                    log().warning("a queue cannot be served; trying again", queue=served.name, error=served.refused)
                return served.retry_at
            served.refused = ""
        return None

    async def _ask(self, link: NatsLink, served: _Served) -> None:
        if not served.ready:
            await self._layout.ensure_queue(link, served.name)
            served.ready = True
        pull = served.pull
        if pull is None:
            pull = _Pull(link.new_subject())
            pull.subscription = await link.listen(pull.subject, partial(self._arrived, link, served, pull))
            served.pull = pull
        batch = served.want - pull.out
        if batch <= 0:
            return
        now = asyncio.get_running_loop().time()
        if not pull.out:
            pull.since = now
        pull.out += batch
        pull.expires = now + self._pull_time
        request = b'{"batch":%d,"expires":%d}' % (batch, self._pull_time * NANOSECONDS)
        await link.publish(f"$JS.API.CONSUMER.MSG.NEXT.{self._layout.jobs}.{token(served.name)}", request, pull.subject)

    def _cancel(self, link: NatsLink, served: _Served) -> None:
        # The server drops a request when nobody listens for its answer any more; what it had sent still comes.
        pull, served.pull = served.pull, None
        if pull is not None and pull.subscription is not None:
            link.stop_listening(pull.subscription)

    async def _clear_up(self, link: NatsLink, now: float) -> None:
        for served in self._served.values():
            if served.pull is not None and served.pull.out and now > served.pull.expires + PAUSE:
                self._cancel(link, served)  # the server has forgotten it
                self._changed[served] = None
        for claim in tuple(self._claims):
            if now >= claim.until:
                del self._claims[claim]
        for claim in tuple(self._unconfirmed):
            if now >= claim.until:
                del self._unconfirmed[claim]
            elif now > claim.sent + CONFIRMATION:
                await self._send(link, claim, now)

    async def _send(self, link: NatsLink, claim: Claim, now: float) -> None:
        if claim.word == _WORDS[Settlement.NAK]:
            await link.publish(claim.subject, claim.word)  # never twice: the second might hit the next owner's claim
            return
        claim.sent = now
        self._unconfirmed[claim] = None
        await link.ask(claim.subject, claim.word, _Confirmation(self._unconfirmed, claim))

    async def _is_gone(self, link: NatsLink, queue: str) -> bool:
        served = self._served.get(queue)
        answer = await link.api(f"CONSUMER.INFO.{self._layout.jobs}.{token(queue)}")
        if "error" in answer and served is not None:
            served.ready = False
        return "error" in answer

    def _arrived(self, link: NatsLink, served: _Served, pull: _Pull, message: Msg) -> None:
        if not message.reply:
            self._refused(link, served, pull, message)
            return
        count, position, _, _ = metadata(message)  # before anything is changed: it may be unreadable
        pull.out = max(0, pull.out - 1)
        if pull is not served.pull:
            self._changed[served] = None
        now = asyncio.get_running_loop().time()
        since = max(link.echo_sent, pull.since)
        claim = Claim(served.name, message, now, since + self._layout.ack_wait)
        if now >= claim.until:
            self._late += 1  # it lay unread for longer than a lease
            self._changed[served] = None
            return
        served.want = max(0, served.want - 1)
        self._claims[claim] = None
        # What was stored in an earlier life of the server may have been delivered in that more often than it knows.
        attempt = count if position > self._life else count + (self._life - position) * LIFE
        self._arrivals.put(Delivery("queue", served.name, message.data, attempt, claim, count, since))

    def _refused(self, link: NatsLink, served: _Served, pull: _Pull, message: Msg) -> None:
        if pull is not served.pull:
            return
        left = (message.headers or {}).get("Nats-Pending-Messages")
        if status_of(message) == "408" and left is not None:
            pull.out = max(0, pull.out - int(left))
        else:
            self._cancel(link, served)
            if status_of(message) != "408":
                served.ready = False
                served.retry_at = asyncio.get_running_loop().time() + PAUSE
        self._changed[served] = None
        self._arrivals.wake()


async def _renewed(link: NatsLink, claims: Sequence[Claim]) -> bool:
    """Ask for the renewal of leases. False if some queue is not there."""
    # Each queue handles what it is sent in order: its answer to the last renewal stands for all before.
    last = {claim.queue: claim for claim in claims}
    answers = Answers(link)
    for claim in claims:
        if last[claim.queue] is claim:
            await answers.ask(claim.subject, b"+WPI")
        else:
            await link.publish(claim.subject, b"+WPI")
    return all(status_of(message) != "503" for message in await answers.wait(EXTEND_TIMEOUT))
