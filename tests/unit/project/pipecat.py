"""Workers written as for Pipecat, with its names and its ways of answering."""

from __future__ import annotations

import math
from typing import Any

import anyio

from actors import BaseWorker, JobGroupResponse, JobStatus
from bus import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    WorkerErrorData,
    WorkerReadyData,
)


class Parent(BaseWorker):
    """Overrides hooks, calls super in each, and keeps what it is told."""

    def __init__(self, name: str = "parent", **options: Any) -> None:
        super().__init__(name, **options)
        self.heard: list[tuple[str, Any]] = []

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await super().on_activated(args)
        self.heard.append(("activated", args))

    async def on_deactivated(self) -> None:
        await super().on_deactivated()
        self.heard.append(("deactivated", None))

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        await super().on_worker_ready(data)
        self.heard.append(("ready", data.worker_name))

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        await super().on_worker_failed(data)
        self.heard.append(("failed", (data.worker_name, data.error)))

    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        await super().on_job_response(message)
        self.heard.append(("response", (message.source, message.response, message.status)))

    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        await super().on_job_update(message)
        self.heard.append(("update", (message.source, message.update)))

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        await super().on_job_completed(result)
        self.heard.append(("completed", result.responses))

    async def on_job_error(self, message: BusJobResponseMessage) -> None:
        await super().on_job_error(message)
        self.heard.append(("error", (message.source, message.status)))

    async def on_job_stream_start(self, message: BusJobStreamStartMessage) -> None:
        await super().on_job_stream_start(message)
        self.heard.append(("start", message.data))

    async def on_job_stream_data(self, message: BusJobStreamDataMessage) -> None:
        await super().on_job_stream_data(message)
        self.heard.append(("data", message.data))

    async def on_job_stream_end(self, message: BusJobStreamEndMessage) -> None:
        await super().on_job_stream_end(message)
        self.heard.append(("end", message.data))

    def told(self, hook: str) -> list[Any]:
        return [value for name, value in self.heard if name == hook]


class Answering(BaseWorker):
    """Answers each request itself, from an overridden `on_job_request`."""

    def __init__(
        self, name: str, *, response: dict[str, Any] | None = None, status: JobStatus = JobStatus.COMPLETED
    ) -> None:
        super().__init__(name)
        self.response = response
        self.status = status

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        await super().on_job_request(message)
        await self.send_job_update(message.job_id, {"progress": 50})
        await self.send_job_response(message.job_id, self.response, status=self.status)


class Streaming(BaseWorker):
    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        await self.send_job_stream_start(message.job_id, {"content_type": "text"})
        for word in message.payload["text"].split():
            await self.send_job_stream_data(message.job_id, {"word": word})
        await self.send_job_stream_end(message.job_id, {"done": True})


class Queueing(BaseWorker):
    """Puts requests into a queue that a background task of its own serves."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.task: Any = None
        self.closed = 0

    async def start(self) -> None:
        self.put, self.get = anyio.create_memory_object_stream[BusJobRequestMessage](math.inf)
        await super().start()
        self.task = self.create_task(self.loop(), "loop")

    async def stop(self) -> None:
        if self.task:
            await self.cancel_task(self.task)
            self.task = None
        self.put.close()
        self.get.close()
        await super().stop()

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        await super().on_job_request(message)
        self.put.send_nowait(message)

    async def loop(self) -> None:
        try:
            async for message in self.get:
                try:
                    answer = {"length": len(message.payload["question"])}
                    await self.send_job_response(message.job_id, answer)
                except Exception as error:  # noqa: BLE001 - as such programs do
                    await self.send_job_response(message.job_id, {"error": str(error)}, status=JobStatus.ERROR)
        finally:
            self.closed += 1


class Waiting(BaseWorker):
    """Never answers by itself."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cancelled: list[Any] = []

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.append("handler")

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        await super().on_job_cancelled(message)
        self.cancelled.append(message.reason)

    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        await super().on_job_update_requested(message)
        await self.send_job_update(message.job_id, {"still": "working"}, urgent=True)
