"""A hook or an event handler that raises stops nothing but itself: G21."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, JobError, job, subscribe, worker_ready
from bus import (
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
from tests.support.messages import Note
from tests.support.running import running
from tests.support.workers import AllRounder

pytestmark = pytest.mark.anyio


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
    worker, performer = Sensitive(error), AllRounder()
    async with running(worker, performer) as runner:
        reported: list[WorkerErrorData] = []
        runner.add_event_handler("on_error", lambda _runner, data: reported.append(data))
        await worker.watch_workers("performer")
        assert await worker.job("performer", name="events", payload=300) == {"sent": 300}
        assert await worker.job("performer", name="stream", payload=300) is None
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

    worker, performer = Worker("worker"), AllRounder()

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
