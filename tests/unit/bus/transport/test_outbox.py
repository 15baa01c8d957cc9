"""What goes straight to other nodes: each frame is sent once, in order, at once where that saves waiting."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bus.errors import TransportError
from bus.local.tasks import Tasks
from bus.transport.outbox import DirectOutbox
from bus.transport.transport import Delivery, Outgoing

pytestmark = pytest.mark.anyio


class Plain:
    """A transport that tells, or cannot."""

    def __init__(self, failures: int = 0) -> None:
        self.sent: list[list[str]] = []
        self.failures = failures

    async def tell(self, frames: Sequence[Outgoing]) -> None:
        await checkpoint()
        if self.failures:
            self.failures -= 1
            raise TransportError("not connected")
        self.sent.append([frame.id for frame in frames])


class Prompt(Plain):
    """One that can write at once, or is busy."""

    busy = False

    def hand_over(self, take: Callable[[Delivery], None]) -> None: ...

    def tell_at_once(self, frames: Sequence[Outgoing]) -> bool:
        if not self.busy:
            self.sent.append([*(frame.id for frame in frames), "at once"])
        return not self.busy


def frame(name: str, to: str = "b#1") -> Outgoing:
    return Outgoing("direct", to, name, name.encode())


@asynccontextmanager
async def wire(transport: Any) -> AsyncGenerator[DirectOutbox]:
    async with anyio.create_task_group() as task_group:
        wire = DirectOutbox(transport, Tasks(task_group), Random(1))
        task_group.start_soon(wire.run)
        await anyio.wait_all_tasks_blocked()
        yield wire
        task_group.cancel_scope.cancel()


async def test_frames_of_one_turn_go_together_and_in_order() -> None:
    transport = Plain()
    async with wire(transport) as sender:
        for name in "abc":
            sender.put(frame(name))
        await sender.flush(60)
        sender.put(frame("d"))
        await sender.flush(60)
    assert transport.sent == [["a", "b", "c"], ["d"]]


async def test_frames_wait_while_there_is_no_connection_and_each_is_sent_once() -> None:
    transport = Plain(failures=3)
    async with wire(transport) as sender:
        sender.put(frame("a"))
        await anyio.wait_all_tasks_blocked()
        sender.put(frame("b"))
        assert sender.waiting == 2
        await sender.flush(60)
    assert transport.sent == [["a", "b"]]


async def test_requests_take_room_until_they_are_sent() -> None:
    transport = Plain(failures=1)
    async with wire(transport) as sender:
        sender.put(frame("answer"))
        taken = [sender.room.taken]
        sender.put(frame("request"), bounded=True)
        taken.append(sender.room.taken)
        await sender.flush(60)
        assert [*taken, sender.room.taken] == [0, 1, 0]


async def test_what_follows_on_a_single_frame_goes_at_once_and_what_follows_on_several_together() -> None:
    transport = Prompt()
    async with wire(transport) as sender:
        sender.received()
        for name in "ab":
            sender.put(frame(name))
        await sender.flush(60)
        for _ in range(2):
            sender.received()
        for name in "cd":
            sender.put(frame(name))
        await sender.flush(60)
    assert transport.sent == [["a", "at once"], ["b"], ["c", "d"]]


async def test_nothing_overtakes_what_waits_or_what_the_transport_has_to_write_first() -> None:
    transport = Prompt()
    async with wire(transport) as sender:
        sender.put(frame("a"))
        sender.received()
        sender.put(frame("b"))
        await sender.flush(60)
        transport.busy = True
        sender.received()
        sender.put(frame("c"))
        await sender.flush(60)
    assert transport.sent == [["a", "b"], ["c"]]


async def test_many_frames_do_not_wait_for_the_turn_to_end_each_node_gets_its_own_and_room_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bus.transport.outbox.SHARE", 3)
    transport = Prompt()
    async with wire(transport) as sender:
        for number in range(7):
            sender.put(frame(str(number), "bc"[number % 2]), bounded=True)
        assert sender.room.taken == 1
        await sender.flush(60)
    assert transport.sent == [["0", "2", "at once"], ["1", "at once"], ["3", "5", "at once"], ["4", "at once"], ["6"]]


async def test_many_frames_for_a_busy_transport_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.transport.outbox.SHARE", 2)
    transport = Prompt()
    transport.busy = True
    async with wire(transport) as sender:
        for name in "abc":
            sender.put(frame(name))
        await sender.flush(60)
    assert transport.sent == [["a", "b", "c"]]


async def test_what_is_on_its_way_is_not_sent_at_once_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Prompt):
        gate = anyio.Event()

        async def tell(self, frames: Sequence[Outgoing]) -> None:
            await self.gate.wait()
            await super().tell(frames)

    monkeypatch.setattr("bus.transport.outbox.SHARE", 2)
    transport = Slow()
    async with wire(transport) as sender:
        sender.put(frame("a"))
        await anyio.wait_all_tasks_blocked()
        sender.put(frame("b"))
        transport.gate.set()
        await sender.flush(60)
    assert transport.sent == [["a"], ["b"]]
