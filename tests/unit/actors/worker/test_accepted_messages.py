"""`accepts_bus_message` is asked before anything is done with a message; nobody waits for ever for what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from actors import BaseWorker, HandlerError, Job, JobError, job, subscribe
from bus import (
    BusDataMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobStreamDataMessage,
    BusJobUpdateMessage,
    BusMessage,
    BusTopicMessage,
    JobStatus,
)
from tests.support.running import running

pytestmark = pytest.mark.anyio


class Performer(BaseWorker):
    @job
    async def ask(self, number: int) -> int:
        return number

    @job
    async def talk(self, job: Job[int]) -> str:
        for number in range(job.payload):
            await job.update(number)
            await job.stream(number)
        return "done"


class Guarded(Performer):
    """It takes what a function says."""

    def __init__(self, name: str, accepts: Callable[[BusMessage], Any] = lambda _message: True) -> None:
        super().__init__(name)
        self.accepts = accepts
        self.asked: list[BusMessage] = []
        self.heard: list[str] = []

    def accepts_bus_message(self, message: BusMessage) -> bool:
        self.asked.append(message)
        return self.accepts(message)  # type: ignore[no-any-return]

    async def on_bus_message(self, message: BusMessage) -> None:
        self.heard.append(type(message).__name__)

    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        self.heard.append(f"update {message.update}")

    @subscribe("news")
    async def read(self, data: Any) -> None:
        self.heard.append(f"news {data}")


async def test_a_request_that_is_not_accepted_is_answered_at_once() -> None:
    guarded = Guarded("guarded", lambda message: message.source == "friend")
    friend, stranger = BaseWorker("friend"), BaseWorker("stranger")
    async with running(guarded, friend, stranger):
        assert await friend.job("guarded", name="ask", payload=1) == 1
        with pytest.raises(JobError, match="JobRefused: worker 'guarded' does not accept it") as caught:
            await stranger.job("guarded", name="ask", payload=1)
        assert caught.value.status is JobStatus.FAILED
        with pytest.raises(JobError, match="JobRefused"):
            await stranger.job("guarded", name="no such job")


async def test_a_request_that_waited_for_its_worker_is_asked_about_too() -> None:
    asker = BaseWorker("asker")
    async with running(asker) as runner:
        job_id = await asker.request_job("guarded", name="ask", payload=1)
        await anyio.wait_all_tasks_blocked()
        assert job_id in asker.job_groups
        await runner.add_workers(Guarded("guarded", lambda _: False))
        await anyio.wait_all_tasks_blocked()
        assert asker.job_groups == {}


async def test_messages_and_topics_that_are_not_accepted_are_dropped_and_counted() -> None:
    refused = (BusDataMessage, BusEndWorkerMessage, BusTopicMessage)
    guarded, other = Guarded("guarded", lambda message: type(message) not in refused), BaseWorker("other")
    async with running(guarded, other) as runner:
        before = runner.bus.statistics().undeliverable
        await other.send_bus_message(BusDataMessage(source="other", target="guarded"))
        await other.send_bus_message(BusDataMessage(source="other"))
        await other.send_bus_message(BusEndWorkerMessage(source="other", target="guarded"))
        await other.publish("news", 1)
        await anyio.wait_all_tasks_blocked()
        assert guarded.heard == []
        assert runner.get_worker("guarded") is guarded
        assert runner.bus.statistics().undeliverable == before + 4
        await other.deactivate_worker("guarded")
        assert not guarded.active


@pytest.mark.parametrize("streams", ["entered", "iterated", "awaited"])
async def test_events_that_are_not_accepted_are_left_out_and_the_job_goes_on(streams: str) -> None:
    guarded = Guarded("guarded", lambda message: not isinstance(message, BusJobUpdateMessage))
    async with running(guarded, Performer("performer")):
        events: list[Any] = []
        if streams == "awaited":
            assert await guarded.job("performer", name="talk", payload=400) == "done"
        else:
            async with guarded.job("performer", name="talk", payload=400) as asked:
                if streams == "iterated":
                    events = [event.data async for event in asked]
            assert asked.response == "done"
            assert events == ([None, *range(400), "done"] if streams == "iterated" else [])
        await anyio.wait_all_tasks_blocked()
        assert not any(heard.startswith("update") for heard in guarded.heard)


async def test_a_job_whose_answer_is_not_accepted_fails_and_nobody_waits_for_ever() -> None:
    guarded = Guarded("guarded", lambda message: not isinstance(message, BusJobResponseMessage))
    async with running(guarded, Performer("performer")):
        with pytest.raises(JobError, match="'guarded' does not accept the answer"):
            await guarded.job("performer", name="ask", payload=1)
        group = await guarded.job_group("performer", name="ask", payload=1, cancel_on_error=False)
        assert group.results["performer"].status is JobStatus.FAILED


async def test_what_keeps_jobs_going_is_not_asked_about() -> None:
    guarded = Guarded("guarded", lambda message: isinstance(message, BusJobRequestMessage))
    asker = BaseWorker("asker")
    async with running(guarded, asker):
        async with asker.job("guarded", name="talk", payload=400) as asked:
            count = len([event async for event in asked])
        assert count == 802
        assert {type(message) for message in guarded.asked} == {BusJobRequestMessage}


async def test_a_guard_that_raises_accepts_nothing_and_is_reported() -> None:
    def broken(_message: BusMessage) -> bool:
        raise KeyError("broken")

    guarded, asker = Guarded("guarded", broken), BaseWorker("asker")
    async with running(guarded, asker) as runner:
        told: list[Any] = []
        runner.add_event_handler("on_error", lambda _runner, data: told.append(data.error))
        with pytest.raises(JobError, match="JobRefused"):
            await asker.job("guarded", name="ask", payload=1)
        await anyio.wait_all_tasks_blocked()
        assert told == ["accepts_bus_message failed: KeyError: 'broken'"]


async def test_a_guard_that_is_set_on_one_worker_is_asked() -> None:
    performer, asker = Performer("performer"), BaseWorker("asker")
    async with running(performer, asker):
        assert await asker.job("performer", name="ask", payload=1) == 1
        performer.accepts_bus_message = lambda message: False  # type: ignore[method-assign]
        with pytest.raises(JobError, match="JobRefused"):
            await asker.job("performer", name="ask", payload=1)


async def test_a_guard_that_would_have_to_be_awaited_is_refused_when_it_is_defined_or_set() -> None:
    with pytest.raises(HandlerError, match="must be a plain 'def'"):

        class _Later(BaseWorker):
            async def accepts_bus_message(self, message: BusMessage) -> bool:  # type: ignore[override]
                return True

    async def later(message: BusMessage) -> bool:
        return True

    with pytest.raises(AttributeError):
        Performer("performer").accepts_bus_message = later  # type: ignore[method-assign, assignment]


async def test_a_stream_of_a_job_that_is_refused_in_part_keeps_its_order() -> None:
    odd = lambda message: not (isinstance(message, BusJobStreamDataMessage) and message.data % 2)  # noqa: E731
    guarded = Guarded("guarded", odd)
    async with running(guarded, Performer("performer")):
        async with guarded.job("performer", name="talk", payload=10) as asked:
            chunks = [event.data async for event in asked if event.type == "stream_data"]
        assert chunks == [0, 2, 4, 6, 8]
