"""What a job is part of, and what becomes of it, told to another process over a real broker."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import anyio.to_thread
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors import (
    BaseWorker,
    Client,
    Job,
    JobNews,
    WorkerRunner,
    follow_jobs,
    install_telemetry,
    job,
    remove_telemetry,
    tracing,
)
from bus import open_bus
from bus.brokers import Broker
from tests.integration.programs.fleet_worker import QUICK
from tests.integration.programs.traced import told
from tests.support.processes import next_line, ready

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"

Delivery = Literal["at_least_once", "at_most_once"]


class Near(BaseWorker):
    @job
    async def tell(self, job: Job[Any]) -> list[Any]:
        return told(job)


@asynccontextmanager
async def near(url: str) -> AsyncGenerator[tuple[WorkerRunner, Client]]:
    """This process: a worker `near`, and a client."""
    runner = WorkerRunner("near-runner", open_bus(url, **QUICK), handle_sigint=False, handle_sigterm=False)
    with anyio.fail_after(100):
        async with runner, Client(runner) as client:
            await runner.add_workers(Near("near"))
            yield runner, client


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
async def test_a_trace_goes_to_another_process_and_back_in_a_job_inside_the_job(
    each_broker: Broker, delivery: Delivery
) -> None:
    async with ready("traced", "one", each_broker.url), near(each_broker.url) as (_, client):
        with tracing(PARENT, STATE, run="run-1"):
            answer = await client.request("far", "near", name="tell", delivery=delivery)
        assert answer == [[PARENT, STATE, "run-1"]] * 2
        assert await client.request("far", "near", name="tell", delivery=delivery) == [[], []]


async def test_a_job_that_another_process_does_again_is_part_of_the_same(each_broker: Broker) -> None:
    async with ready("traced", "one", each_broker.url) as victim, near(each_broker.url) as (_, client):
        with tracing(PARENT, STATE, run="run-1"):
            async with client.job("far", name="hang") as asked:
                assert await next_line(victim) == "started 1"
                victim.kill()
                async with ready("traced", "two", each_broker.url) as heir:
                    assert await next_line(heir) == "started 2"
                    answer = await asked_for(asked)
    assert answer == [PARENT, STATE, "run-1"]


async def asked_for(asked: Any) -> Any:
    async for _ in asked:
        pass
    return asked.response


async def test_spans_of_two_processes_are_one_trace(each_broker: Broker) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    install_telemetry(tracer_provider=provider)
    try:
        async with ready("traced", "one", each_broker.url), near(each_broker.url) as (_, client):
            there, back = await client.request("far", "near", name="in_spans")
    finally:
        remove_telemetry()
    send, process = (next(each for each in exporter.get_finished_spans() if each.name == name) for name in NAMES)
    assert send.context is not None
    assert process.parent is not None
    assert there[0][:52] == f"00-{send.context.trace_id:032x}-{send.context.span_id:016x}"
    assert process.context is not None
    assert process.context.trace_id == send.context.trace_id
    assert back[0][:52] == f"00-{send.context.trace_id:032x}-{process.parent.span_id:016x}"
    assert process.parent.span_id != send.context.span_id  # a span of the other process lies between


NAMES = ("send far", "process near")


async def test_jobs_of_another_process_are_followed(each_broker: Broker) -> None:
    news: list[JobNews] = []
    there, here = ready("traced", "one", each_broker.url), near(each_broker.url)
    async with there, here as (runner, client), follow_jobs(runner, news.append):
        while {each.runner for each in news} != {"one", "near-runner"}:
            await client.request("far", "near", name="tell")  # before it knows of a follower, nobody publishes
            await anyio.sleep(1)
    far_news = [each for each in news if each.runner == "one"]
    assert {each.type for each in far_news} <= {"job_started", "job_completed"}
    assert {each.record.worker_name for each in far_news if each.record} == {"far"}
