"""Uses everything that is public, as a user with a strict checker would. It is checked, and never run.

A line that ends with `# wrong` must be an error to every checker, and no other line may be.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, assert_type

import msgspec

from actors import (
    BaseWorker,
    Client,
    Job,
    JobContext,
    JobError,
    JobGroup,
    JobGroupContext,
    JobGroupError,
    JobGroupParams,
    JobGroupResponse,
    JobParams,
    JobResult,
    JobStatus,
    RestartPolicy,
    RetryPolicy,
    WorkerParams,
    WorkerRunner,
    function,
    job,
    subscribe,
    worker_ready,
)
from bus import (
    AsyncQueueBus,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobUpdateMessage,
    WorkerReadyData,
    WorkerRegistry,
    open_bus,
)


@dataclass
class Question:
    text: str


class Finding(msgspec.Struct):
    title: str
    score: float


class Researcher(BaseWorker):
    max_concurrency = 4

    def __init__(self, name: str, *, sources: list[str]) -> None:
        super().__init__(name, active=True)
        self.sources = sources

    @job
    async def research(self, question: Question) -> Finding:
        return Finding(question.text, 1.0)

    @job(name="several", sequential=True, retries=RetryPolicy(attempts=2), timeout=3.0)
    async def several(self, work: Job[list[Question]]) -> list[Finding]:
        assert_type(work.payload, list[Question])
        await work.update({"done": 0})
        await work.stream("chunk")
        assert_type(work.id, str)
        assert_type(work.remaining, float | None)
        return [Finding(each.text, 0.5) for each in work.payload]

    @job(max_concurrency=2)
    def plain(self, text: str) -> int:
        return len(text)

    @job
    async def tokens(self, question: Question) -> AsyncIterator[str]:
        for word in question.text.split():
            yield word

    @job
    async def ping(self) -> None:
        pass

    @job
    async def by_message(self, message: BusJobRequestMessage) -> str:
        await self.send_job_update(message.job_id, {"half": True})
        return message.source

    @job
    async def two(self, title: str, score: float = 0.0) -> Finding:
        return Finding(title, score)


class Boss(BaseWorker):
    async def run(self, params: WorkerParams) -> None:
        await super().run(params)

    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        assert_type(message.update, Any)

    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        assert_type(message.status, JobStatus)

    @worker_ready(name="ann")
    async def ready(self, data: WorkerReadyData) -> None:
        await self.publish("news", data.worker_name)

    @subscribe("news")
    async def news(self, data: Any) -> None:
        self.create_task(self.wait(), name="waits")

    async def jobs(self) -> None:
        assert_type(self.job("ann", name="research", payload=1), JobContext[Any])
        assert_type(self.job("ann", name="research", result=Finding), JobContext[Finding])
        assert_type(await self.job("ann", result=Finding), Finding)
        assert_type(await self.job("ann", params=JobParams(name="research"), result=list[Finding]), list[Finding])
        async with self.job("ann", name="research", payload=Question("a"), timeout=5, result=Finding) as one:
            async for event in one:
                if event.type == "update":
                    print(event.data)
                elif event.type == "updated":  # wrong
                    pass
        assert_type(one.response, Finding)
        assert_type(one.results, dict[str, JobResult])
        assert_type(await self.request("ann", 1, result=int), int)
        assert_type(await self.request("ann", 1, name="plain"), Any)
        await self.request("ann", 1, tiemout=3)  # wrong
        self.job("ann", payload=1, nmae="research")  # wrong
        self.job("ann", timeout="soon")  # wrong

    async def groups(self) -> None:
        group = self.job_group("ann", "bob", name="research", payloads={"ann": Question("a")}, result=Finding)
        assert_type(group, JobGroupContext[Finding])
        async with group as both:
            async for event in both:
                if event.type == "member_done":
                    assert_type(event.result, JobResult | None)
                assert_type(event.worker_name, str)
        assert_type(both.responses, dict[str, Finding])
        answers = await self.job_group("ann", params=JobGroupParams(name="research", cancel_on_error=False))
        assert_type(answers, JobGroupResponse[Any])
        assert_type(await self.job_group("ann", result=int), JobGroupResponse[int])
        assert_type(await self.gather("ann", ["a"], name="plain", result=int, max_concurrency=3), list[int])
        assert_type(await self.request_job("ann", name="research", label="x"), str)
        assert_type(await self.create_job_group_and_request_job(["ann"], delivery="at_most_once"), JobGroup)
        await self.request_job("ann", delivery="sometimes")  # wrong
        self.job_group("ann", cancel_on_eror=True)  # wrong

    async def references(self) -> None:
        assert_type(await self.call(Researcher.research, Question("a"), on="ann"), Finding)
        assert_type(await self.call(Researcher.several, [Question("a")], on="ann", timeout=1), list[Finding])
        assert_type(await self.call(Researcher.plain, "a", on="ann"), int)
        assert_type(await self.call(Researcher.by_message, {"a": 1}, on="ann"), str)
        assert_type(await self.call(Researcher.two, {"title": "a"}, on="ann"), Finding)
        await self.call(Researcher.ping, on="ann")
        assert_type(await self.call(shout, "a"), str)
        assert_type(await self.call(greet, "a", on="other"), str)
        await self.call(Researcher.research, "a text", on="ann")  # wrong
        await self.call(shout, 5)  # wrong
        number: int = await self.call(Researcher.research, Question("a"), on="ann")  # wrong
        print(number)

    async def streams(self) -> None:
        async for word in self.stream(Researcher.tokens, Question("a b"), on="ann"):
            assert_type(word, str)
        assert_type(self.stream("ann", name="tokens", payload=1, result=str), AsyncGenerator[str, None])
        self.stream(Researcher.tokens, 5, on="ann")  # wrong


@function()
def shout(text: str) -> str:
    return text.upper()


@function(name="greet")
async def greet(name: str) -> str:
    return f"hello {name}"


async def main() -> None:
    bus = open_bus("redis://localhost:6379", namespace="x", ack_wait=3.0)
    open_bus("redis://localhost:6379", namespaces="x")  # wrong
    async with WorkerRunner("one", bus, handle_sigint=False, drain_timeout=3) as runner:
        await runner.add_workers(Researcher("ann", sources=[]), Boss("boss"), shout)
        assert_type(runner.registry, WorkerRegistry)
        boss = Boss("other")
        await boss.supervise(lambda: Researcher("bob", sources=[]), restart=RestartPolicy(max_restarts=3))
        async with Client(runner) as client:
            try:
                assert_type(await client.call(Researcher.research, Question("a"), on="ann"), Finding)
            except JobGroupError as error:
                assert_type(error.results, dict[str, JobResult])
            except JobError as error:
                assert_type(error.status, JobStatus)
    WorkerRunner(bus=AsyncQueueBus(), heartbeat="fast")  # wrong


def script() -> None:
    with Client.sync("redis://localhost", ready_timeout=3) as client:
        assert_type(client.request("ann", 1, name="plain", result=int), int)
        assert_type(client.call(Researcher.research, Question("a"), on="ann"), Finding)
        assert_type(client.stream(Researcher.tokens, Question("a"), on="ann"), Iterator[str])
        assert_type(client.gather("ann", [1], result=str), list[str])
        assert_type(client.job("ann", result=int).result(), int)
        with client.job_group("ann", result=int) as group:
            pass
        assert_type(group.responses, dict[str, int])
        client.call(Researcher.research, 5, on="ann")  # wrong
