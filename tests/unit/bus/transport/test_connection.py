"""The connection: what is said of it, when, and in which order."""

from __future__ import annotations

from random import Random

import anyio
import pytest

from bus.errors import TransportError
from bus.local.tasks import Tasks
from bus.transport.connection import ECHO, Connection

pytestmark = pytest.mark.anyio


async def test_events_come_in_turn_one_after_the_other() -> None:
    told: list[str] = []
    gate = anyio.Event()

    async def tell(event: str) -> None:
        told.append(event)
        if len(told) == 1:
            await gate.wait()
        told.append("done")

    async with anyio.create_task_group() as task_group:
        connection = Connection(Tasks(task_group), Random(1), tell, lambda: False)
        assert not connection.statistics().connected
        connection.works("reading")
        connection.failed("reading", TransportError("cut"))
        connection.failed("reading", TransportError("still cut"))
        connection.works("reading")
        await anyio.wait_all_tasks_blocked()
        assert told == ["on_connected"], "a slow listener is not overtaken by the next event"
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert told == ["on_connected", "done", "on_disconnected", "done", "on_connected", "done"]
        now = connection.statistics()
        assert (now.connected, now.reconnects, now.last_error) == (True, 1, "still cut")
        task_group.cancel_scope.cancel()


async def test_it_stands_only_when_everything_works() -> None:
    async def tell(_event: str) -> None:
        await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as task_group:
        connection = Connection(Tasks(task_group), Random(1), tell, lambda: False)
        connection.works("connecting")
        connection.failed(ECHO, TransportError("no beat of ours has come back"))
        connection.works("reading")
        assert not connection.statistics().connected, "what can be read says nothing about what is written"
        connection.works(ECHO)
        assert connection.statistics().connected
        task_group.cancel_scope.cancel()


async def test_what_fails_is_tried_again_until_the_bus_closes() -> None:
    async def tell(_event: str) -> None:
        await anyio.lowlevel.checkpoint()

    tries: list[int] = []

    async def fails() -> None:
        await anyio.lowlevel.checkpoint()
        tries.append(len(tries))
        raise TransportError("away")

    async with anyio.create_task_group() as task_group:
        connection = Connection(Tasks(task_group), Random(1), tell, lambda: len(tries) == 3)
        assert await connection.again(fails, "connecting") is None
        assert tries == [0, 1, 2]
        assert connection.statistics().last_error == "away"
        task_group.cancel_scope.cancel()
