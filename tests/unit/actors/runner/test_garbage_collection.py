"""What users keep of jobs, workers and runners is collected with them (G46), wherever they keep it."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Client, Job, JobError, job
from tests.support.workers import quiet

pytestmark = pytest.mark.anyio


class Keeper(BaseWorker):
    """It keeps something of each job on itself, or in the job."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(name)
        self.what = what
        self.kept: Any = None

    @job(name="keep")
    async def keep(self, job: Job[dict[str, Any]]) -> int:
        if self.what == "job":
            self.kept = job
        elif self.what == "method of the job":
            self.kept = job.update
        elif self.what == "job in its payload":
            job.payload["report"] = job.update
        elif self.what == "exception":
            try:
                raise ValueError("kept")  # noqa: TRY301 - its traceback holds this frame
            except ValueError as error:
                self.kept = error
        elif self.what == "group":
            self.kept = await self.create_job_group_and_request_job([self.name], name="plain")
            await self.kept.wait()
        elif self.what == "context":
            self.kept = self.job(self.name, name="plain")
            await self.kept
        elif self.what == "context in its answer":
            async with self.job(self.name, name="plain") as context:
                pass
            context.response["context"] = context
        elif self.what == "raised":
            raise ValueError("raised")
        return 1

    @job(name="plain")
    async def plain(self) -> dict[str, int]:
        return {}


WHAT = [
    "job",
    "method of the job",
    "job in its payload",
    "exception",
    "group",
    "context",
    "context in its answer",
    "raised",
]


@pytest.mark.parametrize("what", WHAT)
async def test_g46_what_a_worker_keeps_of_its_jobs_is_collected_with_it(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="actorbus")  # records that pytest keeps would hold what was raised
    alive: list[weakref.ref[Any]] = []

    async def live() -> None:
        runner, worker = quiet(), Keeper("keeper", what)
        alive.extend([weakref.ref(worker), weakref.ref(runner)])
        await runner.add_workers(worker)
        async with runner, Client(runner) as client:
            for _ in range(3):
                try:
                    await client.request("keeper", {}, name="keep")
                except JobError as error:
                    worker.kept = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live)
    await anyio.lowlevel.checkpoint()
    gc.collect()
    assert [type(each()).__name__ for each in alive if each() is not None] == []


async def test_g46_jobs_that_hold_themselves_are_collected_while_the_runner_lives() -> None:
    class Blob:
        pass

    class Holder(BaseWorker):
        @job(name="hold")
        async def hold(self, job: Job[dict[str, Any]]) -> None:
            job.payload["report"] = job.update
            job.payload["blob"] = Blob()

    async with quiet() as runner, Client(runner) as client:
        await runner.add_workers(Holder("holder"))
        for _ in range(100):
            await client.request("holder", {}, name="hold")
        gc.collect()
        assert sum(type(each) is Blob for each in gc.get_objects()) <= 1


def test_classes_of_workers_are_collected() -> None:
    def made() -> weakref.ref[type]:
        class Passing(BaseWorker):
            def __init__(self) -> None:
                super().__init__("passing")

            @job(name="who")
            async def who(self) -> str:
                return super().__repr__()

        Passing()
        return weakref.ref(Passing)

    classes = [made() for _ in range(20)]
    gc.collect()
    assert [each() for each in classes if each() is not None] == []
