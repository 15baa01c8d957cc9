"""Whatever fails in a transport is an outage: the connection is left, and the loop that met it goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, cast

import anyio
import pytest

from actors import BaseWorker, Client, WorkerRunner, job
from bus import BusError, NetworkBus, TransportError, open_bus
from bus.errors import DataLostError
from bus.memory.transport import MemoryTransport
from bus.transport.guard import GuardedTransport
from bus.transport.transport import Delivery, Prompt, Settlement, Transport

pytestmark = pytest.mark.anyio

UNFORESEEN = (
    TypeError("a bytes-like object is required, not 'int'"),
    KeyError("seq"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    OSError("no such host"),
    RecursionError("too deep"),
    BusError("the server takes messages of 64 bytes"),
)


class Broken:
    """A transport in which everything fails in the same way."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.left = 0

    async def _fail(self, *_arguments: object) -> NoReturn:
        await anyio.lowlevel.checkpoint()
        raise self.error

    open = send = tell = receive = settle = extend = oldest = discard = _fail

    def waiting(self, _queue: str) -> Broken:
        return self

    async def leave(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.left += 1


def operations(guard: GuardedTransport) -> list[Callable[[], Awaitable[object]]]:
    frames = guard.waiting("q")
    return [
        guard.receive,
        lambda: guard.send([]),
        lambda: guard.tell([]),
        lambda: guard.settle([]),
        lambda: guard.extend([]),
        lambda: frames.oldest(1),
        lambda: frames.discard([]),
    ]


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
async def test_g64_an_error_of_any_type_leaves_the_connection_and_is_an_outage(error: Exception) -> None:
    broken = Broken(error)
    guard = GuardedTransport(cast("Transport", broken))
    for number, operation in enumerate(operations(guard), start=1):
        with pytest.raises(TransportError) as caught:
            await operation()
        assert caught.value.__cause__ is error
        assert broken.left == number
    assert guard.unreadable == (0 if isinstance(error, BusError) else len(operations(guard)))


async def test_an_outage_is_passed_on_as_it_is() -> None:
    error = DataLostError("the streams are new ones")
    broken = Broken(error)
    guard = GuardedTransport(cast("Transport", broken))
    also_open: Callable[[], Awaitable[object]] = lambda: guard.open("n")  # noqa: E731
    for operation in [*operations(guard), also_open]:
        with pytest.raises(DataLostError) as caught:
            await operation()
        assert caught.value is error
    assert (broken.left, guard.unreadable) == (0, 0)


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
async def test_an_error_of_any_type_ends_the_start(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await GuardedTransport(cast("Transport", Broken(error))).open("n")
    assert caught.value is error


def test_a_transport_that_saves_wake_ups_does_so_behind_the_guard_too() -> None:
    class Quick(Broken):
        def hand_over(self, take: object) -> None:
            pass

        def tell_at_once(self, frames: object) -> bool:
            return True

    assert isinstance(GuardedTransport(cast("Transport", Quick(ValueError()))), Prompt)
    assert not isinstance(GuardedTransport(cast("Transport", Broken(ValueError()))), Prompt)


class Garbled(MemoryTransport):
    """Now and then a reply cannot be read, after the operation has had its effect, or before."""

    turns: dict[str, int]

    async def receive(self) -> Sequence[Delivery]:
        self._turn("receive")
        return await super().receive()

    async def send(self, frames: Any) -> None:
        self._turn("send")
        await super().send(frames)
        self._turn("sent")

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        result = await super().settle(settlements)
        self._turn("settle")
        return result

    def _turn(self, what: str) -> None:
        self.turns[what] = self.turns.get(what, 0) + 1
        if self.turns[what] % 3 == 2:
            raise UNFORESEEN[self.turns[what] % len(UNFORESEEN)]


class Doubler(BaseWorker):
    @job
    async def double(self, number: int) -> int:
        return 2 * number


async def test_g64_a_runner_and_a_client_outlive_what_they_cannot_read(anyio_backend: str) -> None:
    url = f"memory://garbled-{anyio_backend}"
    buses = [open_bus(url), open_bus(url)]
    for bus in buses:
        assert isinstance(bus, NetworkBus)
        bus._transport.__class__ = Garbled
        bus._transport.turns = {}  # type: ignore[attr-defined]
    with anyio.fail_after(60):
        async with WorkerRunner(bus=buses[0]) as runner, Client(buses[1]) as client:
            await runner.add_workers(Doubler("doubler"))
            for number in range(20):
                assert await client.request("doubler", number, name="double") == 2 * number
            for bus in buses:
                assert cast("NetworkBus", bus).network_statistics().unreadable
