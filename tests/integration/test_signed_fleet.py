"""Signing keys on real brokers: a process with a wrong key, and a key that is changed in a fleet that works."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from actors import BaseWorker, Client, Job, WorkerRunner, WorkerUnavailableError, job
from bus import NetworkBus, open_bus
from bus.brokers import Broker
from tests.integration.programs.fleet_worker import Quick

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

OLD, NEW, WRONG = b"o" * 32, b"n" * 32, b"w" * 32
LONGEST_WAIT = 100.0
OPTIONS: Quick = {"ack_wait": 20.0, "heartbeat": 0.5, "lease": 5.0}
"""Leases that no pause of a busy machine ends: each job is to run once."""

Keys = bytes | tuple[bytes, ...] | None


class Performer(BaseWorker):
    max_concurrency = 4

    def __init__(self, runs: Counter[Any]) -> None:
        super().__init__("performer")
        self.runs = runs

    @job(name="echo")
    async def echo(self, job: Job[Any]) -> Any:
        self.runs[job.payload] += 1
        await job.update("on it")
        return job.payload


def bus_of(broker: Broker, keys: Keys) -> NetworkBus:
    bus = open_bus(broker.url, signing_key=keys, **OPTIONS)
    assert isinstance(bus, NetworkBus)
    return bus


def runner_of(label: str, bus: NetworkBus, **options: Any) -> WorkerRunner:
    return WorkerRunner(label, bus, handle_sigint=False, handle_sigterm=False, **options)


@pytest.mark.parametrize("keys", [WRONG, None], ids=["another key", "no key"])
async def test_g42_who_has_another_key_gets_no_job_done_and_takes_none_away(each_broker: Broker, keys: Keys) -> None:
    runs: Counter[Any] = Counter()
    wrong_runs: Counter[Any] = Counter()
    with anyio.fail_after(LONGEST_WAIT):
        async with AsyncExitStack() as stack:
            right, wrong = bus_of(each_broker, OLD), bus_of(each_broker, keys)
            for label, bus, counter in (("wrong", wrong, wrong_runs), ("right", right, runs)):
                runner = runner_of(label, bus)
                await runner.add_workers(Performer(counter))
                await stack.enter_async_context(runner)
            client = await stack.enter_async_context(Client(bus_of(each_broker, OLD)))
            stranger = BaseWorker("stranger")
            other = runner_of("intruder", bus_of(each_broker, WRONG + b"!"), ready_timeout=3.0)
            await other.add_workers(stranger)
            await stack.enter_async_context(other)

            async def intrude() -> None:
                with pytest.raises(WorkerUnavailableError):
                    await stranger.job("performer", name="echo", payload="forged")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(intrude)
                for batch in range(3):
                    payloads = range(100 * batch, 100 * batch + 100)
                    answers = await client.gather("performer", payloads, name="echo", max_concurrency=20, timeout=60)
                    assert answers == list(payloads)
            assert runs == Counter(range(300))
            assert not wrong_runs
            refused = right.network_statistics().refused
            assert refused.unknown_key > 0
            assert refused.total == refused.unknown_key + refused.unsigned
            assert wrong.network_statistics().refused.unknown_key > 0
            assert wrong.network_statistics().peers == 0


async def test_g42_a_key_is_changed_in_a_fleet_that_works_and_nothing_is_lost(each_broker: Broker) -> None:
    steps: list[Keys] = [OLD, (OLD, NEW), (NEW, OLD), NEW]
    runs: Counter[Any] = Counter()
    refused: list[int] = []
    asked = 0

    async def serve(label: str, keys: Keys, stop: anyio.Event, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        bus = bus_of(each_broker, keys)
        runner = runner_of(label, bus)
        await runner.add_workers(Performer(runs))
        async with runner:
            task_status.started()
            await stop.wait()
            refused.append(bus.network_statistics().refused.total)

    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(LONGEST_WAIT):
            stops = {label: anyio.Event() for label in ("left", "right")}
            for label, stop in stops.items():
                await tasks.start(serve, label, steps[0], stop)
            for before, after in itertools.pairwise(steps):
                changed = anyio.Event()

                async def ask(keys: Keys, changed: anyio.Event) -> None:
                    nonlocal asked
                    bus = bus_of(each_broker, keys)
                    async with Client(bus) as client:
                        while not changed.is_set():
                            payloads = range(asked, asked + 20)
                            asked += 20
                            answers = await client.gather("performer", payloads, name="echo", timeout=60)
                            assert answers == list(payloads)
                        refused.append(bus.network_statistics().refused.total)

                async with anyio.create_task_group() as asking:
                    asking.start_soon(ask, before, changed)
                    asking.start_soon(ask, after, changed)
                    for label, stop in tuple(stops.items()):
                        stop.set()
                        stops[label] = anyio.Event()
                        await tasks.start(serve, label, after, stops[label])
                    changed.set()
            for stop in stops.values():
                stop.set()
    assert runs == Counter(range(asked))
    assert asked > 100
    assert refused == [0] * 14
