"""The contract that every transport keeps, as checks that run from anybody's own tests.

```python
@pytest.mark.anyio
@pytest.mark.parametrize("check", TRANSPORT_CONTRACT, ids=lambda check: check.__name__)
async def test_my_transport(check: TransportCheck) -> None:
    await check(my_network)
```

`my_network(nodes)` is an async context manager that makes an empty network and gives a `ContractNetwork` with so many
open transports. Nothing is measured by a clock: the checks wait for frames, and for leases as long as `ack_wait` says.
Choose it well above the pauses of the machine, from a second up, or as long as you like under a virtual clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import anyio
import msgspec

from bus.errors import TransportError
from bus.transport.transport import Delivery, Lane, Outgoing, Settlement, Transport

__all__ = ["PATIENCE", "TRANSPORT_CONTRACT", "ContractNetwork", "MakeNetwork", "TransportCheck"]


class ContractNetwork(msgspec.Struct, frozen=True):
    """A network under test.

    Attributes:
        transports: Open transports by the address of their node.
        ack_wait: Seconds after which this network ends the lease of a claim.
    """

    transports: Mapping[str, Transport]
    ack_wait: float


MakeNetwork: TypeAlias = Callable[[int], AbstractAsyncContextManager[ContractNetwork]]
"""Gives an empty network with so many nodes, and closes their transports at the end, also those that are closed."""

TransportCheck: TypeAlias = Callable[[MakeNetwork], Awaitable[None]]
"""One sentence of the contract. Raises AssertionError if the network does not keep it."""


@asynccontextmanager
async def _nodes(make_network: MakeNetwork, count: int) -> AsyncIterator[Sequence[Probe]]:
    async with make_network(count) as network:
        yield [Probe(address, transport, network.ack_wait) for address, transport in network.transports.items()]


def _bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


async def frames_of_one_sender_arrive_in_the_order_sent(make_network: MakeNetwork) -> None:
    """Within each send and over several."""
    async with _nodes(make_network, 2) as (a, b):
        bodies = [b"%d" % number for number in range(60)]
        for first in range(0, 60, 20):
            await a.send("inbox", b.address, *bodies[first : first + 20])
        equal(_bodies(await b.take(60)), bodies)


async def frames_sent_before_the_reader_reads_are_kept(make_network: MakeNetwork) -> None:
    """An inbox exists from `open` on. What comes from it is no claim: lane, empty queue, attempt 1."""
    async with _nodes(make_network, 2) as (a, b):
        await a.send("inbox", b.address, b"early")
        delivery = await b.take_one()
        equal((delivery.lane, delivery.queue, delivery.body, delivery.attempt), ("inbox", "", b"early", 1))


async def a_node_gets_no_frame_of_another_node(make_network: MakeNetwork) -> None:
    """Neither from its inbox nor from a queue that it does not serve."""
    async with _nodes(make_network, 3) as (a, b, c):
        await a.send("inbox", b.address, b"for b")
        await a.send("queue", "work", b"for who serves it")
        equal(_bodies(await c.drain()), [])
        equal(_bodies(await b.drain()), [b"for b"])


async def a_frame_for_nobody_is_accepted_and_disturbs_nothing(make_network: MakeNetwork) -> None:
    """Senders learn of deaths late, so an address without a node is no error, also amid other frames."""
    async with _nodes(make_network, 2) as (a, b):
        await a.transport.send(
            [Outgoing("inbox", "nobody", "lost-1", b"lost"), Outgoing("inbox", b.address, "kept-1", b"kept")]
        )
        equal(_bodies(await b.take(1)), [b"kept"])


async def bodies_arrive_byte_for_byte(make_network: MakeNetwork) -> None:
    """Any bytes, none at all, and 64 KiB, through each lane."""
    bodies = [b"", bytes(range(256)), b"\x00\r\n\xff" * 16_384]
    async with _nodes(make_network, 2) as (a, b):
        b.transport.demand("work", len(bodies))
        await a.send("inbox", b.address, *bodies)
        await a.send("queue", "work", *bodies)
        await a.send("everyone", "", *bodies)
        await a.send("direct", b.address, *bodies)
        got = await b.take(4 * len(bodies))
        for lane in ("inbox", "queue", "everyone", "direct"):
            equal([delivery.body for delivery in got if delivery.lane == lane], bodies)


async def large_batches_arrive_whole(make_network: MakeNetwork) -> None:
    """1,000 frames of 2 KiB in one send, then 300 in a queue, whose leases are renewed in one call."""
    async with _nodes(make_network, 2) as (a, b):
        bodies = [b"%d" % number + b"." * 2_048 for number in range(1_000)]
        await a.send("inbox", b.address, *bodies)
        require(_bodies(await b.take(1_000)) == bodies, "a batch of 1,000 frames did not arrive as it was sent")
        b.transport.demand("work", 300)
        await a.send("queue", "work", *bodies[:300])
        queued = await b.take(300)
        require(sorted(_bodies(queued)) == sorted(bodies[:300]), "300 queued frames did not arrive as they were sent")
        equal(list(await b.transport.extend(queued)), [True] * 300)


async def everyone_reaches_all_nodes(make_network: MakeNetwork) -> None:
    """The sender too."""
    async with _nodes(make_network, 3) as nodes:
        await nodes[0].send("everyone", "", b"here I am")
        for node in nodes:
            delivery = await node.take_one()
            equal((delivery.lane, delivery.body), ("everyone", b"here I am"))


async def direct_frames_of_one_sender_arrive_in_the_order_sent(make_network: MakeNetwork) -> None:
    """Many at once and one by one, as long as both nodes are connected. They are no claims."""
    async with _nodes(make_network, 2) as (a, b):
        bodies = [b"%d" % number for number in range(640)]
        await a.send("direct", b.address, *bodies[:600])
        for body in bodies[600:]:
            await a.send("direct", b.address, body)
        got = await b.take(640)
        equal(_bodies(got), bodies)
        equal({(delivery.lane, delivery.queue, delivery.attempt) for delivery in got}, {("direct", "", 1)})


async def a_direct_frame_reaches_its_node_alone(make_network: MakeNetwork) -> None:
    """The sender too, if that is its own address; one for a node that is gone disturbs nothing."""
    async with _nodes(make_network, 3) as (a, b, c):
        await c.transport.close()
        await a.transport.tell([Outgoing("direct", to, f"d-{to}", to.encode()) for to in (c.address, "x", b.address)])
        await a.send("direct", a.address, b"to itself")
        equal(_bodies(await b.take(1)), [b.address.encode()])
        equal(_bodies(await a.take(1)), [b"to itself"])
        equal(_bodies(await a.drain() + await b.drain()), [])


async def a_closed_transport_says_that_it_tells_nobody(make_network: MakeNetwork) -> None:
    """What raises was not sent: who asks for a job that runs at most once may ask again."""
    async with _nodes(make_network, 2) as (a, b):
        await a.transport.close()
        refused = False
        try:
            await a.send("direct", b.address, b"never")
        except TransportError:
            refused = True
        equal(refused, expected=True)
        equal(await b.drain(), [])


async def an_idle_receive_returns_empty(make_network: MakeNetwork) -> None:
    """So that a reader can look after other things without being cancelled."""
    async with _nodes(make_network, 1) as (a,):
        a.transport.demand("work", 1)
        equal(list(await a.transport.receive()), [])


async def a_queued_frame_is_claimed_by_one_node_at_a_time(make_network: MakeNetwork) -> None:
    """However many serve its queue."""
    async with _nodes(make_network, 3) as (a, b, c):
        a.transport.demand("work", 5)
        b.transport.demand("work", 5)
        await c.send("queue", "work", b"once")
        got: list[tuple[Probe, Delivery]] = []
        for _ in range(3):
            for node in (a, b):
                got += [(node, delivery) for delivery in await node.drain()]
        equal([(delivery.queue, delivery.body, delivery.attempt) for _, delivery in got], [("work", b"once", 1)])
        owner, claim = got[0]
        equal(await owner.settle(claim, Settlement.ACK), expected=True)


async def work_waits_until_somebody_serves_its_queue(make_network: MakeNetwork) -> None:
    """In order; and it is no concern of its sender, who may leave meanwhile."""
    async with _nodes(make_network, 2) as (a, b):
        await a.send("queue", "work", b"first", b"second")
        await a.transport.close()
        b.transport.demand("work", 2)
        equal(_bodies(await b.take(2)), [b"first", b"second"])


async def one_frame_per_id_is_stored(make_network: MakeNetwork) -> None:
    """A sender that was not sure sends again with the same id, also after the first was done."""
    frame = Outgoing("queue", "work", "same", b"once")
    async with _nodes(make_network, 2) as (a, b):
        b.transport.demand("work", 5)
        await a.transport.send([frame, frame])
        await a.transport.send([frame])
        claim = await b.take_one()
        equal(await b.settle(claim, Settlement.ACK), expected=True)
        await a.transport.send([frame])
        equal(_bodies(await b.rest()), [])


async def demand_bounds_the_claims(make_network: MakeNetwork) -> None:
    """`slots` further frames, however many were settled; a later demand replaces what is left of the earlier."""
    async with _nodes(make_network, 2) as (a, b):
        await a.send("queue", "work", b"1", b"2", b"3", b"4", b"5")
        b.transport.demand("work", 2)
        claims = await b.take(2)
        for claim in claims:
            await b.settle(claim, Settlement.ACK)
        equal(_bodies(claims + await b.drain()), [b"1", b"2"])
        b.transport.demand("work", 7)
        b.transport.demand("work", 1)
        equal(_bodies(await b.take(1) + await b.drain()), [b"3"])


async def demand_of_zero_stops_the_claims(make_network: MakeNetwork) -> None:
    """The frame stays for others, and its attempt shows that nobody had it."""
    async with _nodes(make_network, 2) as (a, b):
        a.transport.demand("work", 5)
        a.transport.demand("work", 0)
        await b.send("queue", "work", b"later")
        equal(await a.drain(), [])
        b.transport.demand("work", 1)
        equal((await b.take_one()).attempt, 1)


async def nodes_share_the_work_of_a_queue(make_network: MakeNetwork) -> None:
    """What one has no slots for goes to another."""
    async with _nodes(make_network, 3) as (a, b, c):
        a.transport.demand("work", 3)
        b.transport.demand("work", 3)
        bodies = [b"%d" % number for number in range(6)]
        await c.send("queue", "work", *bodies)
        of_a, of_b = await a.take(3), await b.take(3)
        equal((len(of_a), len(of_b)), (3, 3))
        equal(sorted(_bodies(of_a + of_b)), bodies)


async def a_nak_gives_the_frame_to_who_has_a_free_slot(make_network: MakeNetwork) -> None:
    """At once, with the next attempt number."""
    async with _nodes(make_network, 2) as (a, b):
        await b.send("queue", "work", b"not me")
        a.transport.demand("work", 1)
        claim = await a.take_one()
        b.transport.demand("work", 1)
        equal(await a.settle(claim, Settlement.NAK), expected=True)
        again = await b.take_one()
        equal((again.body, again.attempt), (b"not me", 2))
        equal(await a.drain(), [])


async def a_claim_that_is_not_renewed_is_delivered_again(make_network: MakeNetwork) -> None:
    """To whoever has a free slot, its last owner as well; the attempt number counts on."""
    async with _nodes(make_network, 2) as (a, b):
        await b.send("queue", "work", b"again")
        a.transport.demand("work", 1)
        attempts = [(await a.take_one()).attempt]
        for node in (b, a):
            node.transport.demand("work", 1)
            attempts.append((await node.take_one()).attempt)
        equal(attempts, [1, 2, 3])


async def a_renewed_claim_stays_with_its_owner(make_network: MakeNetwork) -> None:
    """For longer than a lease, while another waits for work."""
    async with _nodes(make_network, 2) as (a, b):
        await b.send("queue", "work", b"long")
        a.transport.demand("work", 1)
        claim = await a.take_one()
        b.transport.demand("work", 1)
        for _ in range(6):
            await anyio.sleep(a.ack_wait / 4)
            equal(list(await a.transport.extend([claim])), [True])
        equal(await b.drain(), [])
        equal(await a.settle(claim, Settlement.ACK), expected=True)


async def a_lost_claim_can_be_neither_renewed_nor_settled(make_network: MakeNetwork) -> None:
    """Whatever its former owner does, the frame is its new owner's, also if they are the same node."""
    async with _nodes(make_network, 2) as (a, b):
        for owner in (b, a):
            await b.send("queue", "work", b"moved")
            a.transport.demand("work", 1)
            lost = await a.take_one()
            await anyio.sleep(1.5 * a.ack_wait)
            owner.transport.demand("work", 1)
            claim = await owner.take_one()
            equal(list(await a.transport.extend([lost])), [False])
            equal([await a.settle(lost, how) for how in Settlement], [False, False, False])
            equal(list(await owner.transport.extend([claim])), [True])
            equal(await owner.settle(claim, Settlement.ACK), expected=True)


async def a_settled_frame_never_comes_back(make_network: MakeNetwork) -> None:
    """Acknowledged or given up on, although the lease of its claim ends later."""
    async with _nodes(make_network, 1) as (a,):
        await a.send("queue", "work", b"done", b"poison")
        a.transport.demand("work", 2)
        done, poison = await a.take(2)
        equal(await a.settle(done, Settlement.ACK), expected=True)
        equal(await a.settle(poison, Settlement.TERM), expected=True)
        a.transport.demand("work", 2)
        await anyio.sleep(1.5 * a.ack_wait)
        equal(await a.rest(), [])


async def an_answer_ends_the_claim_that_it_settles(make_network: MakeNetwork) -> None:
    """With its storing, also where the inbox is gone; and never the claim of another, who has the frame since."""
    async with _nodes(make_network, 2) as (a, b):
        a.transport.demand("work", 2)
        await b.send("queue", "work", b"first", b"second")
        claims = await a.take(2)
        inboxes = (b.address, "nobody#1")
        await a.transport.send(
            [Outgoing("inbox", to, f"to-{to}", claim.body, claim) for to, claim in zip(inboxes, claims, strict=True)]
        )
        equal(_bodies(await b.take(1)), [claims[0].body])
        a.transport.demand("work", 1)
        await b.send("queue", "work", b"third")
        (late,) = await a.take(1)
        equal((late.body, late.attempt), (b"third", 1))
        await anyio.sleep(1.5 * a.ack_wait)
        b.transport.demand("work", 3)
        (mine,) = await b.take(1)
        equal((mine.body, mine.attempt), (b"third", 2))
        await a.transport.send([Outgoing("inbox", a.address, "too late", b"", late)])
        equal(list(await b.transport.extend([mine])), [True])


async def what_waits_in_a_queue_can_be_looked_at_and_taken_out(make_network: MakeNetwork) -> None:
    """In pages, also where nobody serves it; what was taken out is never delivered."""
    async with _nodes(make_network, 2) as (a, b):
        waiting = a.transport.waiting("work")
        equal(list(await waiting.oldest(10)), [])
        await b.send("queue", "work", b"1", b"2", b"3")
        await b.send("queue", "other", b"4")
        first = await waiting.oldest(2)
        rest = await waiting.oldest(10, first[-1].place)
        equal([frame.body for frame in (*first, *rest)], [b"1", b"2", b"3"])
        await waiting.discard([first[0].place, rest[0].place])
        b.transport.demand("work", 3)
        claim = await b.take_one()
        equal((claim.body, await b.settle(claim, Settlement.ACK)), (b"2", True))
        equal(await b.rest(), [])


async def what_was_given_up_can_be_looked_at_and_discarded(make_network: MakeNetwork) -> None:
    """By every node, in pages; a dead letter is discarded once."""
    async with _nodes(make_network, 2) as (a, b):
        await a.send("queue", "work", b"1", b"2")
        a.transport.demand("work", 2)
        for claim in await a.take(2):
            await a.settle(claim, Settlement.TERM)
        (first,) = await b.transport.dead_frames.oldest(1)
        (last,) = await b.transport.dead_frames.oldest(10, first.place)
        equal([(frame.queue, frame.body) for frame in (first, last)], [("work", b"1"), ("work", b"2")])
        equal([await a.transport.dead_frames.discard(first.place) for _ in range(2)], [True, False])
        equal([frame.body for frame in await b.transport.dead_frames.oldest(10)], [b"2"])


async def close_gives_back_the_claims(make_network: MakeNetwork) -> None:
    """Another node has them without waiting for a lease to end; the second close does nothing."""
    async with _nodes(make_network, 2) as (a, b):
        await b.send("queue", "work", b"1", b"2")
        a.transport.demand("work", 2)
        await a.take(2)
        await a.transport.close()
        await a.transport.close()
        b.transport.demand("work", 2)
        claims = await b.take(2)
        equal(sorted((claim.body, claim.attempt) for claim in claims), [(b"1", 2), (b"2", 2)])


async def a_cancelled_receive_loses_no_queued_frame(make_network: MakeNetwork) -> None:
    """At the latest when the lease ends, the frame comes again."""
    async with _nodes(make_network, 2) as (a, b):
        a.transport.demand("work", 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(a.transport.receive)
            await b.send("queue", "work", b"kept")
            tasks.cancel_scope.cancel()
        a.transport.demand("work", 1)
        equal((await a.take_one()).body, b"kept")


TRANSPORT_CONTRACT: tuple[TransportCheck, ...] = (
    frames_of_one_sender_arrive_in_the_order_sent,
    frames_sent_before_the_reader_reads_are_kept,
    a_node_gets_no_frame_of_another_node,
    a_frame_for_nobody_is_accepted_and_disturbs_nothing,
    bodies_arrive_byte_for_byte,
    large_batches_arrive_whole,
    everyone_reaches_all_nodes,
    direct_frames_of_one_sender_arrive_in_the_order_sent,
    a_direct_frame_reaches_its_node_alone,
    a_closed_transport_says_that_it_tells_nobody,
    an_idle_receive_returns_empty,
    a_queued_frame_is_claimed_by_one_node_at_a_time,
    work_waits_until_somebody_serves_its_queue,
    one_frame_per_id_is_stored,
    demand_bounds_the_claims,
    demand_of_zero_stops_the_claims,
    nodes_share_the_work_of_a_queue,
    a_nak_gives_the_frame_to_who_has_a_free_slot,
    a_claim_that_is_not_renewed_is_delivered_again,
    a_renewed_claim_stays_with_its_owner,
    a_lost_claim_can_be_neither_renewed_nor_settled,
    a_settled_frame_never_comes_back,
    an_answer_ends_the_claim_that_it_settles,
    what_waits_in_a_queue_can_be_looked_at_and_taken_out,
    what_was_given_up_can_be_looked_at_and_discarded,
    close_gives_back_the_claims,
    a_cancelled_receive_loses_no_queued_frame,
)
"""Every check, to be run against every transport. Their names and docstrings are the contract in words."""

PATIENCE = 30.0
"""Seconds, beyond two leases, after which a check gives up on frames that do not come."""


class Probe:
    """A transport under test, and what it has seen: a network may double frames that come to one node."""

    def __init__(self, address: str, transport: Transport, ack_wait: float) -> None:
        self.address = address
        self.transport = transport
        self.ack_wait = ack_wait
        self._sent = 0
        self._seen: dict[tuple[Lane, bytes], None] = {}

    async def send(self, lane: Lane, to: str, *bodies: bytes) -> None:
        """Send frames of one lane together."""
        frames = [Outgoing(lane, to, f"{self.address}-{self._sent + n}", body) for n, body in enumerate(bodies)]
        self._sent += len(frames)
        await (self.transport.tell(frames) if lane == "direct" else self.transport.send(frames))

    async def settle(self, claim: Delivery, how: Settlement) -> bool:
        """End one claim. False if it was lost."""
        (settled,) = await self.transport.settle([(claim, how)])
        return settled

    async def receive(self) -> tuple[bool, list[Delivery]]:
        """Whether there was nothing at all, and what was new."""
        batch = await self.transport.receive()
        new: list[Delivery] = []
        for delivery in batch:
            key = (delivery.lane, delivery.body)
            if delivery.lane == "queue" or key not in self._seen:
                new.append(delivery)
                self._seen[key] = None
        return not batch, new

    async def take(self, count: int) -> list[Delivery]:
        """The next deliveries: at least `count`, so that one too many is seen."""
        give_up = anyio.current_time() + 2 * self.ack_wait + PATIENCE
        taken: list[Delivery] = []
        while len(taken) < count:
            taken += (await self.receive())[1]
            require(
                len(taken) >= count or anyio.current_time() < give_up,
                f"node {self.address!r} got {len(taken)} of {count} deliveries",
            )
        return taken

    async def take_one(self) -> Delivery:
        """The next delivery, which must come alone."""
        taken = await self.take(1)
        equal(len(taken), 1)
        return taken[0]

    async def drain(self) -> list[Delivery]:
        """What arrives before a frame that the node sends to itself now."""
        last = b"last of %d" % self._sent
        await self.send("inbox", self.address, last)
        taken: list[Delivery] = []
        while not any(delivery.body == last for delivery in taken):
            taken += await self.take(1)
        return [delivery for delivery in taken if delivery.body != last]

    async def rest(self) -> list[Delivery]:
        """What arrives before nothing does for as long as `receive` waits."""
        taken: list[Delivery] = []
        idle = False
        while not idle:
            idle, new = await self.receive()
            taken += new
        return taken


def require(condition: bool, otherwise: str) -> None:
    """Fail unless something holds."""
    if not condition:
        raise AssertionError(otherwise)


def equal(got: object, expected: object) -> None:
    """Fail unless two things are equal."""
    require(got == expected, f"got {got!r} instead of {expected!r}")
