"""G39: a job id that its requester chooses names one job: asked for again it is not done again."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import BaseWorker, Client, Job, JobError, JobGroupError, JobStateError, JobStatus, JobTimeoutError, job
from actors.jobs import remembered
from actors.jobs.remembered import REMEMBERED_SECONDS
from bus import AsyncQueueBus
from tests.support.running import running
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio


class Shop(BaseWorker):
    def __init__(self, name: str = "shop") -> None:
        super().__init__(name)
        self.runs: list[Any] = []
        self.gate = anyio.Event()

    @job
    async def pay(self, amount: int) -> dict[str, list[int]]:
        self.runs.append(amount)
        return {"paid": [amount]}

    @job
    async def slow(self, amount: int) -> int:
        self.runs.append(amount)
        await self.gate.wait()
        return amount

    @job
    async def fail(self, amount: int) -> None:
        self.runs.append(amount)
        raise ValueError(f"no {amount}")

    @job
    async def chunks(self, job: Job[Any]) -> Any:
        self.runs.append("chunks")
        yield 1
        yield 2


async def test_g39_a_job_asked_for_again_has_the_outcome_it_had_and_each_has_a_copy() -> None:
    shop, client = Shop(), BaseWorker("client")
    async with running(shop, client) as runner:
        answers = [await client.job("shop", name="pay", payload=5, job_id="order-1") for _ in range(3)]
        answers[1]["paid"].append("mine")
        answers.append(await client.job("shop", name="pay", payload=5, job_id="order-1"))
        assert answers == [{"paid": [5]}, {"paid": [5, "mine"]}, {"paid": [5]}, {"paid": [5]}]
        assert await client.job("shop", name="pay", payload=6, job_id="order-2") == {"paid": [6]}
        assert shop.runs == [5, 6]
        assert runner.statistics().remembered == 2


async def test_g39_what_a_handler_raised_is_remembered_too() -> None:
    async with running(shop := Shop(), client := BaseWorker("client")):
        for _ in range(2):
            with pytest.raises(JobError, match="no 5"):
                await client.job("shop", name="fail", payload=5, job_id="order-1")
        assert shop.runs == [5]


async def test_g39_what_the_system_ended_is_not_remembered_and_may_be_asked_for_again() -> None:
    async with running(shop := Shop(), client := BaseWorker("client")):
        with pytest.raises(JobTimeoutError):
            await client.job("shop", name="slow", payload=5, job_id="order-1", timeout=0.02)
        await anyio.wait_all_tasks_blocked()
        shop.gate.set()
        assert await client.job("shop", name="slow", payload=5, job_id="order-1") == 5
        assert shop.runs == [5, 5]


async def test_g39_who_asks_while_it_runs_joins_it_and_may_leave() -> None:
    async with running(shop := Shop(), client := BaseWorker("client")):
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await client.job("shop", name="slow", payload=5, job_id="order-1"))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(JobTimeoutError):
                await client.job("shop", name="slow", payload=5, job_id="order-1", timeout=0.0)
            with anyio.move_on_after(0):
                await ask()
            shop.gate.set()
        assert answers == [5, 5, 5]
        assert shop.runs == [5]


async def test_g39_who_has_joined_a_job_that_is_cancelled_is_told() -> None:
    async with running(shop := Shop(), client := BaseWorker("client")):
        group = await client.create_job_group_and_request_job(["shop"], name="slow", payload=5, job_id="order-1")
        joined = await client.create_job_group_and_request_job(["shop"], name="slow", payload=5, job_id="order-1")
        group.cancel("changed my mind")
        with pytest.raises(JobGroupError, match="changed my mind"):
            await joined.wait()
        assert shop.runs in ([], [5])


async def test_g39_an_id_names_a_job_of_one_handler_one_worker_and_one_requester() -> None:
    first, second = Shop("first"), Shop("second")
    async with running(first, second, client := BaseWorker("client"), other := BaseWorker("other")):
        await client.job("first", name="pay", payload=1, job_id="order-1")
        with pytest.raises(JobStateError, match="job id 'order-1' names job 'pay' of worker 'first'"):
            await client.job("first", name="slow", payload=1, job_id="order-1")
        await client.job("second", name="pay", payload=2, job_id="order-1")
        await other.job("first", name="pay", payload=3, job_id="order-1")
        assert (first.runs, second.runs) == ([1, 3], [2])


async def test_g39_a_group_asks_only_those_who_were_not_asked_under_its_id() -> None:
    first, second = Shop("first"), Shop("second")
    async with running(first, second, client := BaseWorker("client")):
        await client.job("first", name="pay", payload=1, job_id="order-1")
        answers = await client.job_group("first", "second", name="pay", payload=1, job_id="order-1")
        again = await client.job_group("first", "second", name="pay", payload=1, job_id="order-1")
        assert answers.responses == again.responses == {"first": {"paid": [1]}, "second": {"paid": [1]}}
        assert (first.runs, second.runs) == ([1], [1])


async def test_g39_its_worker_remembers_for_a_requester_that_comes_again_under_its_name() -> None:
    shop = Shop()
    async with AsyncQueueBus() as bus, running(shop, bus=bus):
        for _ in range(2):
            async with Client(bus, name="till") as client:  # in a runner of its own
                assert await client.request("shop", 5, name="pay", job_id="order-1") == {"paid": [5]}
        assert shop.runs == [5]


async def test_g39_a_stream_is_not_made_again() -> None:
    async with running(shop := Shop(), client := BaseWorker("client")):
        seen = []
        for _ in range(2):
            async with client.job("shop", name="chunks", job_id="order-1") as asked:
                seen.append([event.data async for event in asked if event.type == "stream_data"])
        assert seen == [[1, 2], []]
        assert shop.runs == ["chunks"]


@virtual_time()
async def test_g39_an_outcome_is_forgotten_after_its_time() -> None:
    async with running(shop := Shop(), client := BaseWorker("client")) as runner:
        await client.job("shop", name="pay", payload=5, job_id="order-1")
        with anyio.CancelScope(shield=True):
            await anyio.sleep(30.0)
        await client.job("shop", name="pay", payload=5, job_id="order-1")
        assert shop.runs == [5]
        assert runner.statistics().remembered == 1


def test_g39_no_more_than_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MAX_REMEMBERED", 3)
    now = [0.0]
    outcomes = remembered.Outcomes(lambda: now[0])
    outcome = remembered.Outcome("pay", JobStatus.COMPLETED, 1, None, 1)
    for number in range(5):
        outcomes.put(("a", "b", str(number)), outcome)
    assert [number for number in range(5) if outcomes.get(("a", "b", str(number))) is not None] == [2, 3, 4]
    now[0] = REMEMBERED_SECONDS - 0.5
    assert len(outcomes) == 3
    now[0] = REMEMBERED_SECONDS
    assert len(outcomes) == 0
    assert outcomes.get(("a", "b", "4")) is None
