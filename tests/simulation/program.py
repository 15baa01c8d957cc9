"""Random programs of actors: plans of nested jobs, groups, streams, cancellations and crashes, all from one seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import anyio
import msgspec
from anyio import get_cancelled_exc_class

from actors import BaseWorker, Job, JobGroupContext, JobGroupError, JobGroupResponse, JobStatus, job
from actors.testing import Faults, Simulation
from actors.testing.history import Happening
from bus import BusJobRequestMessage, BusJobResponseMessage

NAMES = ("w0", "w1", "w2", "w3")
RUNNERS = ("r0", "r1", "r2")


class Step(msgspec.Struct, frozen=True):
    """One thing a handler or a requester does."""

    do: str
    seconds: float = 0.0
    count: int = 0
    ask: Ask | None = None


class Ask(msgspec.Struct, frozen=True):
    """One job or group to ask for, and what its handlers do."""

    workers: tuple[str, ...]
    how: str
    plan: tuple[Step, ...]
    timeout: float | None = None
    cancel_on_error: bool = True
    cancel_after: float | None = None
    reads_after: float = 0.0
    reads: bool = True


class Scenario(msgspec.Struct, frozen=True):
    """A whole run: who lives where, who asks for what and when, and what goes wrong."""

    homes: dict[str, tuple[str, ...]]
    asks: dict[str, tuple[tuple[float, Ask], ...]]
    chaos: tuple[tuple[float, str, str], ...]
    faults: Faults

    @property
    def harmless(self) -> bool:
        """Whether nothing in it excuses a second execution or a job that is not done."""
        return not self.chaos and not self.faults.drop


def make_scenario(seed: int) -> Scenario:
    """Draw a scenario; the same seed draws the same one."""
    rng = Random(seed)
    homes = {name: tuple(rng.sample(RUNNERS, rng.choice((1, 1, 2)))) for name in NAMES}
    asks = {
        runner: tuple((round(rng.uniform(0, 30), 3), _draw_ask(rng, depth=0)) for _ in range(rng.randint(3, 8)))
        for runner in RUNNERS
    }
    chaos: list[tuple[float, str, str]] = []
    if rng.random() < 0.7:
        chaos += [
            (
                round(rng.uniform(1, 40), 3),
                rng.choice(("crash", "crash", "partition", "end", "remove", "sleep")),
                rng.choice(RUNNERS),
            )
            for _ in range(rng.randint(1, 5))
        ]
    noisy = rng.random() < 0.7
    faults = Faults(
        drop=rng.choice((0.0, 0.05, 0.3)) if noisy else 0.0,
        duplicate=rng.choice((0.0, 0.3)) if noisy else 0.0,
        reorder=rng.choice((0.0, 0.3)) if noisy else 0.0,
        delay=(0.0, rng.choice((0.0, 0.01, 0.5))),
        timeout=1.0,
    )
    return Scenario(homes, asks, tuple(sorted(chaos)), faults)


def _draw_ask(rng: Random, depth: int) -> Ask:
    workers = tuple(rng.sample(NAMES, rng.choice((1, 1, 1, 2, 3))))
    return Ask(
        workers=workers,
        how=rng.choice(("work", "work", "turn", "stream", "")),
        plan=tuple(_draw_step(rng, depth) for _ in range(rng.randint(0, 3))),
        timeout=rng.choice((None, None, 0.2, 3.0, 60.0)),
        cancel_on_error=rng.random() < 0.6,
        cancel_after=rng.choice((None, None, None, None, 0.0, 0.5, 4.0)),
        reads_after=rng.choice((0.0, 0.0, 0.0, 6.0)),
        reads=rng.random() < 0.8,
    )


def _draw_step(rng: Random, depth: int) -> Step:
    do = rng.choice(("sleep", "sleep", "update", "burst", "raise", "swallow", "ask", "sleep long"))
    if do == "ask" and depth < 2:
        return Step("ask", ask=_draw_ask(rng, depth + 1))
    if do == "raise" and rng.random() < 0.5:
        do = "update"
    seconds = {"sleep": rng.uniform(0, 2), "sleep long": rng.uniform(10, 25), "swallow": rng.uniform(0, 8)}.get(do, 0.0)
    return Step(do if do != "ask" else "update", seconds=round(seconds, 3), count=rng.choice((1, 5, 300)))


class Recorder:
    """The history of one run."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.lines: list[Happening] = []
        self.problems: list[str] = []
        self.told: Counter[tuple[str, str]] = Counter()

    def note(self, kind: Any, life: str, job_id: str = "", worker: str = "", **more: Any) -> None:
        """Write a line."""
        self.lines.append(Happening(kind, self.sim.now, life, job_id, worker, **more))


class Asker(BaseWorker):
    """Asks for what its plans say, and writes down what comes of it."""

    def __init__(self, name: str, recorder: Recorder) -> None:
        super().__init__(name)
        self.recorder = recorder

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        """Count: each group ends in one of these two hooks, once."""
        self.recorder.told[self.life, result.job_id] += 1

    async def on_job_error(self, message: BusJobResponseMessage) -> None:
        """Count."""
        self.recorder.told[self.life, message.job_id] += 1

    @property
    def life(self) -> str:
        """Which life of which runner this is."""
        return self.bus.address

    async def ask(self, ask: Ask) -> None:
        """Ask for one job or group; raises when its outcome should make a handler fail."""
        payload = {"plan": msgspec.to_builtins(ask.plan)}
        context = self.job_group(
            *ask.workers,
            name=ask.how or None,
            payload=payload,
            timeout=ask.timeout,
            cancel_on_error=ask.cancel_on_error,
        )
        with anyio.move_on_after(ask.cancel_after if ask.cancel_after is not None else math.inf):
            failure = await self._follow(ask, context)
            for worker in ask.workers:
                result = context.results[worker]
                number = 0
                if result.status is JobStatus.COMPLETED:
                    number = count_events(ask.plan) if ask.how == "stream" else result.response["events"]
                    number = number if ask.reads else 0
                self._note("ended", context.job_id, worker, attempt=result.attempt, number=number, status=result.status)
                self._check(ask, worker, result.status, str(result.error))
            if failure is not None:
                raise failure

    async def _follow(self, ask: Ask, context: JobGroupContext) -> JobGroupError | None:
        """Ask, and write down every event. Its failure is returned, its cancellation written down and raised."""
        try:
            async with context as group:
                for worker in ask.workers:
                    self._note("asked", context.job_id, worker)
                await anyio.sleep(ask.reads_after)
                async for event in group if ask.reads else _nothing():
                    if event.type in {event.UPDATE, event.STREAM_DATA}:
                        number = event.data["number"]
                        self._note("saw", context.job_id, event.worker_name, attempt=event.attempt, number=number)
        except JobGroupError as error:
            return error
        except BaseException:
            for worker in ask.workers:
                self._note("abandoned", context.job_id, worker)
            raise
        return None

    def _check(self, ask: Ask, worker: str, status: JobStatus, error: str) -> None:
        """Whether the outcome can be true, given what the handler was told to do."""
        raises = any(step.do == "raise" for step in ask.plan)
        asks = any(step.do == "ask" for step in ask.plan)
        problem = ""
        if status is JobStatus.COMPLETED and raises:
            problem = "completed although its handler raises"
        if status is JobStatus.ERROR and not raises and not asks:
            problem = "is an error although its handler does not raise"
        if problem:
            self.recorder.problems.append(f"job of {ask.how or 'on_job_request'} on {worker} {problem}: {error}")

    def _note(self, kind: Any, job_id: str, worker: str, **more: Any) -> None:
        self.recorder.note(kind, self.life, job_id, worker, **more)


class Actor(Asker):
    """Does what the plan in its payload says, in every shape a handler can have."""

    max_concurrency = 20

    @job(name="work")
    async def work(self, job: Job[Any]) -> dict[str, int]:
        """A plain handler."""
        return await self._perform(job)

    @job(name="turn", sequential=True)
    async def turn(self, job: Job[Any]) -> dict[str, int]:
        """One at a time."""
        return await self._perform(job)

    @job(name="stream")
    async def stream(self, job: Job[Any]) -> Any:
        """Streams its numbers."""
        self._note("began", job.id, self.name, attempt=job.attempt)
        number = 0
        for step in _plan(job.payload):
            if step.do in {"update", "burst"}:
                for _ in range(step.count):
                    yield {"number": number}
                    number += 1
            else:
                await self._do(step)
        self._note("finished", job.id, self.name, attempt=job.attempt)

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        """Answers later, from a background task."""
        self._note("began", message.job_id, self.name, attempt=message.attempt)
        self.create_task(self._answer_later(message), "answer")

    async def _answer_later(self, message: BusJobRequestMessage) -> None:
        number = 0
        try:
            for step in _plan(message.payload):
                if message.job_id not in self.active_jobs:
                    return
                if step.do in {"update", "burst"}:
                    for _ in range(step.count):
                        await self.send_job_update(message.job_id, {"number": number})
                        number += 1
                elif step.do == "raise":
                    await self.send_job_response(message.job_id, status=JobStatus.ERROR)
                    return
                elif step.do != "ask":
                    await anyio.sleep(step.seconds)
            if message.job_id in self.active_jobs:
                await self.send_job_response(message.job_id, {"events": number})
        except RuntimeError:
            if message.job_id in self.active_jobs:
                raise
        self._note("finished", message.job_id, self.name, attempt=message.attempt)

    async def _perform(self, job: Job[Any]) -> dict[str, int]:
        self._note("began", job.id, self.name, attempt=job.attempt)
        number = 0
        for step in _plan(job.payload):
            if step.do in {"update", "burst"}:
                for _ in range(step.count):
                    await job.update({"number": number}, urgent=step.do == "burst" and number % 3 == 0)
                    number += 1
            else:
                await self._do(step)
        self._note("finished", job.id, self.name, attempt=job.attempt)
        return {"events": number}

    async def _do(self, step: Step) -> None:
        if step.do == "raise":
            raise ValueError("as planned")
        if step.do == "ask" and step.ask is not None:
            await self.ask(step.ask)
        elif step.do == "swallow":
            until = anyio.current_time() + step.seconds
            while anyio.current_time() < until:
                try:
                    await anyio.sleep(until - anyio.current_time())
                except get_cancelled_exc_class():
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(max(until - anyio.current_time(), 0))
        else:
            await anyio.sleep(step.seconds)


async def _nothing() -> AsyncIterator[Any]:
    nothing: tuple[Any, ...] = ()
    for event in nothing:
        yield event


def _plan(payload: Any) -> list[Step]:
    return msgspec.convert(payload["plan"], list[Step])


def count_events(plan: tuple[Step, ...]) -> int:
    """How many events a plan sends."""
    return sum(step.count for step in plan if step.do in {"update", "burst"})
