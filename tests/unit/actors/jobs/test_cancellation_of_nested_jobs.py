"""A job that ends takes along the jobs that were asked for inside it: G20."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Job, JobGroupError, JobTimeoutError, job
from tests.support.running import running
from tests.support.virtual_time import virtual_time
from tests.support.workers import Patient

pytestmark = pytest.mark.anyio


class Node(BaseWorker):
    """Asks the next one, in one of the ways there are; the last one waits for ever."""

    def __init__(self, name: str, children: list[str], how: str) -> None:
        super().__init__(name)
        self.below = children
        self.how = how
        self.fails = anyio.Event()
        self.cancelled = 0
        self.running = 0

    @job
    async def work(self, job: Job[Any]) -> Any:
        self.running += 1
        try:
            if not self.below:
                await anyio.sleep_forever()
            if self.how == "job":
                async with anyio.create_task_group() as task_group:
                    for child in self.below:
                        task_group.start_soon(self.ask, child)
                    await self.fails.wait()
                    raise ZeroDivisionError
            elif self.how == "await":
                await self.job_group(*self.below, name="work")
            elif self.how == "group":
                async with self.job_group(*self.below, name="work"):
                    await self.fails.wait()
                    raise ZeroDivisionError
            else:
                await self.request_job_group(*self.below, name="work")
                await self.fails.wait()
                raise ZeroDivisionError
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def ask(self, child: str) -> None:
        await self.job(child, name="work")


async def stopped(*nodes: Node) -> None:
    with anyio.fail_after(30):
        while any(node.running for node in nodes):
            await anyio.lowlevel.checkpoint()


def tree(how: str) -> dict[str, Node]:
    """Four levels: one, two, four and eight workers."""
    nodes: dict[str, Node] = {}
    for level in range(4):
        for number in range(2**level):
            below = [f"{level + 1}.{2 * number}", f"{level + 1}.{2 * number + 1}"] if level < 3 else []
            nodes[f"{level}.{number}"] = Node(f"{level}.{number}", below, how)
    return nodes


@pytest.mark.parametrize("how", ["job", "group", "request"])
async def test_g20_cancelling_a_job_cancels_every_job_below_it(how: str) -> None:
    nodes = tree(how)
    async with running(*nodes.values(), client := BaseWorker("client")) as runner:
        group = await client.create_job_group_and_request_job(["0.0"], name="work")
        await anyio.wait_all_tasks_blocked()
        assert all(node.running == 1 for node in nodes.values())
        group.cancel()
        await stopped(*nodes.values())
        assert [node.cancelled for node in nodes.values()] == [1] * 15
        assert runner.statistics().groups == 0


@pytest.mark.parametrize("how", ["job", "group", "request"])
async def test_g20_a_job_that_fails_takes_the_jobs_below_it_along_and_no_others(how: str) -> None:
    nodes = tree(how)
    for node in nodes.values():
        node.how = "request" if node.name == "0.0" else node.how
    async with running(*nodes.values(), client := BaseWorker("client")):
        group = await client.create_job_group_and_request_job(["0.0"], name="work")
        await anyio.wait_all_tasks_blocked()
        nodes["2.1"].fails.set()
        await stopped(nodes["2.1"], nodes["3.2"], nodes["3.3"])
        await anyio.wait_all_tasks_blocked()
        assert nodes["0.0"].running == 1  # it asked and went on: the failure below it is news, not its own end
        group.cancel()
        await stopped(*nodes.values())


async def test_g20_jobs_that_a_handler_leaves_running_when_it_completes_go_on() -> None:
    class Worker(BaseWorker):
        @job
        async def leave(self, job: Job[Any]) -> Any:
            return {"id": await self.request_job("patient", name="hold")}

    async with running(worker := Worker("worker"), patient := Patient(), client := BaseWorker("client")):
        answer = await client.job("worker", name="leave")
        await anyio.wait_all_tasks_blocked()
        assert patient.begun == [answer["id"]]
        assert patient.cancelled == []
        await worker.cancel_job_group(answer["id"])
        await anyio.wait_all_tasks_blocked()
        assert patient.cancelled == [answer["id"]]


async def test_g20_jobs_below_are_cancelled_at_once_though_the_handler_above_lingers() -> None:
    release = anyio.Event()

    class Lingering(BaseWorker):
        @job
        async def ask(self, job: Job[Any]) -> None:
            await self.request_job("patient", name="hold")
            with anyio.CancelScope(shield=True):
                await release.wait()

    async with running(Lingering("lingering"), patient := Patient(), client := BaseWorker("client"), cancel_grace=60.0):
        group = await client.create_job_group_and_request_job(["lingering"], name="ask")
        await anyio.wait_all_tasks_blocked()
        group.cancel()
        await anyio.wait_all_tasks_blocked()
        assert len(patient.cancelled) == 1
        release.set()
        await anyio.wait_all_tasks_blocked()


@virtual_time()
async def test_g20_g6_jobs_below_end_with_the_deadline_of_the_job_above() -> None:
    nodes = tree("job")
    async with running(*nodes.values(), client := BaseWorker("client")):
        start = anyio.current_time()
        with pytest.raises(JobTimeoutError):
            await client.job("0.0", name="work", timeout=10.0)
        await anyio.wait_all_tasks_blocked()
        assert anyio.current_time() - start == pytest.approx(10.0)
        await stopped(*nodes.values())


async def test_g20_a_worker_that_ends_takes_the_jobs_it_asked_for_along() -> None:
    nodes = tree("await")
    async with running(*nodes.values(), client := BaseWorker("client"), drain_timeout=0.0) as runner:
        with pytest.raises(JobGroupError):  # noqa: PT012 - leaving is what is tested
            async with client.job_group("0.0", name="work"):
                await anyio.wait_all_tasks_blocked()
                await runner.remove_worker("1.0")
        await stopped(*nodes.values())
