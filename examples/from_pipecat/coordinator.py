"""A coordinator that makes its messages by hand: `python -m examples.from_pipecat.coordinator`."""

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or os.environ.get("LIBRARY") != "pipecat":
    from actors import BaseWorker, JobStatus, WorkerActivationArgs, WorkerRunner, job
    from bus import (
        BusActivateWorkerMessage,
        BusDataMessage,
        BusEndMessage,
        BusJobCancelMessage,
        BusJobRequestMessage,
        BusJobResponseMessage,
        BusJobStreamDataMessage,
        BusJobStreamEndMessage,
        BusJobStreamStartMessage,
        BusJobUpdateMessage,
        BusJobUpdateRequestMessage,
        BusMessage,
    )
else:
    from pipecat.bus import (
        BusActivateWorkerMessage,
        BusDataMessage,
        BusEndMessage,
        BusJobCancelMessage,
        BusJobRequestMessage,
        BusJobResponseMessage,
        BusJobStreamDataMessage,
        BusJobStreamEndMessage,
        BusJobStreamStartMessage,
        BusJobUpdateMessage,
        BusJobUpdateRequestMessage,
        BusMessage,
    )
    from pipecat.pipeline.job_context import JobStatus
    from pipecat.pipeline.job_decorator import job
    from pipecat.workers.base_worker import BaseWorker, WorkerActivationArgs
    from pipecat.workers.runner import WorkerRunner


@dataclass(kw_only=True)
class ShiftStartedMessage(BusDataMessage):
    """A message of the program's own."""

    shift: str


class Press(BaseWorker):
    """Does what it is asked for, once it has been activated."""

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await super().on_activated(args)
        await self.send_bus_message(ShiftStartedMessage(source=self.name, shift=(args or {})["metadata"]["shift"]))

    @job(name="print")
    async def on_print(self, message: BusJobRequestMessage) -> None:
        pages = message.payload["pages"]
        await self.send_job_update(message.job_id, {"pages": pages})
        await self.send_job_stream_start(message.job_id)
        for page in range(pages):
            await self.send_job_stream_data(message.job_id, {"page": page})
        await self.send_job_stream_end(message.job_id, {"printed": pages})

    @job(name="bind", sequential=True)
    async def on_bind(self, message: BusJobRequestMessage) -> None:
        await self.send_job_response(message.job_id, {"reason": "no thread"}, status=JobStatus.FAILED, urgent=True)

    @job(name="wait")
    async def on_wait(self, message: BusJobRequestMessage) -> None:
        await asyncio.sleep(message.payload["seconds"])

    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        await super().on_job_update_requested(message)
        await self.send_job_update(message.job_id, {"waits": True})


class Coordinator(BaseWorker):
    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await super().on_activated(args)
        await self.watch_workers("press")

    async def on_worker_ready(self, data: Any) -> None:
        args = WorkerActivationArgs(metadata={"shift": "late"}).to_dict()
        await self.send_bus_message(BusActivateWorkerMessage(source=self.name, target=data.worker_name, args=args))

    async def on_bus_message(self, message: BusMessage) -> None:
        await super().on_bus_message(message)
        if isinstance(message, ShiftStartedMessage):
            print(f"{message.source} starts the {message.shift} shift")
            await self._ask("job-1", "print", {"pages": 2})

    async def _ask(self, job_id: str, name: str, payload: dict[str, Any] | None = None) -> None:
        await self.send_bus_message(
            BusJobRequestMessage(source=self.name, target="press", job_id=job_id, job_name=name, payload=payload)
        )

    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        await super().on_job_update(message)
        print(f"{message.job_id}: update {message.update}")
        if message.job_id == "job-3":
            await self.send_bus_message(
                BusJobCancelMessage(source=self.name, target="press", job_id="job-3", reason="closing time")
            )

    async def on_job_stream_start(self, message: BusJobStreamStartMessage) -> None:
        await super().on_job_stream_start(message)
        print(f"{message.job_id}: start {message.data}")

    async def on_job_stream_data(self, message: BusJobStreamDataMessage) -> None:
        await super().on_job_stream_data(message)
        print(f"{message.job_id}: data {message.data}")

    async def on_job_stream_end(self, message: BusJobStreamEndMessage) -> None:
        await super().on_job_stream_end(message)
        print(f"{message.job_id}: end {message.data}")
        await self._ask("job-2", "bind")

    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        await super().on_job_response(message)
        print(f"{message.job_id}: {message.status} {message.response}")
        if message.job_id == "job-2":
            await self._ask("job-3", "wait", {"seconds": 3600})
            await self.send_bus_message(BusJobUpdateRequestMessage(source=self.name, target="press", job_id="job-3"))
        else:
            await self.send_bus_message(BusEndMessage(source=self.name, reason="closing time"))


async def main() -> None:
    runner = WorkerRunner()
    await runner.add_workers(Press("press", active=False), Coordinator("coordinator"))
    await runner.run()


if __name__ == "__main__":
    asyncio.run(main())
