"""The bus used alone: plain subscribers, without a runner or a worker."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bus import (
    AsyncQueueBus,
    BusDataMessage,
    BusLocalMessage,
    BusMessage,
    BusNotStartedError,
    BusSubscriber,
    DuplicateNameError,
    EncodeError,
    InvalidNameError,
    MailboxFullError,
    open_bus,
)
from bus.local.bus import BusStatistics
from bus.local.mailbox import DEFAULT_MAILBOX_SIZE
from tests.support.messages import Alarm, Note
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio


class Parcel(BusDataMessage, BusLocalMessage, kw_only=True):
    thing: Any


class Listener(BusSubscriber):
    """Keeps what it gets; stops at a note that says so until it is let go."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.got: list[Any] = []
        self.gate = anyio.Event()

    @property
    def name(self) -> str:
        return self._name

    async def on_bus_message(self, message: BusMessage) -> None:
        text = getattr(message, "text", message)
        self.got.append(text)
        if text == "stop":
            await self.gate.wait()
        if text == "raise":
            raise ValueError("no")
        if text == "exit":
            raise SystemExit(2)


def note(text: str, target: str | None = "a", **fields: Any) -> Note:
    return Note(source="test", target=target, text=text, **fields)


async def test_a_bus_that_is_not_started_refuses_to_send() -> None:
    bus = AsyncQueueBus()
    with pytest.raises(BusNotStartedError, match="cannot send Note: the bus is not started"):
        await bus.send(note("early"))
    async with bus:
        await bus.send(note("in time"))


async def test_messages_of_a_sender_arrive_in_order_and_only_at_their_target() -> None:
    a, b = Listener("a"), Listener("b")
    async with AsyncQueueBus() as bus:
        await bus.subscribe(a)
        await bus.subscribe(b)
        for number in range(100):
            await bus.send(note(str(number), "b" if number % 10 == 0 else "a"))
        await anyio.wait_all_tasks_blocked()
    assert a.got == [str(number) for number in range(100) if number % 10]
    assert b.got == [str(number) for number in range(0, 100, 10)]


async def test_who_subscribed_before_the_start_or_stays_over_a_restart_is_served() -> None:
    a, bus = Listener("a"), AsyncQueueBus()
    await bus.subscribe(a)
    await bus.subscribe(a)
    for life in ("first", "second"):
        async with bus:
            await bus.subscribe(a)
            await bus.send(note(life))
            await anyio.wait_all_tasks_blocked()
        assert bus.statistics().subscribers == 0
    assert a.got == ["first", "second"]


async def test_starting_twice_and_stopping_twice_are_no_errors() -> None:
    bus = AsyncQueueBus()
    await bus.stop()
    await bus.start()
    await bus.start()
    assert bus.started
    assert repr(bus) == "<AsyncQueueBus started subscribers=0>"
    await bus.stop()
    await bus.stop()
    assert repr(bus) == "<AsyncQueueBus stopped subscribers=0>"


@pytest.mark.parametrize("started", [False, True])
async def test_a_taken_name_is_refused_and_its_holder_is_not_disturbed(started: bool) -> None:
    holder, late, bus = Listener("a"), Listener("a"), AsyncQueueBus()
    if started:
        await bus.start()
    await bus.subscribe(holder)
    with pytest.raises(DuplicateNameError, match="'a' is already taken"):
        await bus.subscribe(late)
    await bus.unsubscribe(late)
    await bus.start()
    await bus.send(note("hello"))
    await anyio.wait_all_tasks_blocked()
    assert (holder.got, late.got) == (["hello"], [])
    await bus.unsubscribe(holder)
    await bus.subscribe(late)
    await bus.send(note("again"))
    await anyio.wait_all_tasks_blocked()
    assert (holder.got, late.got) == (["hello"], ["again"])
    await bus.stop()


async def test_a_name_that_breaks_the_rule_is_refused() -> None:
    with pytest.raises(InvalidNameError, match=r"subscriber name 'a.tb' is not a valid name"):
        await AsyncQueueBus().subscribe(Listener("a\tb"))
    with pytest.raises(NotImplementedError, match="needs a property 'name'"):
        await AsyncQueueBus().subscribe(BusSubscriber())


async def test_system_messages_are_handled_while_a_data_message_still_is() -> None:
    a = Listener("a")
    async with AsyncQueueBus() as bus:
        await bus.subscribe(a)
        await bus.send(note("stop"))
        await bus.send(note("after"))
        await anyio.wait_all_tasks_blocked()
        await bus.send(Alarm(source="test", target="a", text="fire"))
        await anyio.wait_all_tasks_blocked()
        assert a.got == ["stop", "fire"]
        a.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert a.got == ["stop", "fire", "after"]


@pytest.mark.parametrize("text", ["raise", "exit"])
async def test_what_a_subscriber_raises_does_not_stop_the_delivery(text: str) -> None:
    a = Listener("a")
    async with AsyncQueueBus() as bus:
        await bus.subscribe(a)
        for each in (text, "after", text, "at last"):
            await bus.send(note(each))
        await anyio.wait_all_tasks_blocked()
    assert a.got == [text, "after", text, "at last"]


async def test_a_message_without_a_target_reaches_everybody_but_its_sender() -> None:
    listeners = [Listener(name) for name in ("test", "a", "b")]
    async with AsyncQueueBus() as bus:
        for listener in listeners:
            await bus.subscribe(listener)
        await bus.send(note("all", None))
        await bus.unsubscribe(listeners[1])
        await bus.send(note("rest", None))
        await anyio.wait_all_tasks_blocked()
    assert [listener.got for listener in listeners] == [[], ["all"], ["all", "rest"]]


async def test_what_arrives_is_a_copy_unless_the_message_stays_in_the_process() -> None:
    class Keeper(Listener):
        async def on_bus_message(self, message: BusMessage) -> None:
            self.got.append(message)

    a, thing, items = Keeper("a"), object(), [1]
    async with AsyncQueueBus() as bus:
        await bus.subscribe(a)
        await bus.send(note("list", items=items))
        items.append(2)
        await bus.send(Parcel(source="test", target="a", thing=thing))
        with pytest.raises(EncodeError, match=r"items\[1\]"):
            await bus.send(note("bad", items=[1, thing]))
        await anyio.wait_all_tasks_blocked()
    assert [message.items for message in a.got[:1]] == [[1]]
    assert [message.thing for message in a.got[1:]] == [thing]


async def test_a_message_nobody_has_the_name_of_is_counted() -> None:
    async with AsyncQueueBus() as bus:
        await bus.send(note("to nobody", "nobody"))
        await bus.send(note("to nobody in particular", None))
        assert bus.statistics() == BusStatistics(subscribers=0, parked=0, sent=2, undeliverable=1)


@virtual_time()
async def test_a_full_mailbox_lets_the_sender_wait_and_after_half_a_minute_refuses() -> None:
    a = Listener("a")
    async with AsyncQueueBus() as bus:
        await bus.subscribe(a)
        await bus.send(note("stop"))
        await anyio.wait_all_tasks_blocked()
        for number in range(DEFAULT_MAILBOX_SIZE):
            await bus.send(note(str(number)))
        began = anyio.current_time()
        with pytest.raises(MailboxFullError, match=rf"mailbox of worker 'a' is full \({DEFAULT_MAILBOX_SIZE} waiting"):
            await bus.send(note("too much"))
        assert anyio.current_time() - began == pytest.approx(30.0)
        await bus.send(Alarm(source="test", target="a", text="fits"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.send, note("patient"))
            await anyio.sleep(29)
            a.gate.set()
        await anyio.wait_all_tasks_blocked()
    assert a.got[:2] == ["stop", "fits"]
    assert a.got[-1] == "patient"
    assert len(a.got) == 3 + DEFAULT_MAILBOX_SIZE


@virtual_time()
async def test_who_waits_for_room_is_not_left_waiting_when_the_bus_stops() -> None:
    a, sent = Listener("a"), []
    async with anyio.create_task_group() as tasks, AsyncQueueBus() as bus:
        await bus.subscribe(a)
        await bus.send(note("stop"))
        await anyio.wait_all_tasks_blocked()
        for number in range(DEFAULT_MAILBOX_SIZE):
            await bus.send(note(str(number)))

        async def send() -> None:
            try:
                await bus.send(note("one more"))
            except MailboxFullError as error:
                sent.append(error)

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
    assert len(sent) == 1


async def test_stopping_cancels_what_a_subscriber_still_does() -> None:
    a, left = Listener("a"), []

    class Blocked(Listener):
        async def on_bus_message(self, message: BusMessage) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                left.append(message)

    a = Blocked("a")
    async with AsyncQueueBus() as bus:
        await bus.subscribe(a)
        await bus.send(note("go"))
        await anyio.wait_all_tasks_blocked()
    assert len(left) == 1


async def test_a_bus_can_be_had_by_its_url() -> None:
    assert type(open_bus("memory://")) is AsyncQueueBus
    with pytest.raises(ValueError, match="no bus for the scheme 'carrier-pigeon'"):
        open_bus("carrier-pigeon://home")


async def test_open_bus_takes_the_environment_if_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACTORBUS_BUS", raising=False)
    assert type(open_bus()) is AsyncQueueBus
    monkeypatch.setenv("ACTORBUS_BUS", "carrier-pigeon://home")
    with pytest.raises(ValueError, match="carrier-pigeon"):
        open_bus()


async def test_a_loop_of_a_bus_has_its_clock_until_it_has_ended() -> None:
    bus, ended = AsyncQueueBus(), []

    async def loop() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(bus.tasks.now())

    await bus.start()
    bus.tasks.spawn(loop)
    await anyio.wait_all_tasks_blocked()
    await bus.stop()
    assert len(ended) == 1
    with pytest.raises(BusNotStartedError):
        bus.tasks.now()
