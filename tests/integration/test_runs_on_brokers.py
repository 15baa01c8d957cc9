"""Runs at the server at which a bus meets: nobody says where they are kept, and everybody finds them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import redis.asyncio

from actors import BaseWorker, Client, WorkerRunner, job
from actors.runs import RunError, RunNotFoundError, RunState, open_run_store
from bus import RedisBus, open_bus
from bus.brokers import Broker, RedisBroker

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "runs.md"


class Echo(BaseWorker):
    @job
    async def echo(self, text: str) -> str:
        return text


class Counter(BaseWorker):
    @job
    async def count(self, text: str) -> int:
        return len(text.split())


@pytest.mark.parametrize("namespace", ["actorbus", "shop.a-1"])
async def test_runs_are_kept_under_the_namespace_of_the_bus(each_broker: Broker, namespace: str) -> None:
    url = each_broker.url
    async with WorkerRunner(bus=open_bus(url, namespace=namespace)) as runner:
        await runner.add_workers(Echo("echo"))
        async with Client(open_bus(url, namespace=namespace), own_runs=False) as client:
            run_id = (await client.submit("echo", name="echo", payload="hello")).run_id
        async with Client(runner) as client:  # whose process does it
            assert await (await client.run(run_id)).result(60) == "hello"
    async with Client(url, namespace=namespace, own_runs=False) as client:
        assert (await (await client.run(run_id)).status()).state is RunState.COMPLETED
    async with open_run_store(url, namespace=namespace) as store:
        assert await store.result(run_id) == "hello"
    async with Client(url, namespace="other", own_runs=False) as client:
        with pytest.raises(RunNotFoundError):
            await client.run(run_id)


async def test_where_runs_are_kept_must_be_said_of_a_bus_without_a_url(redis_broker: RedisBroker) -> None:
    async with redis.asyncio.Redis.from_url(redis_broker.url) as given, Client(RedisBus(redis=given)) as client:
        with pytest.raises(RunError, match="say where runs are kept, as run_store="):
            await client.submit("echo")


async def test_the_example_of_the_documentation_works(
    redis_broker: RedisBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text("utf-8"), re.DOTALL)
    program = compile(
        block.replace("redis://localhost:6379", redis_broker.url),
        "runs.md",
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
    )
    async with WorkerRunner(bus=open_bus(redis_broker.url)) as runner:
        await runner.add_workers(Counter("ann"), Counter("bob"))
        await eval(program, {"Client": Client})  # noqa: S307 - our own
    *events, result = capsys.readouterr().out.splitlines()
    assert result == "{'ann': 2, 'bob': 2}"
    assert events[-1].startswith("4 group_completed None")
