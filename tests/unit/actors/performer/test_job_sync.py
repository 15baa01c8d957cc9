"""G51: `job.sync`: what a plain handler says and asks, each verb blocking its thread alone."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Client, Job, JobError, JobStateError, JobTimeoutError, RunnerStateError, function, job
from actors.performer.threads import THREADS
from tests.support.running import running, settled

pytestmark = pytest.mark.anyio


@function()
def double(number: int) -> int:
    return 2 * number


class Other(BaseWorker):
    def __init__(self, name: str = "other") -> None:
        super().__init__(name)
        self.begun = anyio.Event()
        self.cancelled = anyio.Event()

    @job
    async def echo(self, number: int) -> int:
        return number

    @job
    async def fail(self) -> None:
        raise ValueError("no")

    @job
    async def count(self, up_to: int) -> AsyncIterator[int]:
        for number in range(up_to):
            yield number

    @job
    async def hang(self) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()


class Plain(BaseWorker):
    def __init__(self, name: str = "plain") -> None:
        super().__init__(name)
        self.seen: list[Any] = []
        self.told = threading.Event()

    @job
    def everything(self, job: Job[int]) -> list[Any]:
        number, sync = job.payload, job.sync
        sync.update({"asked": number})
        sync.stream_data("chunk")
        answers: list[Any] = [
            sync.request("other", number, name="echo", result=int),
            sync.job("other", name="echo", payload=number).result(),
            sync.job_group("other", name="echo", payload=number).result().responses,
            sync.call(Other.echo, number, on="other"),
            sync.call(double, number),
            list(sync.stream("other", number, name="count")),
            sync.gather("other", range(number), name="echo"),
        ]
        with sync.job("other", name="count", payload=2) as asked:
            answers.append([event.data for event in asked if event.type == "stream_data"])
        return answers

    @job
    def fails(self, job: Job[Any]) -> str:
        try:
            job.sync.request("other", name="fail")
        except JobError as error:
            return str(error)
        return "no error"

    @job
    def early(self, job: Job[Any]) -> None:
        job.sync.respond("early")
        self.told.set()

    @job(timeout=0.05)
    def waits(self, job: Job[Any]) -> None:
        for _ in range(2):
            try:
                job.sync.request("other", name="hang")
            except (JobStateError, JobError) as error:
                self.seen.append(error)
        self.told.set()

    @job
    async def wrong(self, job: Job[Any]) -> None:
        job.sync.request("other", 1, name="echo")

    @job
    def deeper(self, job: Job[int]) -> int:
        if not job.payload:
            return 0
        return 1 + job.sync.request("plain", job.payload - 1, name="deeper", result=int)

    @job
    def from_a_thread_of_its_own(self, job: Job[Any]) -> Any:
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(job.sync.request("other", 1, name="echo")))
        thread.start()
        thread.join()
        return answers


async def test_g51_a_plain_handler_has_the_verbs_of_a_client() -> None:
    async with running(Plain(), Other(), double, client := BaseWorker("client")) as runner:
        async with client.job("plain", name="everything", payload=3) as asked:
            events = [(event.type, event.data) async for event in asked]
        assert asked.response == [3, 3, {"other": 3}, 3, 6, [0, 1, 2], [0, 1, 2], [0, 1]]
        assert events[:3] == [("update", {"asked": 3}), ("stream_start", None), ("stream_data", "chunk")]
        assert "ValueError: no" in await client.job("plain", name="fails")
        assert await client.job("plain", name="early") == "early"
        assert await client.job("plain", name="from_a_thread_of_its_own") == [1]
        await settled(runner)


async def test_g51_what_a_handler_asks_for_by_sync_ends_with_its_job_and_then_it_asks_no_more() -> None:
    async with running(plain := Plain(), other := Other(), client := BaseWorker("client")) as runner:
        with pytest.raises(JobTimeoutError):
            await client.job("plain", name="waits")
        await other.cancelled.wait()
        await settled(runner)
        assert plain.told.is_set()
        assert [type(error) for error in plain.seen[1:]] == [JobStateError]
        assert "has been told to stop" in str(plain.seen[1])


async def test_g51_sync_is_refused_where_it_would_block_the_event_loop() -> None:
    async with running(Plain(), Other(), client := BaseWorker("client")):
        with pytest.raises(JobError, match="would block the event loop") as refused:
            await client.job("plain", name="wrong")
        assert refused.value.error is not None
        assert refused.value.error.type == RunnerStateError.__name__


async def test_g51_handlers_that_ask_by_sync_never_starve_each_other() -> None:
    async with running(Plain()) as runner, Client(runner) as client:
        answers = await client.gather("plain", [5] * 2 * THREADS, name="deeper")
        assert answers == [5] * 2 * THREADS
        await settled(runner)
