"""What is sent to an inactive worker waits until it is active, within its limits: G23."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import (
    BaseWorker,
    HandlerError,
    JobError,
    JobStatus,
    WorkerActivationArgs,
    WorkerUnavailableError,
    job,
    subscribe,
)
from bus import (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
    WorkerErrorData,
)
from tests.support.messages import Note
from tests.support.running import running
from tests.support.virtual_time import virtual_time
from tests.support.workers import AllRounder, Blocked

pytestmark = pytest.mark.anyio


async def test_g23_jobs_and_data_messages_wait_for_an_inactive_worker_in_the_order_sent() -> None:
    heard: list[str] = []

    class Worker(AllRounder):
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
    worker, client = AllRounder("worker"), BaseWorker("client")
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

    class Worker(AllRounder):
        async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
            seen.append("update requested")
            await self.send_job_update(message.job_id, "here")

        async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
            seen.append("cancelled")

        async def on_job_update(self, message: BusJobUpdateMessage) -> None:
            seen.append(f"update {message.update}")

        async def on_job_completed(self, result: Any) -> None:
            seen.append("completed")

    worker, client = Worker("worker"), AllRounder("client")
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
    worker, client = AllRounder("worker", active=False), BaseWorker("client")
    async with running(worker, client):
        group = await client.create_job_group_and_request_job(["worker"], name="echo")
        await client.send_bus_message(kind(source="client", target="worker"))
        with anyio.fail_after(30):
            await worker.wait()
        await client.cancel_job_group(group.job_id)


@virtual_time()
@pytest.mark.parametrize("when", ["before", "pending", "unregistered"])
async def test_g23_g5_a_job_waits_for_an_inactive_worker_no_longer_than_ready_timeout(when: str) -> None:
    worker, client = AllRounder("worker", active=when == "pending"), BaseWorker("client")
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
    worker, client = AllRounder("worker"), BaseWorker("client")
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
    worker, client = AllRounder("worker", active=False), BaseWorker("client")
    async with running(worker, client, ready_timeout=3.0):
        start = anyio.current_time()
        with pytest.raises(TimeoutError):
            await client.job("worker", name="echo", timeout=1.5)
        assert anyio.current_time() - start == pytest.approx(1.5)
        assert not worker.active_jobs


async def test_g23_workers_that_hand_over_are_never_active_together() -> None:
    class Worker(AllRounder):
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
    worker, client = AllRounder("worker", active=False), BaseWorker("client")
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
