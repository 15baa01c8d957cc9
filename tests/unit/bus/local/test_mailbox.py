"""A mailbox keeps order per lane and per job, lets system messages overtake, and its room loses no sender."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bus.local.mailbox import Mailbox, MailboxStatistics, Room, RoomStatistics
from bus.local.tasks import Tasks

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def pool() -> AsyncGenerator[Tasks]:
    async with anyio.create_task_group() as task_group:
        yield Tasks(task_group)
        task_group.cancel_scope.cancel()


class Reader:
    """Handles each item when its gate is open, and notes when it began and ended."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.gates: dict[str, anyio.Event] = {}

    def block(self, item: str) -> anyio.Event:
        self.gates[item] = anyio.Event()
        return self.gates[item]

    async def __call__(self, item: str) -> None:
        self.notes.append(f"+{item}")
        if item in self.gates:
            await self.gates[item].wait()
        self.notes.append(f"-{item}")

    @property
    def begun(self) -> list[str]:
        return [note[1:] for note in self.notes if note[0] == "+"]


async def test_each_lane_is_handled_one_at_a_time_in_order() -> None:
    reader = Reader()
    async with pool() as tasks:
        mailbox = Mailbox("reader", reader, tasks)
        gate = reader.block("a")
        for item in "abc":
            mailbox.put(item)
        await anyio.wait_all_tasks_blocked()
        assert reader.notes == ["+a"]
        assert mailbox.statistics() == MailboxStatistics(data=2, system=0)
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert reader.notes == ["+a", "-a", "+b", "-b", "+c", "-c"]
        assert mailbox.statistics() == MailboxStatistics(data=0, system=0)
        assert not mailbox.busy


async def test_g16_a_system_message_is_handled_while_a_data_message_is_blocked() -> None:
    reader = Reader()
    async with pool() as tasks:
        mailbox = Mailbox("reader", reader, tasks)
        reader.block("data")
        mailbox.put("data")
        mailbox.put("later")
        await anyio.wait_all_tasks_blocked()
        mailbox.put_urgent("system")
        await anyio.wait_all_tasks_blocked()
        assert reader.notes == ["+data", "+system", "-system"]


async def test_an_idle_mailbox_holds_no_task() -> None:
    reader = Reader()
    async with pool() as tasks:
        mailboxes = [Mailbox(str(number), reader, tasks) for number in range(100)]
        for mailbox in mailboxes:
            mailbox.put("x")
            await anyio.wait_all_tasks_blocked()
        assert tasks.statistics().tasks == 1


async def test_g15_an_urgent_message_overtakes_other_keys_and_takes_earlier_ones_of_its_own_along() -> None:
    reader = Reader()
    async with pool() as tasks:
        mailbox = Mailbox("reader", reader, tasks)
        gate = reader.block("other-1")
        mailbox.put("other-1", "other")
        mailbox.put("mine-1", "mine")
        mailbox.put("other-2", "other")
        mailbox.put("mine-2", "mine")
        await anyio.wait_all_tasks_blocked()
        mailbox.put_urgent("mine-3", "mine")
        await anyio.wait_all_tasks_blocked()
        assert reader.begun == ["other-1", "mine-1", "mine-2", "mine-3"]
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert reader.begun[4:] == ["other-2"]


async def test_g15_an_urgent_message_waits_for_the_one_of_its_key_that_is_being_handled_and_overtakes_the_rest() -> (
    None
):
    reader = Reader()
    async with pool() as tasks:
        mailbox = Mailbox("reader", reader, tasks)
        gate = reader.block("mine-1")
        mailbox.put("mine-1", "mine")
        mailbox.put("other-1", "other")
        mailbox.put("mine-2", "mine")
        await anyio.wait_all_tasks_blocked()
        mailbox.put_urgent("mine-3", "mine")
        await anyio.wait_all_tasks_blocked()
        assert reader.notes == ["+mine-1"]
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert reader.begun == ["mine-1", "mine-2", "mine-3", "other-1"]


async def test_g14_a_message_does_not_overtake_an_urgent_one_of_its_key_that_waits_or_is_being_handled() -> None:
    for blocked in ("elsewhere", "mine-1"):
        reader = Reader()
        async with pool() as tasks:
            mailbox = Mailbox("reader", reader, tasks)
            gate = reader.block(blocked)
            mailbox.put_urgent("elsewhere", "other")
            mailbox.put_urgent("mine-1", "mine")
            await anyio.wait_all_tasks_blocked()
            mailbox.put("mine-2", "mine")
            mailbox.put("free", "nobody's")
            await anyio.wait_all_tasks_blocked()
            assert "mine-2" not in reader.begun
            assert "free" in reader.begun
            gate.set()
            await anyio.wait_all_tasks_blocked()
            assert [item for item in reader.begun if item.startswith("mine")] == ["mine-1", "mine-2"]


async def test_g14_g15_messages_of_one_key_never_overlap_nor_change_order_whatever_is_urgent() -> None:
    for seed in range(40):
        rng = Random(seed)
        async with pool() as tasks:
            running: dict[str, int] = {}
            done: list[tuple[str, int]] = []

            async def handle(item: tuple[str, int], rng: Random = rng) -> None:
                key, _ = item
                assert not running.get(key), "two of one key at the same time"  # noqa: B023
                running[key] = 1  # noqa: B023
                for _ in range(rng.randrange(4)):
                    await anyio.lowlevel.checkpoint()
                running[key] = 0  # noqa: B023
                done.append(item)  # noqa: B023

            mailbox = Mailbox("reader", handle, tasks)
            sent: list[tuple[str, int]] = []
            for number in range(200):
                item = (rng.choice("abc"), number)
                sent.append(item)
                (mailbox.put_urgent if rng.random() < 0.3 else mailbox.put)(item, item[0])
                for _ in range(rng.randrange(3)):
                    await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            assert sorted(done) == sorted(sent)
            for key in "abc":
                assert [item for item in done if item[0] == key] == [item for item in sent if item[0] == key], seed


async def test_g21_a_handler_that_raises_is_logged_and_the_next_message_is_handled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handled: list[str] = []

    async def handle(item: str) -> None:
        await anyio.lowlevel.checkpoint()
        if item == "bad":
            raise SystemExit(3)
        handled.append(item)

    async with pool() as tasks:
        mailbox = Mailbox("reader", handle, tasks)
        with caplog.at_level(logging.ERROR, "actorbus"):
            for item in ("bad", "good", "bad", "better"):
                mailbox.put(item)
            mailbox.put_urgent("bad")
            mailbox.put_urgent("best")
            await anyio.wait_all_tasks_blocked()
        assert sorted(handled) == ["best", "better", "good"]
        assert caplog.text.count("message handler failed") == 3


async def test_a_closed_mailbox_drops_and_counts_and_cancels_what_is_being_handled() -> None:
    stopped: list[bool] = []
    reader = Reader()
    async with pool() as tasks:
        mailbox = Mailbox("reader", reader, tasks)
        reader.block("a")
        for item in "abc":
            mailbox.put(item)
        await anyio.wait_all_tasks_blocked()
        mailbox.close(lambda: stopped.append(mailbox.busy))
        mailbox.put("d")
        mailbox.put_urgent("e")
        await anyio.wait_all_tasks_blocked()
        assert reader.notes == ["+a"]
        assert mailbox.dropped == 4
        assert stopped == [False]


# --- room ---


async def take(room: Room, gives_up: Callable[[], bool] = lambda: False) -> bool:
    """As senders do."""
    taken = room.take()
    while not taken:
        await room.wait()
        done = gives_up()
        taken = not done and room.take()
        room.pass_on()
        if done:
            return False
    return True


async def test_g25_senders_wait_in_line_and_each_is_woken_by_a_place_given_back() -> None:
    async with pool() as tasks, anyio.create_task_group() as task_group:
        room = Room("reader", 2, tasks)
        got: list[int] = []

        async def send(number: int) -> None:
            await take(room)
            got.append(number)

        for number in range(5):
            task_group.start_soon(send, number)
            await anyio.wait_all_tasks_blocked()
        assert got == [0, 1]
        assert room.statistics() == RoomStatistics(taken=2, capacity=2, waiting=3)
        for expected in (2, 3, 4):
            room.give()
            await anyio.wait_all_tasks_blocked()
            assert got[-1] == expected
        assert room.statistics() == RoomStatistics(taken=2, capacity=2, waiting=0)


async def test_g25_a_sender_that_gives_up_as_it_is_woken_passes_the_place_on() -> None:
    async with pool() as tasks, anyio.create_task_group() as task_group:
        room = Room("reader", 1, tasks)
        assert room.take()
        ended: list[str] = []
        scope = anyio.CancelScope()

        async def give_up() -> None:
            with scope:
                await room.wait()
                room.pass_on()  # woken, and of no use any more
            ended.append("gave up")

        async def stay() -> None:
            await take(room)
            ended.append("got it")

        task_group.start_soon(give_up)
        await anyio.wait_all_tasks_blocked()
        task_group.start_soon(stay)
        await anyio.wait_all_tasks_blocked()
        room.give()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert sorted(ended) == ["gave up", "got it"]
        assert room.statistics() == RoomStatistics(taken=1, capacity=1, waiting=0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_g25_a_bare_asyncio_task_cancelled_in_the_moment_it_is_woken_passes_the_place_on() -> None:
    async with pool() as tasks:
        room = Room("reader", 1, tasks)
        assert room.take()
        first = asyncio.ensure_future(take(room))
        await anyio.wait_all_tasks_blocked()
        second = asyncio.ensure_future(take(room))
        await anyio.wait_all_tasks_blocked()
        room.give()
        first.cancel()
        with anyio.fail_after(30):
            assert await second
        assert first.cancelled()
        assert room.statistics() == RoomStatistics(taken=1, capacity=1, waiting=0)


async def test_g25_a_sender_cancelled_while_it_waits_leaves_the_line() -> None:
    async with pool() as tasks, anyio.create_task_group() as task_group:
        room = Room("reader", 1, tasks)
        assert room.take()
        scope = anyio.CancelScope()

        async def wait() -> None:
            with scope:
                await room.wait()

        task_group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert room.statistics().waiting == 0
        room.give()
        assert room.take()


async def test_closing_the_room_wakes_everybody() -> None:
    async with pool() as tasks, anyio.create_task_group() as task_group:
        room = Room("reader", 1, tasks)
        assert room.take()
        woken: list[int] = []

        async def wait(number: int) -> None:
            await room.wait()
            woken.append(number)

        for number in range(3):
            task_group.start_soon(wait, number)
        await anyio.wait_all_tasks_blocked()
        room.close()
        await anyio.wait_all_tasks_blocked()
        assert sorted(woken) == [0, 1, 2]


async def hammer(room: Room, rng: Random, report: Callable[[], None], hold: Callable[[], Awaitable[Any]]) -> None:
    with anyio.CancelScope() as scope:
        if rng.random() < 0.3:
            scope.deadline = anyio.current_time() + rng.random() / 1000
        if not await take(room, gives_up=lambda: rng.random() < 0.2):
            return
        try:
            await hold()
        finally:
            room.give()
    report()


async def test_g25_g47_no_sender_is_left_behind_and_no_place_is_lost_whoever_gives_up() -> None:
    rng = Random(11)
    async with pool() as tasks:
        room = Room("reader", 3, tasks)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as task_group:
                for _ in range(500):
                    task_group.start_soon(hammer, room, rng, lambda: None, anyio.lowlevel.checkpoint)
        assert room.statistics() == RoomStatistics(taken=0, capacity=3, waiting=0)
