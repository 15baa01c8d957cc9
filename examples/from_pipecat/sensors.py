"""Sensors whose jobs are served by event handlers alone: `python -m examples.from_pipecat.sensors`."""

import asyncio
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or os.environ.get("LIBRARY") != "pipecat":
    from actors import BaseWorker, JobError, JobGroupParams, JobParams, JobStatus, WorkerRunner
    from bus import BusJobCancelMessage, BusJobRequestMessage, BusJobUpdateRequestMessage, WorkerReadyData
else:
    from pipecat.bus import BusJobCancelMessage, BusJobRequestMessage, BusJobUpdateRequestMessage
    from pipecat.pipeline.job_context import JobError, JobGroupParams, JobParams, JobStatus
    from pipecat.registry.types import WorkerReadyData
    from pipecat.workers.base_worker import BaseWorker
    from pipecat.workers.runner import WorkerRunner

READINGS = {"cellar": [12.0, 12.5], "kitchen": [21.0, 21.5, 22.0], "roof": []}


def sensor(name: str) -> BaseWorker:
    worker = BaseWorker(name, active=True)

    @worker.event_handler("on_job_request")
    async def on_job_request(worker: BaseWorker, message: BusJobRequestMessage) -> None:
        readings = READINGS[worker.name]
        if message.job_name == "watch":
            return  # answered when somebody cancels it
        if not readings:
            await worker.send_job_response(message.job_id, {"reason": "no reading"}, status=JobStatus.FAILED)
        elif message.job_name == "read":
            await worker.send_job_update(message.job_id, {"unit": message.payload["unit"]})
            await worker.send_job_response(message.job_id, {"degrees": readings[-1]})
        else:
            await worker.send_job_stream_start(message.job_id, {"readings": len(readings)})
            for degrees in readings:
                await worker.send_job_stream_data(message.job_id, {"degrees": degrees})
            await worker.send_job_stream_end(message.job_id, {"mean": sum(readings) / len(readings)})

    @worker.event_handler("on_job_update_requested")
    async def on_job_update_requested(worker: BaseWorker, message: BusJobUpdateRequestMessage) -> None:
        await worker.send_job_update(message.job_id, {"still": "watching"}, urgent=True)

    @worker.event_handler("on_job_cancelled")
    def on_job_cancelled(worker: BaseWorker, message: BusJobCancelMessage) -> None:
        print(f"{worker.name} stops watching: {message.reason}")

    return worker


class Controller(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._missing = set(READINGS)
        self._night = ""
        self.last: Any = None

    async def start(self) -> None:
        await super().start()
        await self.watch_workers(*READINGS)

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        await super().on_worker_ready(data)
        self._missing.discard(data.worker_name)
        if not self._missing:
            self.create_task(self._control(), "control")

    async def _control(self) -> None:
        params = JobGroupParams(name="read", payload={"unit": "C"}, timeout=5)
        async with self.job_group("cellar", "kitchen", params=params) as group:
            told = [(event.worker_name, event.data) async for event in group if event.type == "update"]
        print("units:", sorted(told))
        print("degrees:", sorted(group.responses.items()))
        async with self.job("kitchen", params=JobParams(name="history", timeout=5)) as job:
            async for event in job:
                print("kitchen:", event.type, event.data)
        print("history:", job.response)
        try:
            async with self.job("roof", params=JobParams(name="read", timeout=5)) as job:
                pass
        except JobError as error:
            print(f"roof: {type(error).__name__}, {job.response}")
        self._night = await self.request_job("cellar", params=JobParams(name="watch", label="all night"))
        await self.request_job_update(self._night, "cellar")

    async def on_job_update(self, message: Any) -> None:
        await super().on_job_update(message)
        if message.job_id == self._night:
            print(f"{message.source}: {message.update}")
            await self.cancel_job_group(self._night, reason="it is morning")

    async def on_job_response(self, message: Any) -> None:
        await super().on_job_response(message)
        if message.status == JobStatus.CANCELLED:
            self.last = message
            await self.end(reason="the night is over")


async def main() -> None:
    runner = WorkerRunner()
    controller = Controller("controller")
    await runner.add_workers(controller, *map(sensor, READINGS))
    await runner.run()
    print(f"{controller.last.source}: {controller.last.status}, {controller.last.response}")


if __name__ == "__main__":
    asyncio.run(main())
