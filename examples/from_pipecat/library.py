"""Hooks that call super, watched workers, jobs and groups: `python -m examples.from_pipecat.library`."""

import asyncio
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or os.environ.get("LIBRARY") != "pipecat":
    from actors import BaseWorker, JobGroupParams, JobGroupResponse, JobParams, JobStatus, WorkerRunner
    from bus import BusJobRequestMessage, BusJobUpdateMessage, WorkerReadyData
else:
    from pipecat.bus import BusJobRequestMessage, BusJobUpdateMessage
    from pipecat.pipeline.job_context import JobGroupParams, JobGroupResponse, JobParams, JobStatus
    from pipecat.registry.types import WorkerReadyData
    from pipecat.workers.base_worker import BaseWorker
    from pipecat.workers.runner import WorkerRunner

SHELVES = {"atlas": "rivers, mountains", "almanac": "tides, rivers"}


class Shelf(BaseWorker):
    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        await super().on_job_request(message)
        word = message.payload["word"]
        await self.send_job_update(message.job_id, {"text": f"searching for {word}"})
        await asyncio.sleep(0.01)
        if word in SHELVES[self.name]:
            await self.send_job_response(message.job_id, {"found": SHELVES[self.name]})
        else:
            await self.send_job_response(message.job_id, {"error": f"no {word}"}, status=JobStatus.FAILED)


class Librarian(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._ready: list[str] = []
        self._last_job = ""

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await super().on_activated(args)
        await self.watch_workers(*SHELVES)

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        print(f"{data.worker_name} is ready")
        self._ready.append(data.worker_name)
        if len(self._ready) == len(SHELVES):
            self.create_task(self._search(), "search")

    async def _search(self) -> None:
        async with self.job("atlas", params=JobParams(payload={"word": "mountains"}, timeout=5)) as job:
            pass
        print(f"atlas: {job.response}")
        params = JobGroupParams(payload={"word": "tides"}, timeout=5, cancel_on_error=False)
        async with self.job_group(*SHELVES, params=params) as group:
            pass
        print(f"both: {group.responses}")
        params = JobGroupParams(payload={"word": "rivers"}, label="the last one")
        self._last_job = await self.request_job_group(*SHELVES, params=params)

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        await super().on_job_completed(result)
        if result.job_id == self._last_job:
            print(f"the last one: {result.responses}")
            await self.end(reason="nothing more to search for")


async def main() -> None:
    runner = WorkerRunner(handle_sigint=True)
    librarian = Librarian("librarian")

    @librarian.event_handler("on_job_update")
    async def on_job_update(_worker: Librarian, message: BusJobUpdateMessage) -> None:
        print(f"{message.source}: {message.update['text']}")

    await runner.add_workers(*(Shelf(name) for name in SHELVES), librarian)
    await runner.run()


if __name__ == "__main__":
    asyncio.run(main())
