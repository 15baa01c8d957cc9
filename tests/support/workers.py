"""The workers that several tests use: who does jobs and how, who asks for them, who fails, and whose children fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio

from actors import BaseWorker, Job, JobError, WorkerRunner, job
from bus import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    WorkerErrorData,
    WorkerLostData,
    WorkerReadyData,
)
from tests.support.messages import Alarm, Note


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
    async def work(self, message: Any) -> str:
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


class Producer(BaseWorker):
    """Streams as fast as it may, and counts what it has sent."""

    def __init__(self, name: str = "producer") -> None:
        super().__init__(name)
        self.sent = 0
        self.stopped: list[str] = []

    @job(name="stream")
    async def streams(self, job: Job[int]) -> Any:
        try:
            for number in range(job.payload):
                yield number
                self.sent = number + 1
        finally:
            self.stopped.append(job.id)

    @job
    async def updates(self, job: Job[int]) -> Any:
        for number in range(job.payload):
            await job.update(number, urgent=number % 7 == 0)
            self.sent = number + 1
        return {"sent": job.payload}


class Patient(BaseWorker):
    """Its handlers run until they are cancelled, and it notes which began and which were cancelled."""

    max_concurrency = 3
    mailbox_size = 1

    def __init__(self, name: str = "patient") -> None:
        super().__init__(name)
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.told: list[str] = []

    @job
    async def hold(self, job: Job[Any]) -> None:
        self.begun.append(job.id)
        await job.update("begun")
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.append(job.id)

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        self.told.append(message.job_id)


class Silent(BaseWorker):
    """Takes jobs and never answers them."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.requests: list[str] = []
        self.cancelled: list[str | None] = []

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        self.requests.append(message.job_id)

    async def on_job_cancelled(self, message: Any) -> None:
        self.cancelled.append(message.job_id)


class Hanging(BaseWorker):
    """Its handlers wait for ever; what ended them is kept."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.began = anyio.Event()
        self.ended: list[str] = []

    @job(name="hang")
    async def hang(self, message: Any) -> None:
        self.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.ended.append(message.job_id)

    @job(name="limited", timeout=0.02)
    async def limited(self, message: Any) -> None:
        await self.hang(message)

    @job(name="stubborn", timeout=0.02)
    async def stubborn(self, message: Any) -> None:
        released = anyio.Event()
        self.release = released.set
        with anyio.CancelScope(shield=True):
            await released.wait()
        self.ended.append(message.job_id)


class AllRounder(BaseWorker):
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

    @job(name="stream")
    async def streams(self, job: Job[int]) -> Any:
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


class Boss(BaseWorker):
    """Keeps the answers that come to its hook."""

    def __init__(self, name: str = "boss") -> None:
        super().__init__(name)
        self.responses: list[BusJobResponseMessage] = []

    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        self.responses.append(message)
