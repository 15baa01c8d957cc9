"""The in-memory broker: what the transport contract does not say."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from itertools import product
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from bus.errors import InvalidNameError, TransportError
from bus.memory import broker as broker_module
from bus.memory import queues
from bus.memory import transport as memory
from bus.memory.broker import MemoryBroker
from bus.memory.queues import TRANSITIONS, Entry, EntryState
from bus.memory.transport import MemoryTransport
from bus.transport.transport import Delivery, Outgoing, Settlement

pytestmark = pytest.mark.anyio

on_a_virtual_clock = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("trio", {"clock": MockClock(autojump_threshold=0)}), id="trio-virtual")]
)


async def connect(broker: MemoryBroker, *addresses: str) -> list[MemoryTransport]:
    transports = [MemoryTransport(broker) for _ in addresses]
    for transport, address in zip(transports, addresses, strict=True):
        await transport.open(address)
    return transports


def work(*ids: str, queue: str = "work") -> list[Outgoing]:
    return [Outgoing("queue", queue, frame_id, frame_id.encode()) for frame_id in ids]


def bodies(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.body.decode() for delivery in deliveries]


async def read_into(transport: MemoryTransport, got: list[Delivery]) -> None:
    got.extend(await transport.receive())


@pytest.mark.parametrize(("before", "after"), list(product(EntryState, EntryState)))
def test_an_entry_makes_the_transitions_of_the_table_and_no_other(before: EntryState, after: EntryState) -> None:
    entry = Entry("work", "id", b"")
    entry.state = before
    if after in TRANSITIONS[before]:
        entry.move(after)
        assert entry.state is after
    else:
        with pytest.raises(RuntimeError, match=f"{before.value}, attempt 0> cannot become {after.value}"):
            entry.move(after)
        assert entry.state is before


async def test_nodes_that_wait_for_the_same_queue_take_turns() -> None:
    broker = MemoryBroker()
    nodes = await connect(broker, "a", "b", "c")
    got: list[list[Delivery]] = [[], [], []]
    async with anyio.create_task_group() as tasks:
        for node, its in zip(nodes, got, strict=True):
            node.demand("work", 10)
            tasks.start_soon(read_into, node, its)
        await anyio.wait_all_tasks_blocked()
        await nodes[0].send(work(*"123456"))
    assert sorted(sorted(bodies(its)) for its in got) == [["1", "4"], ["2", "5"], ["3", "6"]]


async def test_demand_made_while_a_receive_waits_counts_at_once() -> None:
    a, b = await connect(MemoryBroker(), "a", "b")
    await b.send(work("1"))
    got: list[Delivery] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_into, a, got)
        await anyio.wait_all_tasks_blocked()
        a.demand("work", 1)
        await anyio.wait_all_tasks_blocked()
        assert bodies(got) == ["1"]


async def test_a_node_that_demands_but_does_not_read_holds_nothing_up() -> None:
    broker = MemoryBroker()
    a, b = await connect(broker, "a", "b")
    a.demand("work", 10)
    b.demand("work", 10)
    await b.send(work("1", "2"))
    assert bodies(await b.receive()) == ["1", "2"]
    await b.send(work("3"))
    assert bodies(await a.receive()) == ["3"], "a is back, and the queue was still among those it demands"


async def test_a_receive_returns_at_most_a_batch_and_the_rest_next_time() -> None:
    broker = MemoryBroker()
    a, b = await connect(broker, "a", "b")
    a.demand("work", 1_000)
    await b.send(work(*(str(number) for number in range(300))))
    await b.send([Outgoing("inbox", "a", "reply", b"reply")])
    assert len(await a.receive()) == queues.BATCH
    assert bodies(await a.receive())[-1] == "reply"
    assert broker.statistics().claimed == 300


async def test_what_was_given_back_goes_to_the_front_of_its_queue_in_order() -> None:
    a, b = await connect(MemoryBroker(), "a", "b")
    await a.send(work("1", "2", "3"))
    a.demand("work", 2)
    assert bodies(await a.receive()) == ["1", "2"]
    await a.close()
    b.demand("work", 3)
    again = await b.receive()
    assert [(delivery.body, delivery.attempt) for delivery in again] == [(b"1", 2), (b"2", 2), (b"3", 1)]


@on_a_virtual_clock
async def test_a_waiting_reader_gets_a_claim_in_the_instant_its_lease_ends() -> None:
    a, b = await connect(MemoryBroker(ack_wait=0.4), "a", "b")
    a.demand("work", 1)
    await a.send(work("1"))
    await a.receive()
    b.demand("work", 1)
    start = anyio.current_time()
    (again,) = await b.receive()
    assert again.attempt == 2
    assert anyio.current_time() - start == pytest.approx(0.4)


@on_a_virtual_clock
async def test_a_renewed_claim_does_not_keep_another_from_ending() -> None:
    (a,) = await connect(MemoryBroker(ack_wait=10), "a")
    a.demand("work", 2)
    await a.send(work("1", "2"))
    first, second = await a.receive()
    await anyio.sleep(5)
    await a.extend([first])
    await anyio.sleep(6)
    assert await a.extend([first, second]) == [True, False]


@on_a_virtual_clock
async def test_claims_of_a_dead_node_last_until_their_leases_end_also_if_it_is_forgotten() -> None:
    broker = MemoryBroker(ack_wait=10)
    a, b = await connect(broker, "a", "b")
    a.demand("work", 5)
    await b.send(work("1", "2"))
    await a.receive()
    broker.forget("a")
    b.demand("work", 5)
    assert await b.receive() == []
    await anyio.sleep(9)
    assert [delivery.attempt for delivery in await b.receive()] == [2, 2]
    assert broker.statistics().expired == 2


@on_a_virtual_clock
async def test_a_forgotten_node_that_was_not_dead_reads_on_with_its_demand() -> None:
    broker = MemoryBroker()
    a, b = await connect(broker, "a", "b")
    a.demand("work", 5)
    await b.send([Outgoing("inbox", "a", "lost", b"lost")])
    broker.forget("a")
    await b.send([*work("1"), Outgoing("inbox", "a", "unroutable", b"")])
    assert broker.statistics().unroutable == 1
    assert bodies(await a.receive()) == ["1"]
    await b.send([Outgoing("inbox", "a", "kept", b"kept")])
    assert bodies(await a.receive()) == ["kept"]


@on_a_virtual_clock
async def test_g47_the_inbox_of_a_node_that_stopped_reading_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "INBOX_BOUND", 3)
    broker = MemoryBroker(ack_wait=1)
    _, b = await connect(broker, "a", "b")
    await b.send([Outgoing("inbox", "a", str(number), b"") for number in range(3)])
    with pytest.raises(TransportError, match="the inbox of node 'a' is full"):
        await b.send([Outgoing("inbox", "a", "3", b"")])
    await b.send([Outgoing("everyone", "", "4", b"")])
    assert broker.statistics().overflowed == 1
    await anyio.sleep(broker_module.GONE_AFTER)
    await b.receive()
    await anyio.sleep(1)
    await b.send([Outgoing("inbox", "a", "5", b"")])
    statistics = broker.statistics()
    assert (statistics.nodes, statistics.inbox, statistics.forgotten, statistics.unroutable) == (1, 0, 1, 1)


async def test_g47_a_full_queue_refuses_and_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "QUEUE_BOUND", 2)
    broker = MemoryBroker()
    (a,) = await connect(broker, "a")
    with pytest.raises(TransportError, match="queue 'work' is full"):
        await a.send(work("1", "2", "3"))
    a.demand("work", 3)
    assert bodies(await a.receive()) == ["1", "2"]
    a.demand("work", 3)
    await a.send(work("1", "2", "3"))
    assert bodies(await a.receive()) == ["3"], "sent again with the same ids, only the refused one is stored"


async def test_g47_the_deduplication_window_is_bounded() -> None:
    broker = MemoryBroker(max_dedup=2)
    (a,) = await connect(broker, "a")
    await a.send(work("1", "2", "2", "3", "1"))
    statistics = broker.statistics()
    assert (statistics.accepted, statistics.duplicates, statistics.remembered) == (4, 1, 2)


async def test_what_is_terminated_is_a_dead_letter() -> None:
    broker = MemoryBroker()
    (a,) = await connect(broker, "a")
    await a.send(work("1"))
    for how in (Settlement.NAK, Settlement.TERM):
        a.demand("work", 1)
        (claim,) = await a.receive()
        assert await a.settle([(claim, how)]) == [True]
    (letter,) = broker.dead_frames(10)
    assert (letter.queue, letter.body, letter.attempt) == ("work", b"1", 2)


@on_a_virtual_clock
@pytest.mark.parametrize("claimed_again", [True, False])
async def test_without_fencing_a_late_ack_deletes_the_frame_of_its_new_owner(claimed_again: bool) -> None:
    broker = MemoryBroker(ack_wait=1, fenced_ack=False)
    a, b = await connect(broker, "a", "b")
    a.demand("work", 1)
    await a.send(work("1"))
    (lost,) = await a.receive()
    await anyio.sleep(2)
    if claimed_again:
        b.demand("work", 1)
        (claim,) = await b.receive()
    else:
        claim = lost
    assert await a.settle([(lost, Settlement.NAK)]) == [False]
    assert await a.settle([(lost, Settlement.ACK)]) == [True]
    assert await b.settle([(claim, Settlement.ACK)]) == [False]
    statistics = broker.statistics()
    assert (statistics.ready, statistics.claimed, statistics.queues) == (0, 0, 0)


async def test_a_cancelled_receive_returns_its_claims_and_frames_next_time() -> None:
    a, b = await connect(MemoryBroker(), "a", "b")
    a.demand("work", 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(a.receive)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await b.send([*work("1"), Outgoing("inbox", "a", "2", b"2")])
    assert [(delivery.body, delivery.attempt) for delivery in await a.receive()] == [(b"1", 1), (b"2", 1)]


async def test_what_is_no_claim_cannot_be_settled() -> None:
    (a,) = await connect(MemoryBroker(), "a")
    await a.send([Outgoing("inbox", "a", "1", b"")])
    (delivery,) = await a.receive()
    with pytest.raises(TypeError, match="a delivery of the lane 'inbox' is not a claim"):
        await a.settle([(delivery, Settlement.ACK)])


async def test_a_transport_that_is_not_open_refuses() -> None:
    a = MemoryTransport(MemoryBroker())
    a.demand("work", 1)
    for _ in range(2):
        with pytest.raises(TransportError, match="not open"):
            await a.send([])
        with pytest.raises(TransportError, match="not open"):
            await a.receive()
        await a.open("a")
        await a.close()


async def test_closing_ends_a_receive_under_way() -> None:
    (a,) = await connect(MemoryBroker(), "a")
    got: list[Delivery] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_into, a, got)
        await anyio.wait_all_tasks_blocked()
        await a.close()
        await anyio.wait_all_tasks_blocked()
    assert got == []


async def test_g46_nothing_is_left_after_the_last_settlement() -> None:
    broker = MemoryBroker(max_dedup=1)
    (a,) = await connect(broker, "a")
    for number in range(1_000):
        a.demand(f"queue-{number}", 1)
        await a.send(work(str(number), queue=f"queue-{number}"))
        (claim,) = await a.receive()
        assert await a.settle([(claim, Settlement.ACK)]) == [True]
    await a.close()
    statistics = broker.statistics()
    assert (statistics.nodes, statistics.queues, statistics.ready, statistics.claimed) == (0, 0, 0, 0)


async def test_g45_a_message_looks_at_its_own_queue_only(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = MemoryBroker()
    nodes = await connect(broker, *(f"node{number}" for number in range(20)))
    for number in range(2_000):
        nodes[number % 20].demand(f"queue-{number}", 10)
    async with anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(node.receive)
    served: list[str] = []
    serve = queues.Queues._serve

    def spy(self: queues.Queues, queue: queues.Queue, now: float) -> None:
        served.append(queue.name)
        serve(self, queue, now)

    monkeypatch.setattr(queues.Queues, "_serve", spy)
    await nodes[0].send(work("1", queue="queue-7"))
    assert bodies(await nodes[7].receive()) == ["1"]
    assert served == ["queue-7", "queue-7"], "once when it was sent, once when its node was back"


def test_a_broker_has_one_name_in_the_process_and_goes_with_its_last_user() -> None:
    held = memory.broker("a-name")
    assert memory.broker("a-name") is held
    assert memory.broker("another") is not held
    gone = weakref.ref(held)
    del held
    gc.collect()
    assert gone() is None
    with pytest.raises(InvalidNameError):
        memory.broker("")


@pytest.mark.parametrize("options", [{"ack_wait": 0}, {"ack_wait": float("nan")}, {"max_dedup": 0}])
def test_a_broker_refuses_bounds_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        MemoryBroker(**options)
