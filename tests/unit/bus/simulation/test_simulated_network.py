"""The simulated network: its faults, and that a seed decides all of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from bus.errors import TransportError
from bus.memory.broker import MemoryBroker
from bus.simulation.network import Faults, SimulatedNetwork, SimulatedTransport, TraceEvent
from bus.transport.transport import Delivery, Outgoing, Settlement

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Trio on a virtual clock: the faults take seconds."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def simulate(seed: int = 1, **faults: Any) -> SimulatedNetwork:
    return SimulatedNetwork(random.Random(seed), Faults(**faults), MemoryBroker(ack_wait=10))


async def link(network: SimulatedNetwork, label: str, incarnation: int = 1) -> SimulatedTransport:
    """An open link, whatever the faults of the network are."""
    faults, network.faults = network.faults, Faults()
    transport = network.transport(label)
    await transport.open(f"{label}~{incarnation}")
    network.faults = faults
    return transport


def to(address: str, *numbers: int) -> list[Outgoing]:
    return [Outgoing("inbox", address, f"{address}-{number}", b"%d" % number) for number in numbers]


def work(*ids: str) -> list[Outgoing]:
    return [Outgoing("queue", "work", frame_id, frame_id.encode()) for frame_id in ids]


async def read_all(transport: SimulatedTransport, idle: int = 3) -> list[Delivery]:
    """What comes until there was nothing for some calls in a row; lost replies are asked for again."""
    got: list[Delivery] = []
    empty = 0
    while empty < idle:
        try:
            batch: Sequence[Delivery] = await transport.receive()
        except TransportError:
            continue
        got += batch
        empty = 0 if batch else empty + 1
    return got


async def send_until_told(transport: SimulatedTransport, frames: list[Outgoing]) -> None:
    while True:
        try:
            return await transport.send(frames)
        except TransportError:
            await anyio.sleep(1)


async def test_a_lost_send_raises_after_the_timeout_and_its_frames_are_stored_or_not() -> None:
    network = simulate(drop=1.0, timeout=3.0)
    a = await link(network, "a")
    stored: Counter[bool] = Counter()
    for number in range(40):
        before = network.broker.statistics().accepted
        start = anyio.current_time()
        with pytest.raises(TransportError, match=r"send of 'a' had no reply within 3\.0 s"):
            await a.send(work(str(number)))
        assert anyio.current_time() - start == pytest.approx(3.0)
        stored[network.broker.statistics().accepted > before] += 1
    assert min(stored.values()) > 5
    statistics = network.statistics()
    assert (statistics.replies_lost, statistics.requests_lost) == (stored[True], stored[False])


async def test_what_is_sent_until_it_is_accepted_arrives_once_in_spite_of_drops() -> None:
    network = simulate(drop=0.4)
    a, b = await link(network, "a"), await link(network, "b")
    got: list[Delivery] = []
    for number in range(50):
        await send_until_told(a, to("b~1", number))
        got += await read_all(b, idle=1)
    assert sorted(int(delivery.body) for delivery in got) == list(range(50))
    assert network.broker.statistics().duplicates > 0


async def test_claims_in_a_lost_reply_come_again_when_their_leases_end() -> None:
    network = simulate(drop=0.5)
    a = await link(network, "a")
    await send_until_told(a, work(*(str(number) for number in range(20))))
    attempts: dict[bytes, int] = {}
    while len(attempts) < 20:
        a.demand("work", 1)
        for delivery in await read_all(a, idle=1):
            attempts[delivery.body] = delivery.attempt
            with suppress(TransportError):
                await a.settle([(delivery, Settlement.ACK)])
    assert max(attempts.values()) > 1


async def test_frames_are_doubled() -> None:
    network = simulate(duplicate=0.3)
    a, b = await link(network, "a"), await link(network, "b")
    await a.send(to("b~1", *range(100)))
    times = Counter(delivery.body for delivery in await read_all(b))
    assert len(times) == 100
    assert set(times.values()) == {1, 2}
    assert network.statistics().duplicated == list(times.values()).count(2)


async def test_frames_are_reordered_but_not_lost() -> None:
    network = simulate(reorder=0.2)
    a, b = await link(network, "a"), await link(network, "b")
    await a.send(to("b~1", *range(100)))
    got = [int(delivery.body) for delivery in await read_all(b)]
    assert sorted(got) == list(range(100))
    assert got != sorted(got)
    assert 5 < network.statistics().reordered < 40


async def test_delays_alone_keep_the_order() -> None:
    network = simulate(delay=(0.01, 0.5))
    a, b = await link(network, "a"), await link(network, "b")
    start = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        got: list[Delivery] = []

        async def read() -> None:
            got.extend(await read_all(b, idle=5))

        tasks.start_soon(read)
        for number in range(20):
            await a.send(to("b~1", number))
    assert [int(delivery.body) for delivery in got] == list(range(20))
    assert anyio.current_time() - start > 20 * 0.01


async def test_frames_for_everyone_are_lost_without_an_error() -> None:
    network = simulate()
    a, b = await link(network, "a"), await link(network, "b")
    await a.send([Outgoing("everyone", "", f"beat-{number}", b"%d" % number) for number in range(100)])
    network.faults = Faults(drop=0.3)
    got = await read_all(b)
    assert 20 < len(got) < 90
    assert network.statistics().everyone_lost > 5


async def test_a_partition_fails_what_is_under_way_and_what_is_begun() -> None:
    network = simulate(timeout=2.0)
    a, b = await link(network, "a"), await link(network, "b")
    errors: list[str] = []

    async def read() -> None:
        start = anyio.current_time()
        with pytest.raises(TransportError):
            await a.receive()
        errors.append(f"receive after {anyio.current_time() - start:.1f} s")

    a.demand("work", 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        network.partition("a")
        await b.send([*work("1"), *to("a~1", 1)])
        with pytest.raises(TransportError):
            await a.send(to("b~1", 1))
    assert errors == ["receive after 2.0 s"]
    assert network.broker.statistics().claimed == 0
    assert await b.receive() == []
    network.heal("a")
    assert sorted(delivery.body for delivery in await read_all(a)) == [b"1", b"1"]
    assert network.statistics().partitioned == 0


async def test_a_reply_cut_off_by_a_partition_hides_what_was_done() -> None:
    network = simulate(delay=(4.0, 4.0))
    a = await link(network, "a")
    async with anyio.create_task_group() as tasks:

        async def cut() -> None:
            await anyio.sleep(3)
            network.partition("a")

        tasks.start_soon(cut)
        with pytest.raises(TransportError):
            await a.send(work("1"))
    assert network.broker.statistics().ready == 1


async def test_nothing_of_a_killed_process_reaches_the_broker() -> None:
    network = simulate(delay=(1.0, 1.0))
    a, b = await link(network, "a"), await link(network, "b")
    await b.send(work("1", "2"))
    a.demand("work", 1)
    claims = await read_all(a)
    broken: list[str] = []

    async def send() -> None:
        with pytest.raises(TransportError, match="killed"):
            await a.send(to("b~1", 1))
        broken.append("send")

    async def receive() -> None:
        with pytest.raises(TransportError, match="killed"):
            await a.receive()
        broken.append("receive")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        before = network.broker.statistics()
        a.demand("work", 0)
        a.demand("work", 5)
        network.kill("a")
    assert sorted(broken) == ["receive", "send"]
    start = anyio.current_time()
    for call in (a.send(to("b~1", 2)), a.settle([(claims[0], Settlement.ACK)]), a.extend(claims), a.open("a~2")):
        with pytest.raises(TransportError, match="killed"):
            await call
    a.demand("work", 7)
    await a.close()
    assert anyio.current_time() == start
    after = network.broker.statistics()
    assert (after.nodes, after.accepted) == (before.nodes, before.accepted)
    assert (network.statistics().kills, network.statistics().links) == (1, 1)


async def test_a_killed_process_keeps_its_claims_until_their_leases_end_and_comes_back_as_another() -> None:
    network = simulate()
    a = await link(network, "a")
    await a.send(work("1", "2"))
    a.demand("work", 1)
    await a.receive()
    network.kill("a")
    again = await link(network, "a", incarnation=2)
    again.demand("work", 5)
    assert [delivery.body for delivery in await again.receive()] == [b"2"]
    first = (await read_all(again, idle=20))[0]
    assert (first.body, first.attempt) == (b"1", 2)
    network.broker.forget("a~1")
    assert network.broker.statistics().nodes == 1


async def test_a_close_that_is_cut_off_leaves_the_claims_to_their_leases() -> None:
    network = simulate()
    a, b = await link(network, "a"), await link(network, "b")
    await a.send(work("1"))
    a.demand("work", 1)
    await a.receive()
    network.partition("a")
    await a.close()
    b.demand("work", 1)
    assert await b.receive() == []
    assert [delivery.attempt for delivery in await read_all(b, idle=12)] == [2]


async def live(transport: SimulatedTransport) -> None:
    """A node that works, and sends work for all and frames to `a`."""
    transport.demand("work", 100)

    async def read() -> None:
        for delivery in await read_all(transport, idle=10):
            if delivery.lane == "queue":
                with suppress(TransportError):
                    await transport.extend([delivery])
                    await transport.settle([(delivery, Settlement.ACK)])

    with anyio.move_on_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            for number in range(10):
                tasks.start_soon(send_until_told, transport, [*work(f"{transport.label}-{number}"), *to("a~1", number)])
    await transport.close()


def run_traced(seed: int) -> list[TraceEvent]:
    """Three nodes, a partition and a kill, under a scheduler that draws from the seed too."""
    trace: list[TraceEvent] = []
    faults = Faults(drop=0.2, duplicate=0.2, reorder=0.2, delay=(0.0, 0.3))
    network = SimulatedNetwork(random.Random(seed), faults, MemoryBroker(ack_wait=3), trace.append)

    async def main() -> None:
        links = [await link(network, label) for label in ("a", "b", "c")]
        async with anyio.create_task_group() as tasks:
            for transport in links:
                tasks.start_soon(live, transport)
            await anyio.sleep(2)
            network.partition("a")
            await anyio.sleep(2)
            network.heal("a")
            network.kill("b")

    scheduler: Any = trio._core._run
    scheduler._r.seed(seed)
    trio.run(main, clock=MockClock(autojump_threshold=0))
    return trace


def test_the_same_seed_gives_the_same_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
    first = run_traced(7)
    assert len(first) > 100
    assert {"send", "deliver", "duplicate", "reorder", "partition", "heal", "kill"} <= {
        event for _, _, event, _ in first
    }
    assert run_traced(7) == first
    assert run_traced(8) != first


@pytest.mark.parametrize(
    "options", [{"drop": 1.1}, {"duplicate": -0.1}, {"reorder": float("nan")}, {"delay": (2, 1)}, {"timeout": 0}]
)
def test_faults_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Faults(**options)


def straight(address: str, *numbers: int) -> list[Outgoing]:
    return [Outgoing("direct", address, f"d-{number}", b"%d" % number) for number in numbers]


async def test_direct_frames_are_lost_with_either_connection_and_only_then() -> None:
    network = simulate()
    a, b = await link(network, "a"), await link(network, "b")
    await a.tell(straight("b~1", 1))
    network.partition("b")
    await a.tell(straight("b~1", 2))
    network.heal("b")
    await a.tell(straight("b~1", 3))
    network.partition("a")
    await a.tell(straight("b~1", 4))
    with pytest.raises(TransportError):
        await a.tell(straight("b~1", 5))
    network.heal("a")
    await a.tell(straight("b~1", 5))
    assert [delivery.body for delivery in await read_all(b)] == [b"3", b"5"]
    assert network.statistics().direct_lost == 1


async def test_a_tell_is_lost_as_a_whole_and_says_nothing() -> None:
    network = simulate(drop=0.5)
    a, b = await link(network, "a"), await link(network, "b")
    for number in range(0, 40, 2):
        await a.tell(straight("b~1", number, number + 1))
    network.faults = Faults()
    got = [int(delivery.body) for delivery in await read_all(b)]
    assert 0 < len(got) < 40
    assert got == [number for first in got[::2] for number in (first, first + 1)]
    assert network.statistics().direct_lost == 40 - len(got)
