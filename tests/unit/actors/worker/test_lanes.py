"""Hooks, jobs and system messages of one worker do not hold each other up: G16, G21, G22, G23."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import (
    BaseWorker,
    HandlerError,
    Job,
    JobError,
    JobStatus,
    WorkerActivationArgs,
    WorkerUnavailableError,
    job,
    subscribe,
    worker_ready,
)
from bus import (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobStreamDataMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
    WorkerErrorData,
    WorkerReadyData,
)
from tests.support.messages import Alarm, Note
from tests.support.running import running
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio


class Performer(BaseWorker):
    """Does what it is told: answers, waits for its gate, fails, sends events."""

    def __init__(self, name: str = "performer", *, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.gate = anyio.Event()
        self.started: list[str] = []
        self.cancelled: list[str] = []

    @job
    async def echo(self, message: BusJobRequestMessage) -> Any:
        self.started.append(message.job_id)
        return {"echo": message.payload}

    @job
    async def hold(self, job: Job[Any]) -> Any:
        self.started.append(job.id)
        try:
            await self.gate.wait()
        except BaseException:
            self.cancelled.append(job.id)
            raise
        return {"waited": job.payload}

    @job
    async def events(self, job: Job[Any]) -> Any:
        for number in range(job.payload):
            await job.update(number)
        return {"sent": job.payload}

    @job
    async def stream(self, job: Job[int]) -> Any:
        for number in range(job.payload):
            yield number

    @job(sequential=True)
    async def one_by_one(self, job: Job[Any]) -> Any:
        self.started.append(job.id)
        await self.gate.wait()
        return {}


class Blocked(BaseWorker):
    """Its hooks for notes block until they are let go."""

    def __init__(self, name: str = "blocked") -> None:
        super().__init__(name)
        self.blocked = anyio.Event()
        self.let_go = anyio.Event()
        self.heard: list[str] = []
        self.cancelled: list[str] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Alarm):
            self.heard.append(message.text)
        if isinstance(message, Note):
            self.blocked.set()
            await self.let_go.wait()
            self.heard.append(message.text)

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        self.cancelled.append(message.job_id)

    @job
    async def hold(self, message: BusJobRequestMessage) -> None:
        await anyio.sleep_forever()

    @job
    async def echo(self, message: BusJobRequestMessage) -> Any:
        return {"echo": message.payload}

    async def block(self, other: BaseWorker) -> None:
        await other.send_bus_message(Note(source=other.name, target=self.name, text="blocking"))
        await self.blocked.wait()


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
    worker, other = Blocked(), Performer("other")
    async with running(worker, other):
        await worker.block(other)
        with anyio.fail_after(30):
            assert await other.job("blocked", name="echo", payload=1) == {"echo": 1}
            assert await worker.job("other", name="echo", payload=2) == {"echo": 2}
        worker.let_go.set()


async def test_g16_a_blocked_system_hook_holds_up_neither_cancels_nor_jobs_nor_data_hooks() -> None:
    heard: list[str] = []
    gate = anyio.Event()

    class Worker(Performer):
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


# --- G21: hooks that raise ---


class Sensitive(BaseWorker):
    """Every hook of it raises."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__("sensitive")
        self.error = error
        self.called: list[str] = []

    async def fail(self, hook: str) -> None:
        self.called.append(hook)
        await anyio.lowlevel.checkpoint()
        raise self.error(hook)

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await self.fail("on_activated")

    async def on_deactivated(self) -> None:
        await self.fail("on_deactivated")

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        await self.fail("on_worker_ready")

    @worker_ready(name="performer")
    async def performer_is_ready(self, data: WorkerReadyData) -> None:
        await self.fail("worker_ready")

    @subscribe("news")
    async def news(self, data: Any) -> None:
        await self.fail("news")

    async def on_bus_message(self, message: BusMessage) -> None:
        await self.fail("on_bus_message")

    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        await self.fail("on_job_response")

    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        await self.fail("on_job_update")

    async def on_job_stream_data(self, message: BusJobStreamDataMessage) -> None:
        await self.fail("on_job_stream_data")

    async def on_job_completed(self, result: Any) -> None:
        await self.fail("on_job_completed")

    async def on_job_error(self, message: BusJobResponseMessage) -> None:
        await self.fail("on_job_error")

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        await self.fail("on_job_cancelled")

    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        await self.fail("on_job_update_requested")

    @job
    async def hold(self, message: BusJobRequestMessage) -> None:
        await anyio.sleep_forever()

    @job
    async def echo(self, message: BusJobRequestMessage) -> Any:
        return {"echo": message.payload}


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
async def test_g21_whatever_any_hook_raises_delivery_goes_on_and_outcomes_are_true(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "actorbus")
    worker, performer = Sensitive(error), Performer()
    async with running(worker, performer) as runner:
        reported: list[WorkerErrorData] = []
        runner.add_event_handler("on_error", lambda _runner, data: reported.append(data))
        await worker.watch_workers("performer")
        assert await worker.job("performer", name="events", payload=300) == {"sent": 300}
        assert await worker.job("performer", name="stream", payload=300) == {}
        with pytest.raises(JobError):
            await worker.job("performer", name="unknown")
        assert await performer.job("sensitive", name="echo", payload=1) == {"echo": 1}
        await performer.publish("news", "x")
        job_id = await performer.request_job("sensitive", name="hold")
        await performer.request_job_update(job_id, "sensitive")
        await anyio.wait_all_tasks_blocked()
        await performer.cancel_job_group(job_id)
        await performer.send_bus_message(Note(source="performer", target="sensitive", text="x"))
        await performer.deactivate_worker("sensitive")
        await performer.activate_worker("sensitive")
        await anyio.wait_all_tasks_blocked()
        hooks = {
            *("on_activated", "on_deactivated", "on_worker_ready", "worker_ready", "news", "on_bus_message"),
            *("on_job_response", "on_job_update", "on_job_stream_data", "on_job_completed", "on_job_error"),
            *("on_job_cancelled", "on_job_update_requested"),
        }
        assert set(worker.called) == hooks
        assert worker.called.count("on_job_update") == worker.called.count("on_job_stream_data") == 300
        assert worker.called.count("on_activated") == 2
        assert {data.worker_name for data in reported} == {"sensitive"}
        assert len(reported) >= 600
        assert await performer.job("sensitive", name="echo", payload=2) == {"echo": 2}
    assert "on_job_update" in caplog.text


async def test_g21_event_handlers_are_called_in_order_after_the_hook_and_one_that_raises_stops_none() -> None:
    called: list[str] = []

    class Worker(BaseWorker):
        async def on_job_update(self, message: BusJobUpdateMessage) -> None:
            called.append("hook")
            raise ValueError

    worker, performer = Worker("worker"), Performer()

    @worker.event_handler("on_job_update")
    def first(_worker: BaseWorker, message: BusJobUpdateMessage) -> None:
        called.append("first")
        raise ValueError

    @worker.event_handler("on_job_update")
    async def second(_worker: BaseWorker, message: BusJobUpdateMessage) -> None:
        called.append("second")

    async with running(worker, performer):
        assert await worker.job("performer", name="events", payload=2) == {"sent": 2}
        await anyio.wait_all_tasks_blocked()
    assert called == ["hook", "first", "second"] * 2


# --- G22: jobs awaited inside hooks and handlers ---


async def test_g22_a_job_is_awaited_inside_a_hook_while_other_hooks_wait() -> None:
    answers: list[Any] = []

    class Worker(BaseWorker):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                answers.append(await self.job("performer", name="echo", payload=message.text))

        async def on_job_response(self, message: BusJobResponseMessage) -> None:
            answers.append("hook")

    worker, performer = Worker("worker"), Performer()
    async with running(worker, performer):
        for text in "ab":
            await performer.send_bus_message(Note(source="performer", target="worker", text=text))
        await anyio.wait_all_tasks_blocked()
    assert answers == [{"echo": "a"}, {"echo": "b"}, "hook", "hook"]


async def test_g22_a_job_is_awaited_inside_a_hook_from_the_worker_itself() -> None:
    class Worker(Performer):
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


# --- G23: inactive workers ---


async def test_g23_jobs_and_data_messages_wait_for_an_inactive_worker_in_the_order_sent() -> None:
    heard: list[str] = []

    class Worker(Performer):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            heard.append(f"activated {args}")

        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                heard.append(message.text)

        @subscribe("news")
        async def news(self, data: Any) -> None:
            heard.append(data)

    worker, client = Worker("worker", active=False), BaseWorker("client")
    async with running(worker, client):
        first = await client.create_job_group_and_request_job(["worker"], name="echo", payload=1)
        await client.send_bus_message(Note(source="client", target="worker", text="one"))
        await client.publish("news", "two")
        await client.send_bus_message(Note(source="client", target="worker", text="three"))
        second = await client.create_job_group_and_request_job(["worker"], name="echo", payload=2)
        await anyio.wait_all_tasks_blocked()
        assert not heard
        assert not worker.started
        assert list(worker.active_jobs) == [first.job_id, second.job_id]
        await client.activate_worker("worker", args=WorkerActivationArgs(metadata={"by": "client"}))
        await first.wait()
        await second.wait()
        await anyio.wait_all_tasks_blocked()
        assert sorted(worker.started) == sorted([first.job_id, second.job_id])
        assert heard == ["activated {'metadata': {'by': 'client'}}", "one", "two", "three"]


async def test_g23_what_is_sent_after_a_deactivation_waits_even_if_a_hook_holds_up_the_news() -> None:
    worker, client = Blocked("worker"), BaseWorker("client")
    async with running(worker, client):
        await worker.block(client)
        await client.send_bus_message(Note(source="client", target="worker", text="before"))
        await client.deactivate_worker("worker")
        await client.send_bus_message(Note(source="client", target="worker", text="after"))
        group = await client.create_job_group_and_request_job(["worker"], name="echo")
        await anyio.wait_all_tasks_blocked()
        assert not group.is_done
        worker.let_go.set()
        await anyio.wait_all_tasks_blocked()
        assert worker.heard == ["blocking", "before"]
        assert not group.is_done
        await client.activate_worker("worker")
        await group.wait()
        await anyio.wait_all_tasks_blocked()
        assert worker.heard == ["blocking", "before", "after"]


async def test_g23_a_job_asked_right_after_a_deactivation_waits_and_one_right_after_an_activation_runs() -> None:
    worker, client = Performer("worker"), BaseWorker("client")
    async with running(worker, client):
        await client.deactivate_worker("worker")
        group = await client.create_job_group_and_request_job(["worker"], name="echo")
        await anyio.wait_all_tasks_blocked()
        assert not worker.started
        await client.activate_worker("worker")
        await client.deactivate_worker("worker")
        await client.activate_worker("worker")
        await group.wait()
        assert await client.job("worker", name="echo", payload=1) == {"echo": 1}


async def test_g23_everything_about_jobs_that_run_still_reaches_an_inactive_worker() -> None:
    seen: list[str] = []

    class Worker(Performer):
        async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
            seen.append("update requested")
            await self.send_job_update(message.job_id, "here")

        async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
            seen.append("cancelled")

        async def on_job_update(self, message: BusJobUpdateMessage) -> None:
            seen.append(f"update {message.update}")

        async def on_job_completed(self, result: Any) -> None:
            seen.append("completed")

    worker, client = Worker("worker"), Performer("client")
    async with running(worker, client):
        cancelled = await client.request_job("worker", name="hold")
        async with client.job("worker", name="hold") as asked:
            await anyio.wait_all_tasks_blocked()
            await client.deactivate_worker("worker")
            await client.request_job_update(asked.job_id, "worker")
            event = await anext(asked)
            assert event.data == "here"
            mine = await worker.create_job_group_and_request_job(["client"], name="events", payload=2)
            await mine.wait()
            async with worker.job("client", name="stream", payload=600) as chunks:
                assert [chunk.data async for chunk in chunks if chunk.type == "stream_data"] == list(range(600))
            await client.cancel_job_group(cancelled)
            await anyio.wait_all_tasks_blocked()
            assert seen == ["update requested", "update 0", "update 1", "completed", "completed", "cancelled"]
            worker.gate.set()
        assert asked.response == {"waited": None}
        await client.activate_worker("worker")


@pytest.mark.parametrize("kind", [BusEndWorkerMessage, BusCancelWorkerMessage])
async def test_g23_an_inactive_worker_ends_when_told(kind: type[BusMessage]) -> None:
    worker, client = Performer("worker", active=False), BaseWorker("client")
    async with running(worker, client):
        group = await client.create_job_group_and_request_job(["worker"], name="echo")
        await client.send_bus_message(kind(source="client", target="worker"))
        with anyio.fail_after(30):
            await worker.wait()
        await client.cancel_job_group(group.job_id)


@virtual_time()
@pytest.mark.parametrize("when", ["before", "pending", "unregistered"])
async def test_g23_g5_a_job_waits_for_an_inactive_worker_no_longer_than_ready_timeout(when: str) -> None:
    worker, client = Performer("worker", active=when == "pending"), BaseWorker("client")
    async with running(*([client] if when == "unregistered" else [worker, client]), ready_timeout=3.0) as runner:
        start = anyio.current_time()
        if when == "pending":  # accepted while active, still waiting for its turn when that ends
            first = await client.create_job_group_and_request_job(["worker"], name="one_by_one")
            group = await client.create_job_group_and_request_job(["worker"], name="one_by_one")
            await anyio.wait_all_tasks_blocked()
            await client.deactivate_worker("worker")
            worker.gate.set()
            await first.wait()
        else:
            group = await client.create_job_group_and_request_job(["worker"], name="echo")
            if when == "unregistered":  # parked first, then given to a worker that is not active
                await anyio.sleep(1)
                await runner.add_workers(worker)
        with pytest.raises(JobError) as raised:
            await group.wait()
        assert raised.value.status is JobStatus.FAILED
        assert raised.value.error is not None
        assert raised.value.error.type == "WorkerUnavailableError"
        assert 3.0 <= anyio.current_time() - start <= 4.1
        assert not worker.active_jobs
        with pytest.raises(WorkerUnavailableError):
            await client.job("worker", name="echo")


@virtual_time()
async def test_g23_a_job_that_waits_for_its_turn_is_not_failed_for_a_pause_that_is_over() -> None:
    worker, client = Performer("worker"), BaseWorker("client")
    async with running(worker, client, ready_timeout=3.0):
        first = await client.create_job_group_and_request_job(["worker"], name="one_by_one")
        second = await client.create_job_group_and_request_job(["worker"], name="one_by_one")
        await client.deactivate_worker("worker")
        await anyio.sleep(2)
        await client.activate_worker("worker")
        await anyio.sleep(10)
        assert not second.is_done
        worker.gate.set()
        await first.wait()
        await second.wait()


@virtual_time()
async def test_g23_g6_the_deadline_of_a_job_that_waits_for_an_inactive_worker_counts_if_it_is_earlier() -> None:
    worker, client = Performer("worker", active=False), BaseWorker("client")
    async with running(worker, client, ready_timeout=3.0):
        start = anyio.current_time()
        with pytest.raises(TimeoutError):
            await client.job("worker", name="echo", timeout=1.5)
        assert anyio.current_time() - start == pytest.approx(1.5)
        assert not worker.active_jobs


async def test_g23_workers_that_hand_over_are_never_active_together() -> None:
    class Worker(Performer):
        other: BaseWorker

        async def on_activated(self, args: dict[str, Any] | None) -> None:
            assert not self.other.active

    a, b = Worker("a"), Worker("b", active=False)
    a.other, b.other = b, a
    async with running(a, b, client := BaseWorker("client")) as runner:
        failed: list[WorkerErrorData] = []
        runner.add_event_handler("on_error", lambda _runner, data: failed.append(data))
        for giver, taker in ((a, b), (b, a), (a, b)):
            assert giver.active
            await giver.activate_worker(taker.name, deactivate_self=True)
            assert (giver.active, taker.active) == (False, True)
            await client.job(taker.name, name="echo")
        await anyio.wait_all_tasks_blocked()
        assert not failed


async def test_g23_activation_messages_sent_by_hand_work_as_well() -> None:
    worker, client = Performer("worker", active=False), BaseWorker("client")
    async with running(worker, client):
        await client.send_bus_message(BusActivateWorkerMessage(source="client", target="worker", args={"metadata": {}}))
        states = [(worker.active, worker.activation_args)]
        await client.send_bus_message(BusDeactivateWorkerMessage(source="client", target="worker"))
        states.append((worker.active, worker.activation_args))
        assert states == [(True, {"metadata": {}}), (False, None)]


@pytest.mark.parametrize("name", ["wait", "start", "job", "on_bus_message"])
def test_g22_a_handler_that_would_replace_a_method_of_the_machinery_is_refused_where_it_is_defined(name: str) -> None:
    async def handler(self: BaseWorker, message: BusJobRequestMessage) -> None:
        pass

    handler.__name__ = name
    with pytest.raises(HandlerError, match=f"BaseWorker.{name}"):
        type("Worker", (BaseWorker,), {name: job(name="work")(handler)})
