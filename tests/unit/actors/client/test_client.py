"""The client, in process: jobs asked for by code that is no worker."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import anyio
import pytest

from actors import (
    BaseWorker,
    Client,
    JobError,
    JobGroupError,
    JobStatus,
    JobTimeoutError,
    RunnerStateError,
    WorkerRunner,
    WorkerUnavailableError,
    job,
)
from bus import AsyncQueueBus, BusJobRequestMessage, EncodeError, InvalidNameError
from tests.support.running import leftovers, running

pytestmark = pytest.mark.anyio


class Server(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.running = self.most = 0
        self.began = anyio.Event()
        self.cancelled: list[str] = []

    @job
    async def echo(self, message: BusJobRequestMessage) -> Any:
        return message.payload

    @job
    async def slow(self, message: BusJobRequestMessage) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(10 - message.payload % 10):
            await anyio.lowlevel.checkpoint()
        self.running -= 1
        if message.payload % 7 == 3:
            raise ValueError(message.payload)
        return message.payload * 2

    @job
    async def hang(self, message: BusJobRequestMessage) -> None:
        self.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.append(message.source)

    @job
    async def count(self, message: BusJobRequestMessage) -> Any:
        for number in range(message.payload):
            yield number


async def test_a_client_asks_the_workers_of_a_runner() -> None:
    async with running(Server("server"), Server("other")) as runner, Client(runner) as client:
        assert await client.request("server", 1, name="echo") == 1
        assert await client.job("server", name="echo", payload=2, timeout=50) == 2
        async with client.job("server", name="count", payload=3) as context:
            assert [event.data async for event in context] == [None, 0, 1, 2, None]
        group = await client.job_group("server", "other", name="echo", payload=3)
        assert group.responses == {"server": 3, "other": 3}
        with pytest.raises(JobGroupError):
            await client.job_group("server", "other", name="slow", payload=3)
        with pytest.raises(JobTimeoutError):
            await client.request("server", name="hang", timeout=0.02)


async def test_a_client_reaches_the_workers_of_all_runners_on_its_bus() -> None:
    bus = AsyncQueueBus()
    async with bus, running(Server("server"), bus=bus), Client(bus, name="asker") as client:
        assert await client.request("server", "over", name="echo") == "over"
        assert [each.worker_name for each in client.workers()] == ["server"]


async def test_a_client_may_open_a_bus_of_its_own_by_url() -> None:
    async with Client("memory://") as client:
        assert client.workers() == []
        with pytest.raises(JobTimeoutError, match=r"no worker is registered|nobody serves"):
            await client.request("server", timeout=0.02)


async def test_the_errors_of_a_clients_body_come_out_as_they_are() -> None:
    with pytest.raises(WorkerUnavailableError):
        async with running(Server("server"), ready_timeout=0.02) as runner, Client(runner) as client:
            await client.request("nobody")
    with pytest.raises(JobTimeoutError):
        async with Client("memory://") as client:
            await client.request("nobody", timeout=0.02)
    with pytest.raises(KeyError):
        async with Client(AsyncQueueBus()):
            raise KeyError("mine")


async def test_what_a_client_has_open_is_cancelled_when_it_leaves() -> None:
    server = Server("server")
    outcomes: list[JobStatus] = []
    async with running(server) as runner, anyio.create_task_group() as tasks:
        client = Client(runner, name="asker")
        async with client:

            async def ask() -> None:
                with pytest.raises(JobError) as caught:
                    await client.request("server", name="hang")
                outcomes.append(caught.value.status)

            tasks.start_soon(ask)
            await server.began.wait()
        await anyio.wait_all_tasks_blocked()
        assert outcomes == [JobStatus.CANCELLED]
        assert server.cancelled == ["asker"]
        assert runner.get_worker("asker") is None
        assert (await leftovers(runner))["jobs"] == 0


async def test_a_client_that_is_cancelled_leaves_nothing_behind() -> None:
    server = Server("server")
    async with running(server) as runner:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                async with Client(runner, name="asker") as client:
                    await client.request("server", name="hang")

            tasks.start_soon(ask)
            await server.began.wait()
            tasks.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert server.cancelled == ["asker"]
        assert runner.get_worker("asker") is None


async def test_a_client_is_used_inside_its_context_only() -> None:
    async with running(Server("server")) as runner:
        client = Client(runner)
        for use in (lambda: client.job("server"), lambda: client.job_group("server"), client.workers):
            with pytest.raises(RunnerStateError, match="the client is not connected: use it inside 'async with"):
                use()
        with pytest.raises(RunnerStateError, match="not connected"):
            await client.request("server")
        with pytest.raises(RunnerStateError, match="not connected"):
            await client.gather("server", [])
        async with client:
            assert await client.request("server", 1, name="echo") == 1
        with pytest.raises(RunnerStateError, match="not connected"):
            await client.request("server")


async def test_two_clients_may_not_have_one_name() -> None:
    async with running(Server("server")) as runner, Client(runner, name="asker"):
        with pytest.raises(ValueError, match="'asker' is already taken"):
            await Client(runner, name="asker").__aenter__()
        with pytest.raises(InvalidNameError):
            Client(runner, name="not a name\n")


async def test_a_client_of_a_runner_that_does_not_run_says_so() -> None:
    async with Client(WorkerRunner(handle_sigint=False, handle_sigterm=False)) as client:
        with pytest.raises(RunnerStateError, match="run"):
            await client.request("server")


# --- gather ---


@pytest.mark.parametrize("at_once", [1, 3, 200])
async def test_gather_gives_the_answers_in_order_and_keeps_its_bound(at_once: int) -> None:
    server = Server("server")
    async with running(server) as runner, Client(runner) as client:
        answers = await client.gather("server", range(50), name="slow", max_concurrency=at_once)
        assert len(answers) == 50
        for number, answer in enumerate(answers):
            if number % 7 == 3:
                assert isinstance(answer, JobError)
                assert f"ValueError: {number}" in str(answer)
            else:
                assert answer == number * 2
        assert server.most == min(at_once, 50)


async def test_gather_takes_payloads_only_as_slots_become_free() -> None:
    server = Server("server")
    taken: list[int] = []

    def endless() -> Generator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    async with running(server) as runner, Client(runner) as client:
        seen: list[int] = []

        @runner.event_handler("on_job_start")
        def started(_runner: Any, record: Any) -> None:
            seen.append(len(taken))

        answers = await client.gather("server", endless(), name="echo", max_concurrency=4)
        assert answers == list(range(1000))
        assert all(count <= position + 8 for position, count in enumerate(seen))


async def test_gather_of_nothing_is_nothing() -> None:
    async with running(Server("server")) as runner, Client(runner) as client:
        assert await client.gather("server", []) == []


async def test_a_payload_that_cannot_travel_loses_its_slot_and_no_other() -> None:
    async with running(Server("server")) as runner, Client(runner) as client:
        answers = await client.gather("server", [1, object(), 3], name="echo")
        assert (answers[0], answers[2]) == (1, 3)
        assert isinstance(answers[1], EncodeError)


async def test_jobs_that_time_out_or_find_nobody_lose_their_slots() -> None:
    async with running(Server("server"), ready_timeout=0.02) as runner, Client(runner) as client:
        answers = await client.gather("server", range(3), name="hang", timeout=0.02)
        assert [type(answer) for answer in answers] == [JobTimeoutError] * 3
        answers = await client.gather("nobody", range(3))
        assert [type(answer) for answer in answers] == [WorkerUnavailableError] * 3


async def test_gather_ends_with_its_runner() -> None:
    server = Server("server")
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False, drain_timeout=0.02)
    await runner.add_workers(server)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await anyio.wait_all_tasks_blocked()

        async def stop() -> None:
            await server.began.wait()
            await runner.cancel()

        tasks.start_soon(stop)
        async with Client(runner) as client:
            answers = await client.gather("server", range(5), name="hang", max_concurrency=2)
        assert len(answers) == 5
        assert all(isinstance(answer, JobError | RunnerStateError) for answer in answers)


async def test_what_is_wrong_with_the_whole_gather_is_raised_as_it_is() -> None:
    def broken() -> Generator[int]:
        yield 1
        raise OSError("the file is gone")

    server = Server("server")
    async with running(server) as runner, Client(runner) as client:
        with pytest.raises(ValueError, match="max_concurrency must be 1 or more, got 0"):
            await client.gather("server", [1], max_concurrency=0)
        with pytest.raises(InvalidNameError):
            await client.gather("not a name\n", [1])
        with pytest.raises(ValueError, match="timeout"):
            await client.gather("server", [1], timeout=-1)
        with pytest.raises(TypeError):
            await client.gather("server", [1], nmae="echo")  # type: ignore[call-overload]
        with pytest.raises(OSError, match="the file is gone"):
            await client.gather("server", broken(), name="hang")
        await anyio.wait_all_tasks_blocked()
