"""G59: what a cancelled handler does to clean up may await for as long as `cancel_grace`, as asyncio has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Job, JobError, JobTimeoutError, WorkerRunner, job
from tests.support.running import running

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@asynccontextmanager
async def connection(done: list[str]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for step in range(3):
            await asyncio.sleep(0)
            done.append(f"closing {step}")


class Cleaner(BaseWorker):
    """Each handler waits until it is cancelled, and cleans up in its own way."""

    def __init__(self, name: str = "cleaner") -> None:
        super().__init__(name)
        self.done: list[str] = []
        self.begun = anyio.Event()
        self.over = anyio.Event()

    async def _forever(self) -> None:
        self.begun.set()
        await anyio.sleep_forever()

    @job
    async def in_finally(self) -> None:
        try:
            await self._forever()
        finally:
            await asyncio.sleep(0)
            await anyio.lowlevel.checkpoint()
            self.done.append("cleaned")
            self.over.set()

    @job
    async def in_a_context(self) -> None:
        try:
            async with connection(self.done):
                await self._forever()
        finally:
            self.over.set()

    @job
    async def in_a_task_group(self) -> None:
        async def child() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                await anyio.lowlevel.checkpoint()
                self.done.append("child")

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                await asyncio.sleep(0)
                await self._forever()
        finally:
            self.over.set()

    @job
    async def behind_a_shield(self) -> None:
        try:
            with anyio.CancelScope(shield=True):
                self.begun.set()
                for _ in range(20):
                    await asyncio.sleep(0)
                self.done.append("shielded")
            await anyio.sleep_forever()
        finally:
            self.done.append("cleaned")
            self.over.set()

    @job
    async def with_timeouts(self) -> None:
        try:
            async with asyncio.timeout(60):
                with anyio.fail_after(60):
                    await self._forever()
        finally:
            async with asyncio.timeout(60):
                await asyncio.sleep(0)
            with anyio.fail_after(60):
                await anyio.lowlevel.checkpoint()
            self.done.append("cleaned")
            self.over.set()

    @job
    async def chunks(self) -> Any:
        try:
            yield 1
            await self._forever()
        finally:
            await anyio.lowlevel.checkpoint()
            self.done.append("cleaned")
            self.over.set()

    @job
    async def for_ever(self) -> None:
        try:
            await self._forever()
        finally:
            try:
                await anyio.sleep_forever()
            finally:
                self.done.append("told twice")
                self.over.set()

    @job(timeout=0.02)
    async def late(self, job: Job[Any]) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await asyncio.sleep(0)
            self.done.append(f"late {job.cancelled}")


async def cancelled(asker: BaseWorker, cleaner: Cleaner, way: str) -> None:
    """A job of the cleaner is asked for, and cancelled once it has begun."""

    async def ask() -> None:
        async with asker.job("cleaner", name=way) as asked:
            await cleaner.begun.wait()
            await asked.cancel("enough")

    with pytest.raises(JobError, match="enough"):
        await ask()


WAYS = {
    "in_finally": ["cleaned"],
    "in_a_context": ["closing 0", "closing 1", "closing 2"],
    "in_a_task_group": ["child"],
    "behind_a_shield": ["shielded", "cleaned"],
    "with_timeouts": ["cleaned"],
    "chunks": ["cleaned"],
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_cancelled_handler_cleans_up(way: str) -> None:
    async with running(cleaner := Cleaner(), asker := BaseWorker("asker")):
        await cancelled(asker, cleaner, way)
        await cleaner.over.wait()
        assert cleaner.done == WAYS[way]
        await anyio.wait_all_tasks_blocked()
        assert cleaner.statistics().running == 0


@pytest.mark.parametrize("way", WAYS)
async def test_so_does_one_whose_worker_is_removed(way: str) -> None:
    async with running(cleaner := Cleaner(), asker := BaseWorker("asker")) as runner:
        await asker.request_job("cleaner", name=way)
        await cleaner.begun.wait()
        await cleaner.stop()
        await runner.remove_worker("cleaner")
        assert cleaner.done == WAYS[way]


async def test_a_handler_past_its_time_cleans_up_before_its_requester_is_told() -> None:
    async with running(cleaner := Cleaner(), asker := BaseWorker("asker")):
        with pytest.raises(JobTimeoutError):
            await asker.request("cleaner", name="late")
        assert cleaner.done == ["late True"]


async def test_clean_up_that_takes_longer_than_the_grace_is_told_once_more_and_left() -> None:
    async with WorkerRunner(cancel_grace=0.05, handle_sigint=False, handle_sigterm=False) as runner:
        cleaner, asker = Cleaner(), BaseWorker("asker")
        await runner.add_workers(cleaner, asker)
        await cancelled(asker, cleaner, "for_ever")
        await cleaner.over.wait()
        assert cleaner.done == ["told twice"]
