"""Options of a runner that is a member of a fleet, and those of the bus it opens."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import BaseWorker, Client, WorkerRunner, job
from bus import AsyncQueueBus, NatsBus, NetworkBus, RedisBus, open_bus

NETWORK: dict[str, Any] = {
    "prefetch": 4,
    "heartbeat_seconds": 0.5,
    "lease": 2.0,
    "consumer_id": "one",
    "reclaim_min_idle": 9.0,
}


class Counter(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.at_once = self.most = 0

    @job
    async def count(self) -> int:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await anyio.wait_all_tasks_blocked()  # whoever may begin beside this one has begun
        self.at_once -= 1
        return self.most


class Narrow(Counter):
    max_concurrency = 2


@pytest.mark.anyio
@pytest.mark.parametrize(("kind", "concurrency", "most"), [(Counter, 3, 3), (Counter, None, 6), (Narrow, 3, 2)])
@pytest.mark.parametrize("url", ["memory://", "memory://runner-options"])
async def test_the_concurrency_of_a_runner_bounds_each_of_its_workers(
    url: str, kind: type[Counter], concurrency: int | None, most: int
) -> None:
    worker = kind("counter")
    async with WorkerRunner("here", url, concurrency=concurrency) as runner, Client(runner) as client:
        await runner.add_workers(worker)
        await client.gather("counter", [None] * 6, name="count", timeout=60)
    assert worker.most == most


def test_a_runner_opens_the_bus_of_a_url_with_its_options() -> None:
    bus = WorkerRunner("a", "redis://127.0.0.1:1/0", **NETWORK).bus
    assert isinstance(bus, RedisBus)
    assert (bus._options.prefetch, bus._options.heartbeat, bus._transport.ack_wait) == (4, 0.5, 9.0)
    bus = WorkerRunner("a", "nats://127.0.0.1:1", **NETWORK).bus
    assert isinstance(bus, NatsBus)
    assert (bus._options.prefetch, bus._options.heartbeat, bus._transport.ack_wait) == (4, 0.5, 9.0)
    bus = WorkerRunner("a", "memory://x", **NETWORK).bus
    assert isinstance(bus, NetworkBus)
    assert (bus._options.prefetch, bus._options.heartbeat) == (4, 0.5)
    assert isinstance(WorkerRunner("a", "memory://", **NETWORK).bus, AsyncQueueBus)


def test_options_for_a_bus_that_is_made_already_are_refused() -> None:
    with pytest.raises(TypeError, match="is made already: say prefetch where it is made, or give a URL here"):
        WorkerRunner("a", AsyncQueueBus(), prefetch=3)


@pytest.mark.parametrize("url", ["memory://", "memory://x", "redis://127.0.0.1:1", "nats://127.0.0.1:1"])
def test_a_mistyped_option_is_named(url: str) -> None:
    mistyped: Any = {"prefech": 3}
    with pytest.raises(TypeError, match=r"no bus has the option 'prefech': there are .*prefetch"):
        open_bus(url, **mistyped)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"concurrency": 0}, "concurrency must be 1 or more, got 0"),
        ({"prefetch": 0}, "prefetch must be 1 or more, not 0"),
        ({"max_deliver": 0}, "max_deliver must be 1 or more, not 0"),
        ({"heartbeat_seconds": 0}, "heartbeat must be above 0 seconds and below the lease"),
        (
            {"heartbeat_seconds": 7, "lease": 6},
            "below the lease: heartbeat=7, lease=6",
        ),
    ],
)
def test_a_number_out_of_range_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WorkerRunner("a", "memory://x", **options)
