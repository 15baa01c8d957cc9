"""A cancellation at every single await: of requesters, of performers, of clients and of the runner itself.

Each scenario is run again and again, cancelled when it is about to wait for the k-th time, until k is past its last
wait. Whatever k: the cancellation is not swallowed, nobody hangs, and every table is as empty as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Client, Job, JobError, JobStatus, RunnerStateError, WorkerRunner, job, subscribe
from actors.runner.runner import core_of_runner
from bus import BusJobRequestMessage, BusJobUpdateMessage, BusMessage
from bus.local.home import Home
from tests.support.messages import Note
from tests.support.running import leftovers, running

pytestmark = pytest.mark.anyio


class Steps:
    """Drives a coroutine, counts how often it waits, and calls `action` when it is about to for the `at`-th time."""

    def __init__(self, coroutine: Awaitable[Any], at: int, action: Callable[[], object]) -> None:
        self.count = 0
        self._coroutine = coroutine
        self._at = at
        self._action = action

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value
            self.count += 1
            if self.count == self._at:
                self._action()
            value, error = None, None
            try:
                value = yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - handed on
                error = thrown


class Busy(BaseWorker):
    """Has one slot and one place for jobs and for messages, all taken until it is let go."""

    max_concurrency = 1
    mailbox_size = 1

    def __init__(self) -> None:
        super().__init__("busy")
        self.gate = anyio.Event()

    @job(name="stream")
    async def streams(self, number: int | None) -> None:
        await self.gate.wait()

    @subscribe("news")
    async def news(self, data: Any) -> None:
        await self.gate.wait()

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            await self.gate.wait()


class Performer(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.active_handlers = 0

    @job
    async def echo(self, message: BusJobRequestMessage) -> Any:
        await anyio.lowlevel.checkpoint()
        return {"echo": message.payload}

    @job(name="stream")
    async def streams(self, job: Job[int]) -> Any:
        self.active_handlers += 1
        try:
            for number in range(job.payload):
                yield number
                if number % 50 == 0:
                    await anyio.lowlevel.checkpoint()
        finally:
            self.active_handlers -= 1

    @job
    async def down(self, job: Job[int]) -> Any:
        self.active_handlers += 1
        try:
            if job.payload == 0:
                return await self.job(self.name, name="echo", payload="bottom")
            async with self.job_group("a", "b", name="down", payload=job.payload - 1) as group:
                async for _ in group:
                    pass
            return group.responses
        finally:
            self.active_handlers -= 1

    @job(sequential=True)
    async def fail(self, message: BusJobRequestMessage) -> Any:
        await anyio.lowlevel.checkpoint()
        raise ValueError


class Requester(BaseWorker):
    """Has hooks, so that these are under way too when the cancellation comes."""

    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        await anyio.lowlevel.checkpoint()

    async def on_job_stream_data(self, message: BusMessage) -> None:
        await anyio.lowlevel.checkpoint()


Scenario = Callable[[BaseWorker, WorkerRunner], Awaitable[Any]]
SCENARIOS: dict[str, tuple[int, Scenario]] = {}
"""How often each waits at least, and what it does."""


def scenario(waits: int) -> Callable[[Scenario], Scenario]:
    def register(function: Scenario) -> Scenario:
        SCENARIOS[function.__name__] = (waits, function)
        return function

    return register


@scenario(2)
async def awaited_jobs(client: BaseWorker, runner: WorkerRunner) -> None:
    for number in range(2):
        await client.job("a", name="echo", payload=number, timeout=50)


@scenario(4)
async def a_stream(client: BaseWorker, runner: WorkerRunner) -> None:
    async with client.job("a", name="stream", payload=700) as stream:
        async for _ in stream:
            pass


@scenario(3)
async def a_group_of_streams(client: BaseWorker, runner: WorkerRunner) -> None:
    async with client.job_group("a", "b", name="stream", payload=300, timeout=50) as group:
        await anyio.lowlevel.checkpoint()
        async for _ in group:
            await anyio.lowlevel.checkpoint()
            break


@scenario(1)
async def nested_jobs(client: BaseWorker, runner: WorkerRunner) -> None:
    await client.job("a", name="down", payload=3, timeout=50)


@scenario(3)
async def jobs_that_fail(client: BaseWorker, runner: WorkerRunner) -> None:
    with suppress(JobError):
        await client.job("a", name="fail")
    for cancel_on_error in (True, False):
        with suppress(JobError):
            await client.job_group("a", "b", name="fail", cancel_on_error=cancel_on_error)


@scenario(2)
async def requests_and_their_groups(client: BaseWorker, runner: WorkerRunner) -> None:
    group = await client.create_job_group_and_request_job(["a", "b"], name="stream", payload=300)
    try:
        await anyio.lowlevel.checkpoint()
        await group.wait()
    finally:
        await client.cancel_job_group(group.job_id)


@scenario(1)
async def a_job_that_waits_for_room(client: BaseWorker, runner: WorkerRunner) -> None:
    await client.job("busy", name="stream")


@scenario(2)
async def a_group_that_waits_for_room(client: BaseWorker, runner: WorkerRunner) -> None:
    async with client.job_group("a", "busy", "b", payloads={"busy": None}, name="stream", payload=300):
        pass


@scenario(1)
async def messages_that_wait_for_room(client: BaseWorker, runner: WorkerRunner) -> None:
    for _ in range(3):
        await client.send_bus_message(Note(source="client", target="busy"))
    for _ in range(3):
        await client.publish("news", 1)


@scenario(1)
async def a_job_for_nobody(client: BaseWorker, runner: WorkerRunner) -> None:
    with anyio.move_on_after(0.02):
        await client.job("nobody")


@scenario(5)
async def a_client_that_comes_and_goes(client: BaseWorker, runner: WorkerRunner) -> None:
    async with Client(runner) as other:
        await other.request("a", "hello", name="echo")
        await other.gather("a", range(5), name="echo", max_concurrency=2)
        async with other.job("b", name="stream", payload=300) as stream:
            async for _ in stream:
                pass


@scenario(2)
async def workers_that_come_and_go(client: BaseWorker, runner: WorkerRunner) -> None:
    try:
        await runner.add_workers(Performer("guest"))
        await client.watch_workers("guest", "a")
        await client.job("guest", name="down", payload=1)
    finally:
        with anyio.CancelScope(shield=True):
            await client.unwatch_workers("guest", "a")
            await runner.remove_worker("guest")


@scenario(2)
async def activation(client: BaseWorker, runner: WorkerRunner) -> None:
    await client.deactivate_worker("a")
    try:
        async with client.job_group("a", "b", name="echo"):
            await anyio.lowlevel.checkpoint()
            await client.activate_worker("a")
    finally:
        with anyio.CancelScope(shield=True):
            await client.activate_worker("a")


async def one_run(function: Scenario, at: int, *, native: bool) -> int:
    busy, performers, client = Busy(), [Performer("a"), Performer("b")], Requester("client")
    async with running(busy, *performers, client, cancel_grace=60.0) as runner:
        before = [worker.statistics() for worker in (busy, *performers, client)]
        fillers = [await client.create_job_group_and_request_job(["busy"], name="stream") for _ in range(2)]
        reached: list[bool] = []
        if native:
            steps = Steps(function(client, runner), at, lambda: reached.append(task.cancel()))
            task = asyncio.ensure_future(drive(steps))
            waiting = asyncio.wait([task])
            opening = asyncio.ensure_future(open_when_blocked(busy, task.done))
            await waiting
            await opening
            assert task.cancelled() == bool(reached), task
        else:
            scope = anyio.CancelScope()
            finished: list[bool] = []

            def cancel() -> None:
                reached.append(True)
                scope.cancel()

            async with anyio.create_task_group() as task_group:
                steps = Steps(function(client, runner), at, cancel)
                task_group.start_soon(open_when_blocked, busy, lambda: bool(finished))
                with scope:
                    await steps
                    await anyio.lowlevel.checkpoint()  # who was cancelled in its last wait finds out here
                finished.append(True)
            assert scope.cancelled_caught == bool(reached)
        for group in fillers:
            await group.wait()
        with anyio.fail_after(30):
            while any(
                worker.statistics() != old for worker, old in zip((busy, *performers, client), before, strict=True)
            ):
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert [performer.active_handlers for performer in performers] == [0, 0]
        assert runner.statistics().tasks == 0
        assert runner.registry.statistics().watches == 0
        return steps.count


async def drive(steps: Steps) -> None:
    await steps


async def open_when_blocked(busy: Busy, finished: Callable[[], bool]) -> None:
    """Let the busy worker go on once nothing else can, or all is over."""
    for _ in range(3):
        await anyio.wait_all_tasks_blocked()
        if finished():
            break
    busy.gate.set()


@pytest.mark.parametrize("name", SCENARIOS)
async def test_f14_a_requester_cancelled_at_any_await_leaves_nothing_behind(name: str) -> None:
    least, function = SCENARIOS[name]
    at = 1
    while at <= await one_run(function, at, native=False):
        at += 1
    assert at > least


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_f14_a_bare_asyncio_task_cancelled_at_any_await_leaves_nothing_behind(name: str) -> None:
    least, function = SCENARIOS[name]
    at = 1
    while at <= await one_run(function, at, native=True):
        at += 1
    assert at > least


# --- performers ---


class Handler(BaseWorker):
    """Runs one of the bodies below, and tells when it is about to wait for the `at`-th time."""

    def __init__(self, body: Callable[[Job[Any], BaseWorker], Awaitable[Any]], at: int) -> None:
        super().__init__("handler")
        self.body = body
        self.at = at
        self.reached = anyio.Event()
        self.steps: Steps | None = None
        self.ended = 0

    @job
    async def work(self, job: Job[Any]) -> Any:
        self.steps = Steps(self.body(job, self), self.at, self.reached.set)
        try:
            return await self.steps
        finally:
            self.ended += 1


async def sends_events(job: Job[Any], worker: BaseWorker) -> Any:
    for number in range(600):
        await job.update(number, urgent=number % 3 == 0)
    return {"done": True}


async def streams(job: Job[Any], worker: BaseWorker) -> Any:
    for number in range(600):
        await worker.send_job_stream_data(job.id, number)
        if number % 100 == 0:
            await anyio.lowlevel.checkpoint()
    await worker.send_job_stream_end(job.id, {"done": True})


async def asks_others(job: Job[Any], worker: BaseWorker) -> Any:
    async with worker.job_group("a", "b", name="stream", payload=400) as group:
        async for _ in group:
            pass
    async with anyio.create_task_group() as task_group:
        for name in ("a", "b"):
            task_group.start_soon(ask_down, worker, name)
    await worker.request_job("a", name="down", payload=1)
    await anyio.lowlevel.checkpoint()
    return {"done": True}


async def ask_down(worker: BaseWorker, name: str) -> None:
    await worker.job(name, name="down", payload=1)


async def answers_early(job: Job[Any], worker: BaseWorker) -> Any:
    await anyio.lowlevel.checkpoint()
    await job.respond({"done": True})
    await anyio.lowlevel.checkpoint()


async def cancel_when_reached(handler: Handler, client: BaseWorker) -> None:
    await handler.reached.wait()
    await client.cancel_job_group("mine")


@pytest.mark.parametrize("body", [sends_events, streams, asks_others, answers_early])
async def test_f14_a_handler_cancelled_at_any_await_ends_and_its_requester_is_told_the_truth(
    body: Callable[[Job[Any], BaseWorker], Awaitable[Any]],
) -> None:
    at, reached, cancelled = 0, True, 0
    while reached:
        at += 1
        handler, performers, client = Handler(body, at), [Performer("a"), Performer("b")], Requester("client")
        async with running(handler, *performers, client, cancel_grace=60.0) as runner:
            status = JobStatus.COMPLETED
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(cancel_when_reached, handler, client)
                try:
                    async with client.job("handler", name="work", job_id="mine") as asked:
                        async for _ in asked:
                            await anyio.lowlevel.checkpoint()
                    assert asked.response == {"done": True}
                except JobError as error:
                    status = error.status
                task_group.cancel_scope.cancel()
            with anyio.fail_after(30):
                while any((await leftovers(runner)).values()):
                    await anyio.lowlevel.checkpoint()
            assert handler.steps is not None
            reached = at <= handler.steps.count
            assert (
                status is JobStatus.COMPLETED if not reached else status in {JobStatus.COMPLETED, JobStatus.CANCELLED}
            )
            cancelled += status is JobStatus.CANCELLED
            assert handler.ended == 1
            assert [performer.active_handlers for performer in performers] == [0, 0]
    assert at > 2
    assert cancelled or body is answers_early  # which may have answered before the cancellation comes


# --- the runner itself ---


@pytest.mark.parametrize("ends", [False, True])
async def test_f14_a_runner_cancelled_at_any_await_tells_everybody_and_leaves_nothing(
    ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, reached = 0, True
    while reached:
        at += 1
        runner = WorkerRunner(handle_sigint=False, handle_sigterm=False, cancel_grace=1.0, drain_timeout=1.0)
        performers = [Performer("a"), Performer("b")]
        told: list[str] = []
        lives: list[Steps] = []

        class Asker(BaseWorker):
            async def on_activated(self, args: Any, told: list[str] = told) -> None:
                told.append("asked")
                try:
                    await self.job_group("a", "b", name="down", payload=2)
                    await self.job("a", name="stream", payload=300)
                except RunnerStateError:
                    pass  # it was ending already
                finally:
                    told.append("told")

        class Starter(BaseWorker):
            async def start(self) -> None:
                await anyio.lowlevel.checkpoint()
                await super().start()

            async def stop(self) -> None:
                await anyio.lowlevel.checkpoint()
                await super().stop()

        await runner.add_workers(Starter("starter"), Asker("asker"), *performers)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as task_group:

                async def end_soon(runner: WorkerRunner = runner, told: list[str] = told) -> None:
                    while not told:
                        await anyio.lowlevel.checkpoint()
                    if not ends:
                        while "told" not in told:
                            await anyio.lowlevel.checkpoint()
                    await runner.end()

                task_group.start_soon(end_soon)
                with anyio.CancelScope() as scope:

                    class Stepped(Home):
                        """Where the runner lives: who runs it is cancelled when that is about to wait."""

                        def __init__(
                            self,
                            function: Callable[[], Awaitable[None]],
                            name: str,
                            steps: list[Steps] = lives,
                            at: int = at,
                            scope: anyio.CancelScope = scope,
                        ) -> None:
                            steps.append(Steps(function(), at, scope.cancel))
                            super().__init__(lambda: steps[0], name)

                    monkeypatch.setattr("actors.runner.scope.Home", Stepped)
                    await runner.run()
                    await anyio.lowlevel.checkpoint()
                task_group.cancel_scope.cancel()
        reached = at <= lives[0].count
        assert scope.cancelled_caught == reached
        assert told.count("asked") == told.count("told")
        assert [performer.active_handlers for performer in performers] == [0, 0]
        assert not runner.running
        assert not core_of_runner(runner).open_groups
        assert core_of_runner(runner).tasks.statistics().tasks == 0
        assert runner.bus.statistics().subscribers == 0
        assert runner.bus.statistics().parked == 0
        assert runner.registry.statistics().local_workers == 0
    assert at > 2
