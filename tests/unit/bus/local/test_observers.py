"""Observers hear every message that passes their process; who has none pays nothing."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Job, JobError, WorkerRunner, job, subscribe
from bus import AsyncQueueBus, BusDataMessage, BusMessage, BusSubscriber, open_bus
from tests.support.running import running

pytestmark = pytest.mark.anyio


class Tap(BusSubscriber):
    observes = True

    def __init__(self, name: str = "tap") -> None:
        self._name = name
        self.seen: list[BusMessage] = []
        self.changes = False

    @property
    def name(self) -> str:
        return self._name

    async def on_bus_message(self, message: BusMessage) -> None:
        self.seen.append(message)
        if self.changes and isinstance(getattr(message, "payload", None), dict):
            message.payload["n"] = "changed"  # type: ignore[attr-defined]

    def passed(self, *names: str) -> list[tuple[str, str, str | None]]:
        """What went between these, in order."""
        told = [(type(each).__name__.removeprefix("Bus").removesuffix("Message"), each) for each in self.seen]
        return [(kind, each.source, each.target) for kind, each in told if each.source in names]


class Peer(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.news: list[Any] = []

    @job
    async def ask(self, job: Job[dict[str, Any]]) -> dict[str, Any]:
        await job.update("half")
        job.payload["n"] += 1
        return job.payload

    @job
    async def fail(self, payload: Any) -> None:
        raise ValueError("no")

    @subscribe("news")
    async def read(self, data: Any) -> None:
        self.news.append(data)


def plain(bus: object) -> bool:
    return not {"post", "deliver", "hand_out", "tell_runners"} & vars(bus).keys()


async def test_an_observer_hears_what_passes_between_others_once_and_in_order() -> None:
    tap, asker, peer = Tap(), BaseWorker("asker"), Peer("peer")
    async with running(asker, peer) as runner:
        assert plain(runner.bus)
        await runner.bus.subscribe(tap)
        await asker.job("peer", name="ask", payload={"n": 1})
        await asker.job("peer", name="ask", payload={"n": 1}, timeout=50)
        await asker.send_bus_message(BusDataMessage(source="asker", target="peer"))
        await asker.send_bus_message(BusDataMessage(source="asker"))
        await asker.publish("news", 1)
        await anyio.wait_all_tasks_blocked()
        one = [("JobRequest", "asker", "peer"), ("JobUpdate", "peer", "asker"), ("JobResponse", "peer", "asker")]
        data = [("Data", "asker", "peer"), ("Data", "asker", None), ("Topic", "asker", "peer")]
        assert tap.passed("asker", "peer") == [*one, *one, *data]
        await runner.bus.unsubscribe(tap)
        assert plain(runner.bus)
        await asker.job("peer", name="ask", payload={"n": 1})
        await anyio.wait_all_tasks_blocked()
        assert len(tap.passed("asker", "peer")) == 9


async def test_what_is_answered_at_once_is_heard_after_what_it_answers() -> None:
    tap, asker = Tap(), BaseWorker("asker")
    async with running(asker, Peer("peer")) as runner:
        await runner.bus.subscribe(tap)
        with pytest.raises(JobError):
            await asker.job("peer", name="no such job")
        with pytest.raises(JobError):
            await asker.job("peer", name="fail")
        await anyio.wait_all_tasks_blocked()
        assert [kind for kind, *_ in tap.passed("asker", "peer")] == ["JobRequest", "JobResponse"] * 2


async def test_what_an_observer_does_to_a_message_reaches_nobody_and_what_a_handler_does_not_it() -> None:
    taps, asker = [Tap("a"), Tap("b")], BaseWorker("asker")
    taps[0].changes = True
    async with running(asker, Peer("peer")) as runner:
        for tap in taps:
            await runner.bus.subscribe(tap)
        assert await asker.job("peer", name="ask", payload={"n": 1}) == {"n": 2}
        await anyio.wait_all_tasks_blocked()
        requests = [each for each in taps[1].seen if type(each).__name__ == "BusJobRequestMessage"]
        assert [each.payload for each in requests] == [{"n": 1}]  # type: ignore[attr-defined]
        await runner.bus.unsubscribe(taps[0])
        before = len(taps[1].seen)
        await asker.job("peer", name="ask", payload={"n": 1})
        await anyio.wait_all_tasks_blocked()
        assert len(taps[1].seen) > before


async def test_an_observer_that_sends_does_not_hear_itself_and_hears_what_is_sent_to_it_once() -> None:
    class Chatty(Tap):
        bus: Any = None

        async def on_bus_message(self, message: BusMessage) -> None:
            await super().on_bus_message(message)
            await self.bus.send(BusDataMessage(source=self.name, target="nobody"))

    async with AsyncQueueBus() as bus:
        tap, other = Chatty(), Tap("other")
        tap.bus = bus
        await bus.subscribe(tap)
        await bus.subscribe(other)
        for target in ("tap", "x", None):
            await bus.send(BusDataMessage(source="a", target=target))
        await anyio.wait_all_tasks_blocked()
        assert [each.target for each in tap.seen] == ["tap", "x", None]
        assert [each.source for each in other.seen].count("tap") == 3
        assert bus.statistics().undeliverable == 4


async def test_an_observer_that_is_too_slow_holds_nobody_up_and_what_it_misses_is_counted() -> None:
    class Slow(Tap):
        async def on_bus_message(self, message: BusMessage) -> None:
            await anyio.sleep_forever()

    async with AsyncQueueBus() as bus:
        await bus.subscribe(Slow())
        await bus.subscribe(reader := _Reader())
        for _ in range(10_050):
            await bus.send(BusDataMessage(source="a", target="reader"))
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert reader.count == 10_050
        assert bus.statistics().undeliverable == 49


class _Reader(BusSubscriber):
    name = "reader"  # users write it so
    count = 0

    async def on_bus_message(self, message: BusMessage) -> None:
        self.count += 1


async def test_what_cannot_be_handed_over_yet_is_heard_when_it_is() -> None:
    class Narrow(Peer):
        mailbox_size = 1
        max_concurrency = 1

        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.gate = anyio.Event()

        @job(name="wait")
        async def wait_for_gate(self) -> None:
            await self.gate.wait()

    tap, asker, peer = Tap(), BaseWorker("asker"), Narrow("peer")
    async with running(asker, peer) as runner, anyio.create_task_group() as tasks:
        await runner.bus.subscribe(tap)
        for _ in range(4):
            tasks.start_soon(lambda: _done(asker.job("peer", name="wait")))
        await anyio.wait_all_tasks_blocked()
        assert len(tap.passed("asker")) == 2
        peer.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert len(tap.passed("asker")) == 4


async def _done(asked: Any) -> None:
    await asked


@pytest.mark.parametrize("network", [False, True])
async def test_an_observer_outlives_its_bus_and_hears_what_a_network_brings(network: bool) -> None:
    url = "memory://observed"
    tap = Tap()
    bus = open_bus(url) if network else AsyncQueueBus()
    await bus.subscribe(tap)
    for _ in range(2):
        async with bus:
            await bus.send(BusDataMessage(source="a", target="b"))
            await anyio.wait_all_tasks_blocked()
    assert [each.source for each in tap.seen].count("a") == 2
    if not network:
        return
    tap.seen.clear()
    options: dict[str, Any] = {"handle_sigint": False, "handle_sigterm": False}
    asker, peer = BaseWorker("asker"), Peer("peer")
    async with (
        WorkerRunner("here", bus=bus, **options) as here,
        WorkerRunner("there", bus=open_bus(url), **options) as there,
    ):
        await there.add_workers(peer)
        await here.add_workers(asker)
        assert await asker.job("peer", name="ask", payload={"n": 1}) == {"n": 2}
        await anyio.wait_all_tasks_blocked()
    kinds = [kind for kind, *_ in tap.passed("asker", "peer")]
    assert [kind for kind in kinds if kind in {"JobRequest", "JobUpdate", "JobResponse"}] == [
        "JobRequest",
        "JobUpdate",
        "JobResponse",
    ]
