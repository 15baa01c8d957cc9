"""Random programs of actors: they do what plans say, and write down what comes of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import msgspec
from anyio import get_cancelled_exc_class

from actors import BaseWorker, Job, JobGroupContext, JobGroupError, JobGroupResponse, JobStatus, job
from actors.testing import Simulation
from actors.testing.history import Happening
from bus import BusJobRequestMessage, BusJobResponseMessage, EncodeError, NetworkBus
from bus.wire.codec import MAX_MESSAGE_BYTES
from tests.simulation.plan import Ask, Step
from tests.simulation.truth import Circumstances, count_events, is_plain, untrue

CANCEL_GRACE = 3.0
"""Seconds a handler has to stop when it is told to."""

TOO_LARGE = "x" * MAX_MESSAGE_BYTES
"""More than a message holds: it cannot travel to another process."""


class Recorder:
    """The history of one run."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.lines: list[Happening] = []
        self.problems: list[str] = []
        self.told: Counter[tuple[str, str]] = Counter()
        self.disturbed = False
        self.paused: dict[str, None] = {}
        """Lives that were paused: what they do late is excused."""
        self.lossy = False
        self.delivery = "at_least_once"
        self.plain = self.plain_completed = 0

    def note(self, kind: Any, life: str, job_id: str = "", worker: str = "", **more: Any) -> None:
        """Write a line."""
        self.disturbed = self.disturbed or kind in {"died", "disturbed"}
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

    async def ask(self, ask: Ask, parent: Job[Any] | None = None) -> None:
        """Ask for one job or group, inside a job or not; raises when its outcome should make a handler fail."""
        payload = {"plan": msgspec.to_builtins(ask.plan)}
        context = self.job_group(
            *ask.workers,
            name=ask.how or None,
            payload=payload,
            timeout=ask.timeout,
            cancel_on_error=ask.cancel_on_error,
            job_id=ask.own_id,
            delivery=ask.delivery,
        )
        limited = ask.timeout is not None or (parent is not None and parent.remaining is not None)
        plain = parent is None and is_plain(ask)
        self.recorder.plain += plain * len(ask.workers)
        with anyio.move_on_after(ask.cancel_after if ask.cancel_after is not None else math.inf):
            failure = await self._follow(ask, context, parent)
            for worker in ask.workers:
                result = context.results[worker]
                number = 0
                if result.status is JobStatus.COMPLETED:
                    number = count_events(ask.plan) if ask.how == "stream" else result.response["events"]
                    number = number if ask.reads else 0
                    self.recorder.plain_completed += plain
                self._note("ended", context.job_id, worker, attempt=result.attempt, number=number, status=result.status)
            self._check(ask, context, failure, limited=limited, stopped=_is_over(parent))
            if failure is not None:
                raise failure

    async def _follow(self, ask: Ask, context: JobGroupContext, parent: Job[Any] | None) -> JobGroupError | None:
        """Ask, and write down every event. Its failure is returned, its cancellation written down and raised."""
        asked: list[str] = []
        try:
            async with context as group:
                self._note_asked(ask, context, asked)
                await anyio.sleep(ask.reads_after)
                async for event in group if ask.reads else _nothing():
                    if event.type in {event.UPDATE, event.STREAM_DATA}:
                        number = event.data["number"]
                        self._note("saw", context.job_id, event.worker_name, attempt=event.attempt, number=number)
        except JobGroupError as error:
            self._note_asked(ask, context, asked)
            return error
        except get_cancelled_exc_class():
            self._note_asked(ask, context, asked)
            for worker in ask.workers:
                self._note("abandoned", context.job_id, worker)
            if ask.cancel_after is None and not _is_over(parent) and not self.recorder.disturbed:
                self._problem(ask, "", "is not waited for any more, for no reason")
            raise
        return None

    def _note_asked(self, ask: Ask, context: JobGroupContext, asked: list[str]) -> None:
        """Write down once what was asked for: entering the context may be cut short while it waits for room."""
        if not asked:
            asked += ask.workers
            for worker in ask.workers:
                self._note("asked", context.job_id, worker, once=self._once(ask))

    def _check(
        self, ask: Ask, context: JobGroupContext, failure: JobGroupError | None, *, limited: bool, stopped: bool
    ) -> None:
        """Whether the outcomes can be true, given what the handlers were told to do and what went wrong."""
        failed = {JobStatus.ERROR, JobStatus.FAILED}
        disturbed = self.recorder.disturbed
        failures = [worker for worker, result in context.results.items() if result.status in failed]
        for worker, result in context.results.items():
            others = [each for each in failures if each != worker]
            cut_short = ask.cancel_on_error and bool(others)
            problem = untrue(
                ask, result, Circumstances(disturbed, limited, stopped, cut_short, self.recorder.lossy, self._once(ask))
            )
            if problem:
                self._problem(ask, worker, f"{problem}: {result.status} {result.error}")
        every = all(result.status is JobStatus.COMPLETED for result in context.results.values())
        if failure is None and ask.cancel_on_error and not every:
            self._problem(ask, "", "completed although a member did not")
        if failure is not None and not ask.cancel_on_error and not (limited or stopped or disturbed):
            self._problem(ask, "", f"failed although nothing ends it but its members: {failure}")

    def _once(self, ask: Ask) -> bool:
        return (ask.delivery or self.recorder.delivery) == "at_most_once"

    def _problem(self, ask: Ask, worker: str, problem: str) -> None:
        asked = f"job of {worker}" if worker else f"group of {', '.join(ask.workers)}"
        self.recorder.problems.append(f"{ask.how or 'on_job_request'} {asked} {problem}")

    def _note(self, kind: Any, job_id: str, worker: str, **more: Any) -> None:
        self.recorder.note(kind, self.life, job_id, worker, **more)


class Actor(Asker):
    """Does what the plan in its payload says, in every shape a handler can have."""

    def __init__(self, name: str, recorder: Recorder, max_concurrency: int = 20, mailbox_size: int = 1000) -> None:
        super().__init__(name, recorder)
        self.max_concurrency = max_concurrency
        self.mailbox_size = mailbox_size
        self.running: dict[Job[Any], None] = {}
        self.answered: dict[tuple[str, str], int] = {}

    @job(name="work")
    async def work(self, job: Job[Any]) -> dict[str, int]:
        """A plain handler."""
        return await self._perform(job)

    @job(name="turn", sequential=True)
    async def turn(self, job: Job[Any]) -> dict[str, int]:
        """One at a time."""
        return await self._perform(job)

    @job(name="stream")
    async def streams(self, job: Job[Any]) -> Any:
        """Streams its numbers."""
        number = 0
        with self._running(job):
            for step in _plan(job.payload):
                if step.do in {"update", "burst"}:
                    for _ in range(step.count):
                        yield {"number": number}
                        number += 1
                else:
                    await self._do(step, job)

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        """Answers later, from a background task."""
        self._note("began", message.job_id, self.name, attempt=message.attempt)
        self.create_task(self._answer_later(message), "answer")

    async def _answer_later(self, message: BusJobRequestMessage) -> None:
        number = 0
        try:
            for step in _plan(message.payload):
                if not self._has(message):
                    return
                if step.do in {"update", "burst"}:
                    for _ in range(step.count):
                        await self.send_job_update(message.job_id, {"number": number})
                        number += 1
                elif step.do == "too large":
                    with suppress(EncodeError):
                        await self.send_job_update(message.job_id, {"number": number, "rest": TOO_LARGE})
                        number += 1
                elif step.do == "raise":
                    await self.send_job_response(message.job_id, status=JobStatus.ERROR)
                    return
                elif step.do != "ask":
                    await anyio.sleep(step.seconds)
            if self._has(message):
                await self.send_job_response(message.job_id, {"events": number})
        except RuntimeError:
            if self._has(message):
                raise
        self._note("finished", message.job_id, self.name, attempt=message.attempt)

    def _has(self, message: BusJobRequestMessage) -> bool:
        """Whether that attempt of a job is still open: another may have begun under its id."""
        job = self.active_jobs.get(message.job_id)
        return job is not None and job.attempt == message.attempt

    async def _perform(self, job: Job[Any]) -> dict[str, int]:
        number = 0
        with self._running(job):
            for step in _plan(job.payload):
                if step.do in {"update", "burst"}:
                    for _ in range(step.count):
                        await job.update({"number": number}, urgent=step.do == "burst" and number % 3 == 0)
                        number += 1
                elif step.do == "too large":
                    with suppress(EncodeError):
                        await job.update({"number": number, "rest": TOO_LARGE})
                        number += 1
                else:
                    await self._do(step, job)
        return {"events": number}

    @property
    def _refused(self) -> int:
        assert isinstance(self.bus, NetworkBus)
        return self.bus.network_statistics().claims.refused

    @contextmanager
    def _running(self, job: Job[Any]) -> Iterator[None]:
        """Write down that a handler runs, and look at what runs beside it and how long."""
        self._note("began", job.id, self.name, attempt=job.attempt)
        limit = math.inf if job.remaining is None else anyio.current_time() + job.remaining
        key = job.request.origin, job.id
        if self.answered.get(key) == self._refused:
            self.recorder.problems.append(f"{self.name} does job {job.id} again, which it has answered")
        self.running[job] = None
        # One that swallows its cancellation is over for the others; one asked for inside another uses its slot.
        beside = [other for other in self.running if not other.ended and not _is_nested(other, self.name)]
        if len(beside) > self.max_concurrency:
            self.recorder.problems.append(f"{self.name} does {len(beside)} jobs at once, not {self.max_concurrency}")
        if sum(other.name == "turn" for other in beside) > 1:
            self.recorder.problems.append(f"{self.name} does jobs at once that it does one at a time")
        try:
            yield
            if not job.cancelled:
                self.answered[key] = self._refused  # if that is more later, the answer may be what was refused
        finally:
            del self.running[job]
            self._note("finished", job.id, self.name, attempt=job.attempt)
            swallows = any(step.do == "swallow" for step in _plan(job.payload))
            limit += 1.0 + (CANCEL_GRACE if swallows else 0.0)
            if anyio.current_time() > limit and not job.ended and self.life not in self.recorder.paused:
                self.recorder.problems.append(f"job {job.id} of {self.name} went on after its deadline")

    async def _do(self, step: Step, job: Job[Any]) -> None:
        if step.do == "raise":
            raise ValueError("as planned")
        if step.do == "ask" and step.ask is not None:
            await self.ask(step.ask, job)
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


def _is_over(job: Job[Any] | None) -> bool:
    return job is not None and (job.cancelled or job.ended)


def _is_nested(job: Job[Any], name: str) -> bool:
    return any(entry.endswith(f"@{name}") for entry in job.request.lineage)
