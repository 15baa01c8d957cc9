"""Jobs at most once over real brokers, of which one is killed, and with performers that are."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from actors import BaseWorker, Client, Job, JobError, JobStatus, WorkerRunner, job
from bus import open_bus
from bus.brokers import BROKERS, Broker
from tests.integration.programs.fleet_worker import QUICK
from tests.support.processes import next_line, ready

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
    pytest.mark.parametrize("scheme", ["redis", "nats"]),
]

LONGEST_WAIT = 60.0
SOON = QUICK["lease"] + 3 * QUICK["heartbeat"]
"""Seconds after which the death of a performer is known."""
PATIENCE = 10.0
"""Seconds more for a machine that is busy."""


class Replica(BaseWorker):
    max_concurrency = 8

    def __init__(self) -> None:
        super().__init__("replica")
        self.runs: Counter[Any] = Counter()

    @job(name="echo")
    async def echo(self, job: Job[Any]) -> Any:
        self.runs[job.payload] += 1
        return job.payload

    @job(name="nap")
    async def nap(self, job: Job[Any]) -> Any:
        self.runs[job.payload] += 1
        await anyio.sleep(1)
        return job.payload

    @job(name="count")
    async def count(self, job: Job[Any]) -> AsyncIterator[int]:
        for number in range(job.payload):
            yield number


@pytest.fixture
def broker(scheme: str) -> Iterator[Broker]:
    with BROKERS[scheme]() as broker:
        yield broker


@asynccontextmanager
async def fleet(url: str, *labels: str) -> AsyncIterator[tuple[Client, list[Replica]]]:
    """A client that asks at most once, and a runner with a replica for each label."""
    replicas = [Replica() for _ in labels]
    async with AsyncExitStack() as stack:
        for label, replica in zip(labels, replicas, strict=True):
            runner = WorkerRunner(label, open_bus(url, **QUICK), handle_sigint=False, handle_sigterm=False)
            await runner.add_workers(replica)
            await stack.enter_async_context(runner)
        bus = open_bus(url, delivery="at_most_once", **QUICK)
        yield await stack.enter_async_context(Client(bus)), replicas


async def test_a_hundred_in_flight_run_once_each_on_both_replicas_and_a_stream_is_whole(broker: Broker) -> None:
    with anyio.fail_after(LONGEST_WAIT):
        async with fleet(broker.url, "left", "right") as (client, replicas):
            payloads = list(range(2000))
            assert await client.gather("replica", payloads, name="echo", max_concurrency=100, timeout=60) == payloads
            runs = replicas[0].runs + replicas[1].runs
            assert runs == Counter(payloads)
            assert min(len(replica.runs) for replica in replicas) > 100
            async with client.job("replica", name="count", payload=5000, timeout=60) as stream:
                seen = [event.data async for event in stream if event.type == event.STREAM_DATA]
            assert seen == list(range(5000))


async def test_more_than_a_performer_has_room_for_wait_and_run_once(broker: Broker) -> None:
    with anyio.fail_after(LONGEST_WAIT):
        async with fleet(broker.url, "only") as (client, (replica,)):
            replica.mailbox_size = 5
            payloads = list(range(300))
            assert await client.gather("replica", payloads, name="echo", max_concurrency=300, timeout=60) == payloads
            assert replica.runs == Counter(payloads)


async def test_a_job_whose_performer_is_killed_is_lost_soon(broker: Broker) -> None:
    deaths: list[float] = []
    async with ready("fleet_worker", "victim", broker.url) as process, fleet(broker.url) as (client, _):

        async def ask() -> None:
            async with client.job("hanging", name="hang"):
                assert await next_line(process) == "started 1"
                process.kill()
                deaths.append(anyio.current_time())

        with anyio.fail_after(LONGEST_WAIT), pytest.raises(JobError) as failure:
            await ask()
        took = anyio.current_time() - deaths[0]
    assert failure.value.status is JobStatus.FAILED
    assert failure.value.error is not None
    assert failure.value.error.type == "JobLost"
    print(f"lost {took:.1f} s after the death of its performer")
    assert took < SOON + PATIENCE


async def test_g37_a_broker_that_is_killed_again_and_again_costs_jobs_but_none_runs_twice_and_all_end(
    broker: Broker,
) -> None:
    outcomes: Counter[str] = Counter()
    numbers = itertools.count()
    enough = anyio.Event()

    async with fleet(broker.url, "left", "right") as (client, replicas):

        async def ask(number: int) -> str:
            try:
                assert await client.request("replica", number, name="echo" if number % 5 else "nap") == number
            except JobError as error:
                return error.error.type if error.error is not None else ""
            return "completed"

        async def requester() -> None:
            until = math.inf
            while outcomes["completed"] < until:
                outcomes[await ask(next(numbers))] += 1
                if enough.is_set() and until == math.inf:
                    until = outcomes["completed"] + 100

        with anyio.fail_after(1.5 * LONGEST_WAIT):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(requester)
                for _ in range(3):
                    await anyio.sleep(2)
                    await anyio.to_thread.run_sync(broker.restart)
                enough.set()
        asked = next(numbers)
        runs = replicas[0].runs + replicas[1].runs
    print(f"{asked} jobs over 3 kills: {dict(outcomes)}")
    assert max(runs.values()) == 1
    assert sum(outcomes.values()) == asked
    assert set(outcomes) <= {"completed", "JobLost"}
