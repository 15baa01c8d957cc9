"""The workers that several tests use: who performs jobs, who asks for them, who fails, and whose children fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio

from actors import BaseWorker, Job, JobError, WorkerRunner, job
from bus import BusJobRequestMessage, WorkerErrorData, WorkerLostData, WorkerReadyData


def quiet(name: str | None = None, **options: Any) -> WorkerRunner:
    return WorkerRunner(name, handle_sigint=False, handle_sigterm=False, **options)


class Performer(BaseWorker):
    """Its jobs go on until they are let go."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.gate = anyio.Event()
        self.begun: list[str] = []

    @job(name="echo")
    async def echo(self, payload: Any) -> Any:
        return payload

    @job(name="work")
    async def work(self, message: BusJobRequestMessage) -> str:
        self.begun.append(message.job_id)
        await self.gate.wait()
        return f"done by {self.name}"

    @job(name="one", sequential=True)
    async def one(self, message: BusJobRequestMessage) -> str:
        return await self.work(message)

    @job(name="delegate")
    async def delegate(self, message: BusJobRequestMessage) -> Any:
        await self.work(message)
        return await self.job(message.payload, name="echo", payload="from the sub-job")


class Clerk(BaseWorker):
    """Its jobs need nothing else and are soon over."""

    @job
    async def echo(self, job: Job[Any]) -> Any:
        return job.payload

    @job
    async def count(self, job: Job[int]) -> AsyncIterator[int]:
        for number in range(job.payload):
            yield number

    @job
    async def refuse(self, job: Job[str]) -> None:
        raise ValueError(job.payload)


class Desk(Clerk):
    """One of its jobs goes on until it is let go, and tells when it begins and stops."""

    def __init__(self, name: str = "desk") -> None:
        super().__init__(name)
        self.begun = anyio.Event()
        self.stopped = anyio.Event()
        self.open = anyio.Event()

    @job
    async def hold(self) -> str:
        self.begun.set()
        try:
            await self.open.wait()
        finally:
            self.stopped.set()
        return "held"


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


class Team:
    """Makes children and notes what happens to them, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.made: dict[str, list[Child]] = {}
        self.times: list[float] = []

    def factory(self, name: str, *, dies_after: float | None = None, in_start: bool = False) -> Any:
        def make() -> Child:
            child = Child(name, self, dies_after, in_start=in_start)
            self.made.setdefault(name, []).append(child)
            self.log.append(f"make {name}")
            return child

        return make

    def now(self, name: str) -> Child:
        return self.made[name][-1]

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(made) for name, made in self.made.items()}


class Child(BaseWorker):
    """Fails when it is told to, or after a time."""

    def __init__(self, name: str, team: Team, dies_after: float | None, *, in_start: bool) -> None:
        super().__init__(name)
        self.team = team
        self.fate = anyio.Event()
        self.gate = anyio.Event()
        self.begun: list[str] = []
        self._dies_after = dies_after
        self._in_start = in_start

    async def start(self) -> None:
        self.team.times.append(anyio.current_time())
        if self._in_start:
            raise ValueError(f"{self.name} cannot start")
        await super().start()

    async def run(self, params: Any) -> None:
        await self.start()
        if self._dies_after is not None:
            await anyio.sleep(self._dies_after)
        else:
            await self.fate.wait()
        raise ValueError(f"{self.name} failed")

    async def stop(self) -> None:
        self.team.log.append(f"stop {self.name}")
        await super().stop()

    @job(name="work", sequential=True)
    async def work(self, message: BusJobRequestMessage) -> str:
        self.begun.append(message.job_id)
        await self.gate.wait()
        return "done"


class Parent(BaseWorker):
    """Keeps what it is told about its children."""

    def __init__(self, name: str = "parent") -> None:
        super().__init__(name)
        self.failed: list[WorkerErrorData] = []
        self.seen: list[str] = []

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        self.failed.append(data)

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        self.seen.append(f"{data.worker_name} up")

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        self.seen.append(f"{data.worker_name} lost")
