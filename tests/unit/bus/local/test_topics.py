"""Topics: what is published reaches every follower, a copy each, in order."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import BaseWorker, HandlerError, subscribe
from actors.worker.handlers import definition_of
from bus import AsyncQueueBus, EncodeError, InvalidNameError, MailboxFullError, WorkerErrorData, open_bus
from tests.support.running import running
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio


class Reader(BaseWorker):
    """Keeps the news; stops at the item that says so until it is let go."""

    def __init__(self, name: str, *, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.read: list[Any] = []
        self.gate = anyio.Event()
        self.forecast = anyio.Event()

    @subscribe("news")
    async def news(self, data: Any) -> None:
        self.read.append(data)
        if data == "stop":
            await self.gate.wait()
        if data == "raise":
            raise ValueError("no")

    @subscribe("weather")
    async def weather(self, data: Any) -> None:
        self.read.append(("weather", data))
        self.forecast.set()


async def test_every_follower_gets_what_is_published_in_order_on_every_runner() -> None:
    writer, near, far, deaf = BaseWorker("writer"), Reader("near"), Reader("far"), BaseWorker("deaf")
    async with AsyncQueueBus() as bus, running(writer, near, deaf, bus=bus), running(far, bus=bus):
        for number in range(10):
            assert await writer.publish("news", number) == 2
        assert await writer.publish("weather", "rain") == 2
        assert await writer.publish("sports", 1) == 0
        await anyio.wait_all_tasks_blocked()
        assert near.read == far.read == [*range(10), ("weather", "rain")]


async def test_a_follower_may_publish_and_hears_itself() -> None:
    class Echo(Reader):
        @subscribe("echo")
        async def echo(self, data: int) -> None:
            self.read.append(data)
            if data:
                await self.publish("echo", data - 1)

    echo = Echo("echo")
    async with running(echo):
        await echo.publish("echo", 3)
        await anyio.wait_all_tasks_blocked()
        assert echo.read == [3, 2, 1, 0]


async def test_each_follower_gets_a_copy_of_its_own() -> None:
    writer, first, second, data = BaseWorker("writer"), Reader("first"), Reader("second"), [1]
    async with running(writer, first, second):
        await writer.publish("news", data)
        data.append(2)
        await anyio.wait_all_tasks_blocked()
        first.read[0].append(3)
        assert (first.read, second.read) == ([[1, 3]], [[1]])


async def test_what_cannot_travel_reaches_nobody() -> None:
    writer, reader = BaseWorker("writer"), Reader("reader")
    async with running(writer, reader):
        with pytest.raises(EncodeError, match=r"data\.thing"):
            await writer.publish("news", {"thing": object()})
        with pytest.raises(InvalidNameError, match=r"topic 'no.tgood' is not a valid name"):
            await writer.publish("no\tgood", 1)
        await anyio.wait_all_tasks_blocked()
        assert reader.read == []


async def test_a_follower_that_raises_is_reported_and_reads_on() -> None:
    writer, reader, errors = BaseWorker("writer"), Reader("reader"), []
    async with running(writer, reader) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        await writer.publish("news", "raise")
        await writer.publish("news", "after")
        await anyio.wait_all_tasks_blocked()
        assert reader.read == ["raise", "after"]
        assert errors == [WorkerErrorData("reader", "hook news failed: ValueError: no")]


async def test_a_follower_that_is_gone_is_not_counted_and_its_topics_are_forgotten() -> None:
    writer, reader = BaseWorker("writer"), Reader("reader")
    async with running(writer, reader) as runner:
        await runner.remove_worker("reader")
        assert await writer.publish("news", 1) == 0
        assert len(runner.bus.topics) == 0
        again = Reader("reader")
        await runner.add_workers(again)
        assert await writer.publish("news", 2) == 1
        await anyio.wait_all_tasks_blocked()
        assert again.read == [2]


async def test_an_inactive_follower_reads_when_it_is_active_again() -> None:
    writer, reader = BaseWorker("writer"), Reader("reader", active=False)
    async with running(writer, reader):
        for number in (1, 2):
            await writer.publish("news", number)
        await anyio.wait_all_tasks_blocked()
        assert reader.read == []
        await writer.activate_worker("reader")
        await anyio.wait_all_tasks_blocked()
        assert reader.read == [1, 2]


@virtual_time()
async def test_a_follower_without_room_holds_up_its_publisher_for_half_a_minute_at_most() -> None:
    class Narrow(Reader):
        mailbox_size = 1

    writer, first, narrow, last = BaseWorker("writer"), Reader("first"), Narrow("narrow"), Reader("last")
    async with running(writer, first, narrow, last, ready_timeout=50.0):
        await writer.publish("news", "stop")
        first.gate.set()
        last.gate.set()
        await anyio.wait_all_tasks_blocked()
        await writer.publish("news", 1)
        began = anyio.current_time()
        with pytest.raises(MailboxFullError, match=r"mailbox of worker 'narrow' is full \(1 waiting\)"):
            await writer.publish("news", 2)
        assert anyio.current_time() - began == pytest.approx(30.0)
        assert first.read == ["stop", 1, 2]
        narrow.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert narrow.read == ["stop", 1]


@virtual_time()
async def test_a_publisher_that_waits_for_a_follower_goes_on_when_that_one_stops() -> None:
    class Narrow(Reader):
        mailbox_size = 1

    writer, narrow, last = BaseWorker("writer"), Narrow("narrow"), Reader("last")
    async with running(writer, narrow, last):
        for data in ("stop", 1):
            await writer.publish("news", data)
            last.gate.set()
            await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.publish, "news", 2)
            await anyio.wait_all_tasks_blocked()
            await narrow.stop()
        await anyio.wait_all_tasks_blocked()
        assert anyio.current_time() == began
        assert last.read == ["stop", 1, 2]


def test_a_topic_is_followed_by_one_method_of_a_class() -> None:
    with pytest.raises(HandlerError, match="topic 'news' is served by two methods, 'first' and 'second'"):

        class Twice(BaseWorker):
            @subscribe("news")
            async def first(self, data: Any) -> None: ...

            @subscribe("news")
            async def second(self, data: Any) -> None: ...


def test_a_worker_follows_a_bounded_number_of_topics() -> None:
    async def follow(_self: BaseWorker, _data: Any) -> None: ...

    def methods(count: int) -> dict[str, Any]:
        return {f"on_{number}": _marked(follow, f"topic-{number}") for number in range(count)}

    assert len(definition_of(type("Many", (BaseWorker,), methods(100))).topics) == 100
    with pytest.raises(HandlerError, match="TooMany follows 101 topics, more than 100: publish under fewer topics"):
        type("TooMany", (BaseWorker,), methods(101))


def _marked(function: Any, topic: str) -> Any:
    async def follow(self: BaseWorker, data: Any) -> None:
        await function(self, data)

    return subscribe(topic)(follow)


async def test_what_is_published_reaches_followers_on_other_buses_of_a_network_once_and_in_order() -> None:
    writer, here, there = BaseWorker("writer"), Reader("here"), Reader("there")
    url = "memory://topics"
    async with running(writer, here, bus=open_bus(url)) as runner, running(there, bus=open_bus(url)):
        known = anyio.Event()
        await runner.registry.watch("there", lambda _data: known.set())
        await known.wait()
        for number in range(100):
            assert await writer.publish("news", [number]) == 1
        assert await writer.publish("weather", "rain") == 1
        await there.forecast.wait()
        assert there.read == here.read == [*([number] for number in range(100)), ("weather", "rain")]
