"""Whoever is cancelled takes his jobs with him: G8, G17."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, JobGroupError, job
from actors.worker.verbs import core_of
from bus import BusJobRequestMessage
from tests.support.running import running
from tests.support.workers import Patient

pytestmark = pytest.mark.anyio


Asks = Callable[[BaseWorker, list[str]], Awaitable[Any]]


async def await_job(client: BaseWorker, ids: list[str]) -> None:
    await client.job("patient", name="hold", job_id="mine")


async def await_group(client: BaseWorker, ids: list[str]) -> None:
    await client.job_group("patient", "other", name="hold", job_id="mine")


async def sit_in_the_body(client: BaseWorker, ids: list[str]) -> None:
    async with client.job_group("patient", "other", name="hold", job_id="mine"):
        await anyio.sleep_forever()


async def iterate(client: BaseWorker, ids: list[str]) -> None:
    async with client.job("patient", name="hold", job_id="mine") as asked:
        async for _ in asked:
            pass


async def leave(client: BaseWorker, ids: list[str]) -> None:
    async with client.job_group("patient", "other", name="hold", job_id="mine"):
        pass


@pytest.mark.parametrize("ask", [await_job, await_group, sit_in_the_body, iterate, leave])
async def test_g17_a_requester_that_is_cancelled_cancels_its_jobs_and_the_cancellation_goes_on(ask: Asks) -> None:
    workers = [Patient("patient"), Patient("other")]
    async with running(*workers, client := BaseWorker("client")), anyio.create_task_group() as task_group:
        outcome: list[Any] = []

        async def requester() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await ask(client, [])
                outcome.append("went on")
            outcome.append(scope.cancelled_caught)

        scopes: list[anyio.CancelScope] = []
        task_group.start_soon(requester)
        await anyio.wait_all_tasks_blocked()
        asked = [worker for worker in workers if worker.begun]
        assert asked
        scopes[0].cancel()
        await anyio.wait_all_tasks_blocked()
        assert outcome == [True]
        assert all(worker.cancelled == worker.told == ["mine"] for worker in asked)
        assert not client.job_groups


async def test_g17_a_requester_cancelled_while_it_enters_cancels_the_members_that_were_asked_already() -> None:
    full, free = Patient("full"), Patient("free")
    async with running(full, free, client := BaseWorker("client")), anyio.create_task_group() as task_group:
        fillers = [await client.create_job_group_and_request_job(["full"], name="hold") for _ in range(4)]
        entered: list[str] = []
        scope = anyio.CancelScope()

        async def requester() -> None:
            with scope:
                async with client.job_group("free", "full", name="hold", job_id="mine"):
                    entered.append("entered")

        task_group.start_soon(requester)
        await anyio.wait_all_tasks_blocked()
        assert free.begun == ["mine"]
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert scope.cancelled_caught
        assert entered == []
        assert free.cancelled == ["mine"]
        assert "mine" not in full.begun
        assert full.statistics().senders == 0
        for group in fillers:
            group.cancel()


async def test_g17_a_body_that_raises_cancels_the_jobs_and_its_error_goes_on() -> None:
    async with running(patient := Patient(), client := BaseWorker("client")):
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - leaving is what is tested
            async with client.job("patient", name="hold", job_id="mine"):
                await anyio.wait_all_tasks_blocked()
                raise ZeroDivisionError
        await anyio.wait_all_tasks_blocked()
        assert patient.cancelled == ["mine"]


async def test_g17_a_cancellation_that_meets_the_answer_is_not_swallowed() -> None:
    class Quick(BaseWorker):
        @job
        async def echo(self, message: BusJobRequestMessage) -> Any:
            return {"echo": message.payload}

    async with running(Quick("quick"), client := BaseWorker("client")):
        for ticks in range(12):
            outcome: list[Any] = []
            async with anyio.create_task_group() as task_group:

                async def requester(outcome: list[Any] = outcome) -> None:
                    with anyio.CancelScope() as scope:
                        outcome.append(scope)
                        await client.job("quick", name="echo")
                        outcome.append("answered")
                        await anyio.sleep_forever()

                task_group.start_soon(requester)
                while not outcome:
                    await anyio.lowlevel.checkpoint()
                for _ in range(ticks):
                    await anyio.lowlevel.checkpoint()
                outcome[0].cancel()
            assert outcome[0].cancelled_caught
            assert not client.job_groups


async def test_waiting_for_a_group_may_be_given_up_without_cancelling_it() -> None:
    async with running(patient := Patient(), client := BaseWorker("client")):
        group = await client.create_job_group_and_request_job(["patient"], name="hold")
        for _ in range(10):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await group.wait()
        assert core_of(client).groups[group.job_id]._waiter is None
        assert not group.is_done
        assert patient.cancelled == []
        group.cancel()


async def test_g8_a_member_that_refuses_at_once_leaves_no_member_working_for_nobody() -> None:
    class Choosy(BaseWorker):
        @job
        async def other(self, message: BusJobRequestMessage) -> None:
            pass

    workers = [Patient("a"), Choosy("choosy"), Patient("b")]
    async with running(*workers, client := BaseWorker("client")):
        with pytest.raises(JobGroupError) as raised:
            await client.job_group("a", "choosy", "b", name="hold")
        assert raised.value.worker_name == "choosy"
        assert set(raised.value.results) == {"a", "choosy", "b"}
        await anyio.wait_all_tasks_blocked()
        assert [worker.statistics().running for worker in workers] == [0, 0, 0]
