"""The fixtures for tests of users: a runner that runs, a client of it, and stubs, under each plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors import BaseWorker, Client, Job, WorkerRunner, WorkerUnavailableError, job
from actors.testing.fixtures import AddStub
from tests.support.processes import run


class Planner(BaseWorker):
    @job(name="plan")
    async def plan(self, job: Job[str]) -> str:
        weather = await self.job("weather", name="today", payload={"place": job.payload})
        return "take no umbrella" if weather == "sunny" else "stay at home"


@pytest.mark.anyio
async def test_a_worker_is_tried_with_a_stub_for_the_one_it_asks(
    runner: WorkerRunner, client: Client, stub_worker: AddStub
) -> None:
    weather = await stub_worker("weather", {"today": "sunny"})
    await runner.add_workers(Planner("planner"))
    assert await client.job("planner", name="plan", payload="Oslo") == "take no umbrella"
    weather.answers["today"] = "rain"
    assert await client.job("planner", name="plan", payload="Rome") == "stay at home"
    assert weather.asked == [("today", {"place": "Oslo"}), ("today", {"place": "Rome"})]


@pytest.mark.anyio
async def test_all_fixtures_of_a_test_are_of_one_runner(
    runner: WorkerRunner, client: Client, stub_worker: AddStub
) -> None:
    assert runner.running
    stub = await stub_worker("empty")
    assert stub.worker_runner is runner
    assert [entry.worker_name for entry in client.workers()] == ["empty"]


class TestOptions:
    @pytest.fixture
    def runner_options(self) -> dict[str, Any]:
        return {"name": "mine", "ready_timeout": 0.01}

    @pytest.mark.anyio
    async def test_a_project_says_how_its_runner_is_made(self, runner: WorkerRunner, client: Client) -> None:
        assert runner.name == "mine"
        with pytest.raises(WorkerUnavailableError):
            await client.job("nobody")


TEST_OF_A_USER = """
import asyncio

from actors import BaseWorker

async def test_one(runner, client, stub_worker):
    await stub_worker("weather", {"today": "sunny"})
    assert await client.job("weather", name="today") == "sunny"
    assert runner.running
    assert asyncio.get_running_loop()

def test_two(runner):
    assert False, "this is not run"
"""


@pytest.mark.parametrize("plugin", ["asyncio", None])
def test_the_fixtures_work_under_pytest_asyncio_and_say_what_is_missing(plugin: str | None, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["actors.testing.fixtures"]\n')
    (tmp_path / "test_user.py").write_text(TEST_OF_A_USER)
    options = (
        ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
        if plugin
        else ["-p", "no:asyncio"]
    )
    options += ["-p", "no:xdist", "-p", "no:schemathesis", "-p", "no:hypothesispytest"]
    ended = run("-m", "pytest", "-v", *options, "test_user.py", cwd=tmp_path)
    if plugin:
        assert "test_one PASSED" in ended.stdout, ended.stdout
    else:
        assert "'runner' needs an asynchronous test: mark test_two with pytest.mark.anyio, or" in ended.stdout
