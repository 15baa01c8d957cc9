"""Fixtures for pytest: a running runner, a client of it, stub workers, and real brokers.

A project asks for them with one line in its outermost conftest.py:

    pytest_plugins = ["actors.testing.fixtures"]

A test then names what it needs; it runs under anyio's plugin, on any backend, or under pytest-asyncio:

    async def test_a_plan(runner: WorkerRunner, client: Client, stub_worker: AddStub) -> None:
        weather = await stub_worker("weather", {"today": "sunny"})
        await runner.add_workers(Planner("planner"))
        assert await client.request("planner", "a walk") == "take no umbrella"
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import pytest

from actors.client.client import Client
from actors.runner.runner import WorkerRunner
from actors.testing.stub import StubWorker
from bus.fixtures import each_broker, nats_broker, redis_broker

__all__ = ["AddStub", "client", "each_broker", "nats_broker", "redis_broker", "runner", "runner_options", "stub_worker"]


class AddStub(Protocol):
    """Adds a stub to the test's runner."""

    async def __call__(self, name: str, answers: Mapping[str | None, Any] | None = None) -> StubWorker:
        """Add a `StubWorker` that answers by this table."""


@pytest.fixture
def runner_options() -> dict[str, Any]:
    """What the test's runner is made with; a project that wants others defines this fixture anew."""
    return {}


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> WorkerRunner:
    """A runner that runs, on a bus of its own within the process. Jobs may take a second to end when the test has."""
    made: WorkerRunner = request.getfixturevalue(f"_runner_{_plugin_of(request)}")
    return made


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Client:
    """A client of the test's runner."""
    made: Client = request.getfixturevalue(f"_client_{_plugin_of(request)}")
    return made


@pytest.fixture
def stub_worker(runner: WorkerRunner) -> AddStub:
    """What adds stubs to the test's runner; awaited with a name and a table."""

    async def add(name: str, answers: Mapping[str | None, Any] | None = None) -> StubWorker:
        stub = StubWorker(name, answers)
        await runner.add_workers(stub)
        return stub

    return add


def _plugin_of(request: pytest.FixtureRequest) -> str:
    """The plugin that runs the test: its fixtures must be made in the event loop that the test has."""
    if "anyio_backend" in request.fixturenames:
        return "anyio"
    if request.config.pluginmanager.hasplugin("asyncio"):
        return "asyncio"
    raise pytest.UsageError(
        f"{request.fixturename!r} needs an asynchronous test: mark {request.node.name} with pytest.mark.anyio, or "
        "install pytest-asyncio"
    )


async def _run(options: dict[str, Any]) -> AsyncIterator[WorkerRunner]:
    quiet = {"handle_sigint": False, "handle_sigterm": False, "drain_timeout": 1.0, "cancel_grace": 1.0}
    async with WorkerRunner(**{**quiet, **options}) as made:
        yield made


async def _connect(made: WorkerRunner) -> AsyncIterator[Client]:
    async with Client(made) as connected:
        yield connected


@pytest.fixture
async def _runner_anyio(anyio_backend: object, runner_options: dict[str, Any]) -> AsyncIterator[WorkerRunner]:  # noqa: ARG001 - who asks for it is run by anyio
    async for made in _run(runner_options):
        yield made


@pytest.fixture
async def _client_anyio(anyio_backend: object, _runner_anyio: WorkerRunner) -> AsyncIterator[Client]:  # noqa: ARG001
    async for connected in _connect(_runner_anyio):
        yield connected


try:
    import pytest_asyncio
except ImportError:
    pass
else:

    @pytest_asyncio.fixture
    async def _runner_asyncio(runner_options: dict[str, Any]) -> AsyncIterator[WorkerRunner]:
        async for made in _run(runner_options):
            yield made

    @pytest_asyncio.fixture
    async def _client_asyncio(_runner_asyncio: WorkerRunner) -> AsyncIterator[Client]:
        async for connected in _connect(_runner_asyncio):
            yield connected
