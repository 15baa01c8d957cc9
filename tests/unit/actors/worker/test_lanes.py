"""Hooks, jobs and system messages of one worker do not hold each other up: G16, G22."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Job, job
from bus import BusCancelWorkerMessage, BusEndWorkerMessage, BusJobResponseMessage, BusMessage
from tests.support.messages import Alarm, Note
from tests.support.running import running
from tests.support.workers import AllRounder, Blocked

pytestmark = pytest.mark.anyio


# --- G16: system messages ---


async def test_g16_a_system_message_is_heard_while_a_data_hook_is_blocked() -> None:
    worker, other = Blocked(), BaseWorker("other")
    async with running(worker, other):
        await worker.block(other)
        await other.send_bus_message(Note(source="other", target="blocked", text="later"))
        await other.send_bus_message(Alarm(source="other", target="blocked", text="alarm"))
        await anyio.wait_all_tasks_blocked()
        assert worker.heard == ["alarm"]
        worker.let_go.set()
        await anyio.wait_all_tasks_blocked()
        assert worker.heard == ["alarm", "blocking", "later"]


async def test_g16_a_cancel_reaches_a_job_and_its_hook_while_a_data_hook_is_blocked() -> None:
    worker, other = Blocked(), BaseWorker("other")
    async with running(worker, other):
        await worker.block(other)
        job_id = await other.request_job("blocked", name="hold")
        await anyio.wait_all_tasks_blocked()
        assert job_id in worker.active_jobs
        await other.cancel_job_group(job_id)
        await anyio.wait_all_tasks_blocked()
        assert not worker.active_jobs
        assert worker.cancelled == [job_id]
        worker.let_go.set()


@pytest.mark.parametrize("kind", [BusEndWorkerMessage, BusCancelWorkerMessage])
async def test_g16_a_worker_ends_while_its_data_hook_is_blocked(kind: type[BusMessage]) -> None:
    worker, other = Blocked(), BaseWorker("other")
    async with running(worker, other) as runner:
        await worker.block(other)
        await other.send_bus_message(kind(source="other", target="blocked"))
        with anyio.fail_after(30):
            await worker.wait()
        assert runner.get_worker("blocked") is None


async def test_g16_jobs_are_done_and_answers_received_while_a_data_hook_is_blocked() -> None:
    worker, other = Blocked(), AllRounder("other")
    async with running(worker, other):
        await worker.block(other)
        with anyio.fail_after(30):
            assert await other.job("blocked", name="echo", payload=1) == {"echo": 1}
            assert await worker.job("other", name="echo", payload=2) == {"echo": 2}
        worker.let_go.set()


async def test_g16_a_blocked_system_hook_holds_up_neither_cancels_nor_jobs_nor_data_hooks() -> None:
    heard: list[str] = []
    gate = anyio.Event()

    class Worker(AllRounder):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Alarm):
                await gate.wait()
            if isinstance(message, Note):
                heard.append(message.text)

    worker, other = Worker("worker"), BaseWorker("other")
    async with running(worker, other):
        await other.send_bus_message(Alarm(source="other", target="worker", text="blocking"))
        job_id = await other.request_job("worker", name="hold")
        await other.send_bus_message(Note(source="other", target="worker", text="note"))
        await anyio.wait_all_tasks_blocked()
        await other.cancel_job_group(job_id)
        await anyio.wait_all_tasks_blocked()
        assert heard == ["note"]
        assert worker.cancelled == [job_id]
        gate.set()


# --- G22: jobs awaited inside hooks and handlers ---


async def test_g22_a_job_is_awaited_inside_a_hook_while_other_hooks_wait() -> None:
    answers: list[Any] = []

    class Worker(BaseWorker):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                answers.append(await self.job("performer", name="echo", payload=message.text))

        async def on_job_response(self, message: BusJobResponseMessage) -> None:
            answers.append("hook")

    worker, performer = Worker("worker"), AllRounder()
    async with running(worker, performer):
        for text in "ab":
            await performer.send_bus_message(Note(source="performer", target="worker", text=text))
        await anyio.wait_all_tasks_blocked()
    assert answers == [{"echo": "a"}, {"echo": "b"}, "hook", "hook"]


async def test_g22_a_job_is_awaited_inside_a_hook_from_the_worker_itself() -> None:
    class Worker(AllRounder):
        answer: Any = None

        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.answer = await self.job("worker", name="echo", payload="me")

    worker = Worker("worker")
    async with running(worker):
        await anyio.wait_all_tasks_blocked()
        assert worker.answer == {"echo": "me"}


async def test_g22_a_sequential_job_asks_itself_also_through_another_worker_and_several_deep() -> None:
    class Worker(BaseWorker):
        max_concurrency = 1

        def __init__(self, name: str, other: str) -> None:
            super().__init__(name)
            self.other = other

        @job(sequential=True)
        async def down(self, job: Job[int]) -> Any:
            if job.payload == 0:
                return [self.name]
            return [*(await self.job(self.other, name="down", payload=job.payload - 1)), self.name]

    async with running(Worker("a", "b"), Worker("b", "a"), Worker("self", "self"), client := BaseWorker("client")):
        with anyio.fail_after(30):
            assert await client.job("a", name="down", payload=9) == ["b", "a"] * 5
            assert await client.job("self", name="down", payload=9) == ["self"] * 10


async def test_g22_a_handler_that_has_answered_may_still_ask_its_own_worker() -> None:
    asked: list[Any] = []

    class Worker(BaseWorker):
        max_concurrency = 1

        @job(sequential=True)
        async def outer(self, job: Job[Any]) -> None:
            await job.respond({"early": True})
            asked.append(await self.job("worker", name="inner"))

        @job(sequential=True)
        async def inner(self, job: Job[Any]) -> Any:
            return {"inner": True}

    async with running(worker := Worker("worker"), client := BaseWorker("client")):
        assert await client.job("worker", name="outer") == {"early": True}
        await anyio.wait_all_tasks_blocked()
        assert asked == [{"inner": True}]
        assert not worker.active_jobs


async def test_g22_an_inner_job_that_waited_for_activation_starts_before_those_that_wait_for_its_ancestor() -> None:
    class Worker(BaseWorker):
        max_concurrency = 1

        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.gate = anyio.Event()
            self.order: list[str] = []

        @job(sequential=True)
        async def outer(self, job: Job[Any]) -> Any:
            self.order.append("outer")
            await self.gate.wait()
            return await self.job("worker", name="inner", payload="inner")

        @job(sequential=True)
        async def inner(self, job: Job[Any]) -> Any:
            self.order.append(job.payload)
            return {}

    worker, client = Worker("worker"), BaseWorker("client")
    async with running(worker, client):
        first = await client.create_job_group_and_request_job(["worker"], name="outer")
        await anyio.wait_all_tasks_blocked()
        await client.deactivate_worker("worker")
        waiting = await client.create_job_group_and_request_job(["worker"], name="inner", payload="outsider")
        worker.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert worker.order == ["outer"]
        await client.activate_worker("worker")
        with anyio.fail_after(30):
            await first.wait()
            await waiting.wait()
        assert worker.order == ["outer", "inner", "outsider"]
