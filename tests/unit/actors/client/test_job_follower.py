"""Who follows jobs is told what becomes of those of all runners, nobody waits for that, and it can be taken back."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from actors import BaseWorker, Client, JobError, JobNews, RunnerStateError, WorkerRunner, follow_jobs, job
from actors.observability.job_events import BATCH, KEPT, LONGEST_TEXT, TOPIC
from actors.runner.runner import core_of_runner
from bus import AsyncQueueBus, BusTopicMessage, MailboxFullError, WorkerErrorData
from tests.support.running import running
from tests.support.workers import quiet

pytestmark = pytest.mark.anyio

NUMBERS = itertools.count()


class Desk(BaseWorker):
    @job
    async def echo(self, payload: str) -> str:
        return payload

    @job
    async def fail(self) -> None:
        raise ValueError("no" * 1000)


class News:
    """What a follower was told, and a way to wait for it."""

    def __init__(self) -> None:
        self.told: list[JobNews] = []
        self._more = anyio.Event()

    def __call__(self, news: JobNews) -> None:
        self.told.append(news)
        self._more.set()
        self._more = anyio.Event()

    async def have(self, count: int) -> list[JobNews]:
        while len(self.told) < count:
            await self._more.wait()
        return self.told


@asynccontextmanager
async def fleet(*labels: str, shared: bool = False, **options: Any) -> AsyncGenerator[dict[str, WorkerRunner]]:
    """Runners that meet, each with a worker `desk-<label>`; all know all."""
    place = f"memory://news-{next(NUMBERS)}"
    bus = AsyncQueueBus()
    runners = {label: quiet(label, bus=bus if shared else place, tracebacks=True, **options) for label in labels}
    with anyio.fail_after(60):
        async with AsyncExitStack() as stack:
            if shared:
                await stack.enter_async_context(bus)
            for label, runner in runners.items():
                await stack.enter_async_context(runner)
                await runner.add_workers(Desk(f"desk-{label}"))
            for runner, label in itertools.product(runners.values(), labels):
                await known(runner, f"desk-{label}")
            yield runners


async def known(runner: WorkerRunner, name: str) -> None:
    ready = anyio.Event()
    await runner.registry.watch(name, lambda _: ready.set())
    await ready.wait()


async def all_publish(runners: dict[str, WorkerRunner], *, publish: bool = True) -> None:
    """Wait until every runner knows of a follower, or that there is none any more."""
    for runner in runners.values():
        while core_of_runner(runner).job_events.wanted is not publish:
            changed = anyio.Event()

            def listener(_: object, changed: anyio.Event = changed) -> None:
                changed.set()

            runner.registry.listen(listener)
            await changed.wait()
            await anyio.lowlevel.checkpoint()
            runner.registry.unlisten(listener)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_follower_is_told_what_becomes_of_the_jobs_of_all_runners(shared: bool) -> None:
    news = News()
    fleet_of_two = fleet("a", "b", shared=shared)
    async with fleet_of_two as runners, Client(runners["a"]) as client, follow_jobs(runners["b"], news):
        await all_publish(runners)
        await client.request("desk-a", "hello", name="echo", job_id="j1")
        await news.have(2)
        await client.request("desk-b", "hello", name="echo", job_id="j2")
        await news.have(4)
        with pytest.raises(JobError):
            await client.request("desk-a", name="fail", job_id="j3")
        await news.have(6)
    assert [(each.type, each.runner, each.record.job_id if each.record else "") for each in news.told] == [
        ("job_started", "a", "j1"),
        ("job_completed", "a", "j1"),
        ("job_started", "b", "j2"),
        ("job_completed", "b", "j2"),
        ("job_started", "a", "j3"),
        ("job_failed", "a", "j3"),
    ]
    failed = news.told[-1].record
    assert failed is not None
    assert failed.error is not None
    assert (failed.worker_name, failed.job_name, failed.error.type) == ("desk-a", "fail", "ValueError")
    assert (failed.error.message, failed.error.traceback) == (("no" * 1000)[:LONGEST_TEXT], None)
    assert news.told[0].at > 1_000_000_000


async def test_while_nobody_follows_nothing_is_published_and_afterwards_neither() -> None:
    news = News()
    async with fleet("a", "b") as runners, Client(runners["a"]) as client:
        published: list[str] = []
        for label, runner in runners.items():
            publish = runner.bus.publish

            async def counting(message: BusTopicMessage, label: str = label, publish: Any = publish) -> int:
                published.append(label)
                return int(await publish(message))

            runner.bus.publish = counting  # type: ignore[method-assign]
        await client.request("desk-b", "hello", name="echo")
        async with follow_jobs(runners["a"], news):
            await all_publish(runners)
            await client.request("desk-b", "hello", name="echo")
            await news.have(2)
        await all_publish(runners, publish=False)
        count = len(published)
        await client.request("desk-b", "hello", name="echo")
        await anyio.wait_all_tasks_blocked()
        assert len(published) == count >= 1
        assert set(published) == {"b"}
    assert len(news.told) == 2


async def test_a_runner_with_handlers_of_its_own_publishes_nothing_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def publish(_message: BusTopicMessage) -> int:
        raise AssertionError

    told: list[str] = []
    async with running(Desk("desk")) as runner, Client(runner) as client:
        monkeypatch.setattr(runner.bus, "publish", publish)
        runner.add_event_handler("on_job_complete", lambda _, record: told.append(record.job_id))
        await client.request("desk", "hello", name="echo", job_id="j1")
        await anyio.wait_all_tasks_blocked()
        assert core_of_runner(runner).job_events._quiet is None
    assert told == ["j1"]


async def test_two_followers_are_both_told_and_one_that_leaves_does_not_take_the_other_along() -> None:
    first, second = News(), News()
    async with fleet("a", "b") as runners, Client(runners["a"]) as client, follow_jobs(runners["a"], second):
        async with follow_jobs(runners["a"], first):
            await all_publish(runners)
            await client.request("desk-b", "hello", name="echo")
            await first.have(2)
            await second.have(2)
        await client.request("desk-b", "hello", name="echo")
        await second.have(4)
    assert len(first.told) == 2


async def test_a_follower_is_no_worker_that_others_see() -> None:
    async with fleet("a", "b") as runners, Client(runners["a"]) as client, follow_jobs(runners["b"], News()):
        await all_publish(runners)
        assert sorted(data.worker_name for data in client.workers()) == ["desk-a", "desk-b"]


async def test_a_handler_that_raises_is_told_the_next_and_on_error_is_told() -> None:
    news, errors = News(), list[WorkerErrorData]()

    async def handler(each: JobNews) -> None:
        await anyio.lowlevel.checkpoint()
        news(each)
        raise ValueError("no")

    async with running(Desk("desk")) as runner, Client(runner) as client:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        async with follow_jobs(runner, handler):
            await client.request("desk", "hello", name="echo")
            await news.have(2)
            await anyio.wait_all_tasks_blocked()
    assert [each.type for each in news.told] == ["job_started", "job_completed"]
    assert [error.error for error in errors] == ["hook on_news failed: ValueError: no"] * 2


async def test_what_is_more_than_may_wait_is_dropped_and_counted() -> None:
    news, jobs = News(), KEPT
    async with fleet("a", "b") as runners, Client(runners["a"]) as client, follow_jobs(runners["b"], news):
        await all_publish(runners)
        await client.gather("desk-a", ["hello"] * jobs, name="echo", max_concurrency=jobs)
        while sum(each.count for each in news.told) < 2 * jobs:
            await news.have(len(news.told) + 1)
    missed = sum(each.count for each in news.told if each.type == "missed")
    assert missed >= 2 * jobs - KEPT - 2 * BATCH
    assert len([each for each in news.told if each.type != "missed"]) == 2 * jobs - missed
    assert all(each.record is None and each.runner == "a" for each in news.told if each.type == "missed")


async def test_what_cannot_be_published_is_counted_and_no_job_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    news = News()
    async with fleet("a", "b") as runners, Client(runners["a"]) as client, follow_jobs(runners["b"], news):
        await all_publish(runners)
        publish = runners["a"].bus.publish

        async def refusing(_message: BusTopicMessage) -> int:
            monkeypatch.setattr(runners["a"].bus, "publish", publish)
            raise MailboxFullError("inbox", 1)

        monkeypatch.setattr(runners["a"].bus, "publish", refusing)
        await client.request("desk-a", "hello", name="echo")
        await client.request("desk-a", "hello", name="echo")
        while sum(each.count for each in news.told) < 4:
            await news.have(len(news.told) + 1)
    assert news.told[0].type == "missed"
    assert news.told[0].count >= 1


async def test_the_last_events_of_a_runner_that_ends_are_told() -> None:
    news = News()
    async with fleet("a", "b") as runners, Client(runners["b"]) as client, follow_jobs(runners["b"], news):
        await all_publish(runners)
        await client.request("desk-a", "hello", name="echo")
        await runners["a"].end()
        assert [each.type for each in await news.have(2)] == ["job_started", "job_completed"]


async def test_what_somebody_else_publishes_there_is_no_news() -> None:
    news = News()
    async with running(Desk("desk")) as runner, follow_jobs(runner, news):
        for data in ("text", ["text", 1], None):
            await runner.bus.publish(BusTopicMessage(source="desk", topic=TOPIC, data=data))
        await anyio.wait_all_tasks_blocked()
    assert news.told == []


async def test_jobs_of_a_runner_that_does_not_run_cannot_be_followed() -> None:
    with pytest.raises(RunnerStateError, match="does not run: follow jobs inside"):
        async with follow_jobs(quiet("r"), News()):
            raise AssertionError
