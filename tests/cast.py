"""The workers that several tests use: one that performs jobs, and one that asks for them."""

from __future__ import annotations

from typing import Any

import anyio

from actors import BaseWorker, JobError, WorkerRunner, job
from bus import WorkerLostData


def quiet(name: str | None = None, **options: Any) -> WorkerRunner:
    return WorkerRunner(name, handle_sigint=False, handle_sigterm=False, **options)


class Performer(BaseWorker):
    """Its jobs go on until they are let go."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.gate = anyio.Event()
        self.begun: list[str] = []

    @job(name="echo")
    async def echo(self, message: Any) -> Any:
        return message.payload

    @job(name="work")
    async def work(self, message: Any) -> str:
        self.begun.append(message.job_id)
        await self.gate.wait()
        return f"done by {self.name}"

    @job(name="one", sequential=True)
    async def one(self, message: Any) -> str:
        return await self.work(message)

    @job(name="delegate")
    async def delegate(self, message: Any) -> Any:
        await self.work(message)
        return await self.job(message.payload, name="echo", payload="from the sub-job")


class Asker(BaseWorker):
    """Asks, and keeps how it went."""

    def __init__(self, name: str = "asker") -> None:
        super().__init__(name)
        self.outcomes: dict[str, Any] = {}
        self.lost: list[WorkerLostData] = []

    async def ask(self, worker_name: str, job_name: str = "work", job_id: str = "j", payload: Any = None) -> None:
        try:
            self.outcomes[job_id] = await self.job(worker_name, name=job_name, job_id=job_id, payload=payload)
        except JobError as error:
            self.outcomes[job_id] = error

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        self.lost.append(data)
