"""The server on real brokers: workers in other processes, and a broker that dies and comes back."""

from __future__ import annotations

import anyio
import httpx
import pytest

from actors import Client, WorkerRunner
from actors.server import create_app
from bus.brokers import Broker
from tests.support.http import asking, events_in, events_of, listening, until_it_says
from tests.support.processes import program
from tests.support.workers import Desk

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def test_workers_elsewhere_are_asked_and_a_dead_broker_is_noticed(each_broker: Broker) -> None:
    runner = WorkerRunner("elsewhere", each_broker.url, handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(Desk())
    app = create_app(each_broker.url, run_store="memory://", bus_options={"heartbeat": 0.2})
    async with runner, asking(app) as client:
        assert (await client.get("/readyz")).status_code == 200, "ready before the first request"
        await until_it_says(client, "/workers", 200, '"desk"')
        assert (await client.post("/invoke/desk:echo", json={"a": 1})).json()["result"] == {"a": 1}
        stream = {"accept": "text/event-stream"}
        events = events_of((await client.post("/invoke/desk:count", json=3, headers=stream)).text)
        assert [each.data["data"] for each in events if each.type == "stream_data"] == [0, 1, 2]
        wrong = await client.post("/invoke/desk:refuse", json="x")
        assert (wrong.status_code, wrong.json()["error"]) == (500, "ValueError: x")
        assert (await client.post("/invoke/desk:nothing")).status_code == 404

        await anyio.to_thread.run_sync(each_broker.kill)
        problem = (await until_it_says(client, "/readyz", 503)).json()
        assert (problem["code"], problem["message"]) == ("not_ready", "the broker cannot be reached")
        assert (await client.get("/livez")).status_code == 200, "a new process would not find it either"
        await anyio.to_thread.run_sync(each_broker.start)
        await until_it_says(client, "/readyz", 200)
        await until_it_says(client, "/workers", 200, '"desk"')  # the other process finds its way back by itself
        assert (await client.post("/invoke/desk:echo", json=2)).json()["result"] == 2


async def test_what_becomes_of_the_jobs_of_other_processes_is_seen(each_broker: Broker) -> None:
    app = create_app(each_broker.url, run_store="memory://", own_runs=False)
    with program("desk", each_broker.url, "10"):
        async with Client(each_broker.url) as client, listening(app) as server:
            await jobs_are_seen(client, server)


async def jobs_are_seen(client: Client, server: httpx.AsyncClient) -> None:
    asking_on = anyio.CancelScope()

    async def ask() -> None:
        with asking_on:
            while True:  # a process that does not know of a follower yet publishes nothing
                run = await client.submit("desk", name="echo", payload=1)
                run_ids.append(run.run_id)
                await run.result()
                await anyio.sleep(1)

    run_ids: list[str] = []
    async with anyio.create_task_group() as tasks, server.stream("GET", "/events/stream") as response:
        tasks.start_soon(ask)
        async for each in events_in(response):
            if each.type == "job_completed":
                break
        asking_on.cancel()
    told = each.data["data"]
    assert (told["runner"], told["worker_name"], told["job_name"]) == ("desk-runner", "desk", "echo")
    assert told["run"] in run_ids
