"""A hand-over between two processes that share a channel of a Redis server, and end together.

In two terminals, in whichever order, with the URL of a server:
`python -m examples.from_pipecat.hand_over host redis://localhost:6379` and the same with `expert`.
"""

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

if TYPE_CHECKING or os.environ.get("LIBRARY") != "pipecat":
    from actors import BaseWorker, JobParams, WorkerActivationArgs, WorkerRunner, job
    from bus import BusJobRequestMessage, RedisBus, WorkerReadyData
else:
    from pipecat.bus import BusJobRequestMessage
    from pipecat.bus.network.redis import RedisBus
    from pipecat.pipeline.job_context import JobParams
    from pipecat.pipeline.job_decorator import job
    from pipecat.registry.types import WorkerReadyData
    from pipecat.workers.base_worker import BaseWorker, WorkerActivationArgs
    from pipecat.workers.runner import WorkerRunner


class Host(BaseWorker):
    """Greets, hands over to the expert, and answers what the expert wants to know."""

    async def start(self) -> None:
        await super().start()
        await self.watch_workers("expert")

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        await super().on_worker_ready(data)
        print(f"host: {data.worker_name} is there", flush=True)
        args = WorkerActivationArgs(metadata={"guest": "Ada", "asks for": "a map of the coast"})
        await self.activate_worker(data.worker_name, args=args)

    @job(name="remember")
    async def on_remember(self, message: BusJobRequestMessage) -> None:
        print(f"host: asked for {message.payload}", flush=True)
        await self.send_job_update(message.job_id, {"text": "let me think"})
        await self.send_job_response(message.job_id, {"last visit": "in May"})


class Expert(BaseWorker):
    """Takes over when activated, asks the host for one thing, and ends both processes."""

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await super().on_activated(args)
        print(f"expert: takes over, {args}", flush=True)
        self.create_task(self._serve((args or {})["metadata"]["guest"]), "serve")

    async def _serve(self, guest: str) -> None:
        async with self.job("host", params=JobParams(name="remember", payload={"guest": guest}, timeout=10)) as job:
            async for event in job:
                print(f"expert: {event.type} {event.data}", flush=True)
        print(f"expert: {job.response}", flush=True)
        await self.end(reason=f"{guest} is served")


async def main(role: str, url: str, channel: str = "example:hand-over") -> None:
    redis = Redis.from_url(url)
    runner = WorkerRunner(bus=RedisBus(redis=redis, channel=channel), handle_sigint=True)
    await runner.add_workers(Host("host") if role == "host" else Expert("expert", active=False))
    await runner.run()
    await redis.aclose()
    print(f"{role}: the end", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
