"""Hooks and event handlers: apart from each other, in order, bounded; and jobs that event handlers do: G56, G25."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import (
    BaseWorker,
    Job,
    JobError,
    JobTimeoutError,
    RunnerStateError,
    WorkerRunner,
    job,
    subscribe,
    worker_ready,
)
from actors.worker.core import MOST_HOOKS
from actors.worker.events import MOST_HANDLING
from bus import BusDataMessage, BusJobRequestMessage, JobStatus, open_bus
from tests.support.running import running

pytestmark = pytest.mark.anyio

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="clean")


class Echo(BaseWorker):
    @job
    async def echo(self, job: Job[Any]) -> Any:
        return job.payload

    @job
    async def tell(self, job: Job[int]) -> int:
        for number in range(job.payload):
            await job.update(number)
        return job.payload

    @job
    async def hang(self, value: Any) -> None:
        await anyio.sleep_forever()


# --- context variables ---


class Leaky(BaseWorker):
    """What each of its hooks finds in a context variable, and leaves there."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.found: list[tuple[str, str]] = []

    def look(self, hook: str) -> None:
        self.found.append((hook, var.get()))
        var.set(hook)

    async def on_activated(self, args: Any) -> None:
        self.look("activated")

    async def on_worker_ready(self, data: Any) -> None:
        await anyio.lowlevel.checkpoint()
        self.look("ready")

    async def on_bus_message(self, message: Any) -> None:
        self.look("message")

    async def on_job_update(self, message: Any) -> None:
        self.look("update")

    async def on_job_completed(self, result: Any) -> None:
        self.look("completed")

    @subscribe("news")
    async def read(self, data: Any) -> None:
        self.look("news")

    @worker_ready(name="echo")
    async def echo_ready(self, data: Any) -> None:
        self.look("echo ready")


async def test_g56_what_one_hook_leaves_in_a_context_variable_reaches_no_other() -> None:
    leaky, echo = Leaky("leaky"), Echo("echo")
    for event in ("on_job_update", "on_job_completed"):
        leaky.add_event_handler(event, lambda worker, _: worker.look("handler"))
    async with running(leaky, echo):
        await leaky.watch_workers("echo")
        for _ in range(2):
            await leaky.request_job("echo", name="tell", payload=3)
            await echo.send_bus_message(BusDataMessage(source="echo", target="leaky"))
            await echo.publish("news", 1)
        await anyio.wait_all_tasks_blocked()
        hooks = {hook for hook, _ in leaky.found}
        assert hooks == {"activated", "ready", "echo ready", "message", "update", "completed", "news", "handler"}
        assert {found for _, found in leaky.found} == {"clean"}


async def test_g56_hooks_that_leave_something_still_come_one_at_a_time_and_in_order() -> None:
    class Ordered(BaseWorker):
        busy = False
        seen: list[int]

        async def on_job_update(self, message: Any) -> None:
            assert not self.busy
            self.busy = True
            var.set(f"of {message.update}")
            await anyio.lowlevel.checkpoint()
            self.seen.append(message.update)
            self.busy = False

    ordered = Ordered("ordered")
    ordered.seen = []
    async with running(ordered, Echo("echo")):
        assert await ordered.job("echo", name="tell", payload=300) == 300
        await anyio.wait_all_tasks_blocked()
        assert ordered.seen == list(range(300))


# --- handlers in tasks of their own ---


async def test_g56_handlers_begin_in_order_and_may_wait_for_each_other() -> None:
    worker = BaseWorker("worker")
    begun: list[Any] = []
    gate = anyio.Event()

    @worker.event_handler("on_job_update")
    async def first(_worker: BaseWorker, message: Any) -> None:
        begun.append(message.update)
        if message.update == 9:
            gate.set()
        await gate.wait()
        begun.append("end")

    @worker.event_handler("on_job_update")
    def second(_worker: BaseWorker, message: Any) -> None:
        begun.append(-message.update)

    async with running(worker, Echo("echo")):
        assert await worker.job("echo", name="tell", payload=10) == 10
        await anyio.wait_all_tasks_blocked()
        order = [each for each in begun if each != "end"]
        assert order == [sign * number for number in range(10) for sign in (1, -1)]
        assert begun.count("end") == 10
        assert worker.statistics().handling == 0


async def test_g56_what_waits_in_a_handler_holds_up_no_hook() -> None:
    class Hearing(BaseWorker):
        heard = 0

        async def on_job_completed(self, result: Any) -> None:
            self.heard += 1

    worker = Hearing("worker")

    @worker.event_handler("on_job_completed")
    async def wait(*_: Any) -> None:
        await anyio.sleep_forever()

    async with running(worker, Echo("echo")):
        for _ in range(5):
            await worker.request_job("echo", name="echo", payload=1)
        await anyio.wait_all_tasks_blocked()
        assert worker.heard == 5
        assert worker.statistics().handling == 5


async def test_g56_handlers_that_run_are_bounded_and_all_come_in_the_end() -> None:
    worker, gate, count = BaseWorker("worker"), anyio.Event(), 0

    @worker.event_handler("on_bus_message")
    async def wait(*_: Any) -> None:
        nonlocal count
        await gate.wait()
        count += 1

    async with running(worker, other := BaseWorker("other")):
        for _ in range(MOST_HANDLING + 100):
            await other.send_bus_message(BusDataMessage(source="other", target="worker"))
        await anyio.wait_all_tasks_blocked()
        assert worker.statistics().handling == MOST_HANDLING
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert count == MOST_HANDLING + 100
        assert worker.statistics().handling == 0


async def test_g21_a_handler_that_raises_is_reported_and_stops_nobody() -> None:
    worker, told, seen = BaseWorker("worker"), [], []

    @worker.event_handler("on_job_completed")
    async def fail(*_: Any) -> None:
        raise KeyError("mine")

    worker.add_event_handler("on_job_completed", lambda *_: seen.append(1))
    async with running(worker, Echo("echo")) as runner:
        runner.add_event_handler("on_error", lambda _, data: told.append(data.error))
        await worker.request_job("echo", name="echo", payload=1)
        await anyio.wait_all_tasks_blocked()
    assert told == ["event handler of on_job_completed failed: KeyError: 'mine'"]
    assert seen == [1]


async def test_handlers_are_cancelled_with_their_worker_and_may_end_it() -> None:
    worker, ended = BaseWorker("worker"), []

    @worker.event_handler("on_activated")
    async def wait(*_: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")

    @worker.event_handler("on_activated")
    async def end(worker: BaseWorker, _args: Any) -> None:
        await worker.end()

    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(worker)
    with anyio.fail_after(60):
        await runner.run()
    assert ended == ["cancelled"]


# --- jobs done by event handlers ---


def answering(name: str, handler: Callable[..., Any], **options: Any) -> BaseWorker:
    worker = type("Answering", (BaseWorker,), options)(name)
    worker.add_event_handler("on_job_request", handler)
    return worker  # type: ignore[no-any-return]


async def echo(worker: BaseWorker, message: BusJobRequestMessage) -> None:
    await worker.send_job_update(message.job_id, "half")
    await worker.send_job_response(message.job_id, message.payload)


@pytest.mark.parametrize("name", [None, "any"])
async def test_event_handlers_alone_do_jobs(name: str | None) -> None:
    asker = BaseWorker("asker")
    async with running(answering("echo", echo), asker):
        async with asker.job("echo", name=name, payload=[1]) as asked:
            events = [event.data async for event in asked]
        assert (asked.response, events) == ([1], ["half"])
        assert (await asker.job_group("echo", name=name, payload=2)).responses == {"echo": 2}


async def test_a_job_that_event_handlers_leave_open_is_answered_later_or_ends_at_its_deadline() -> None:
    worker, asker = answering("worker", lambda *_: None), BaseWorker("asker")
    async with running(worker, asker):
        with pytest.raises(JobTimeoutError):
            await asker.job("worker", timeout=0.02)
        job_id = await asker.request_job("worker")
        await anyio.wait_all_tasks_blocked()
        assert list(worker.active_jobs) == [job_id]
        await worker.send_job_response(job_id, 1)
        await anyio.wait_all_tasks_blocked()
        assert asker.job_groups == {}


async def test_g1_a_handler_of_jobs_that_raises_before_it_has_answered_ends_the_job() -> None:
    async def fail(_worker: BaseWorker, message: BusJobRequestMessage) -> None:
        raise ValueError("no")

    async def fail_late(worker: BaseWorker, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, 1)
        raise ValueError("too late")

    asker = BaseWorker("asker")
    async with running(answering("early", fail), answering("late", fail_late), asker):
        with pytest.raises(JobError, match="ValueError: no") as caught:
            await asker.job("early")
        assert caught.value.status is JobStatus.ERROR
        assert await asker.job("late") == 1


async def test_a_job_that_event_handlers_do_is_cancelled_with_what_it_asked_for_and_keeps_its_limits() -> None:
    stopped: list[str] = []

    async def ask(worker: BaseWorker, message: BusJobRequestMessage) -> None:
        try:
            await worker.job("echo", name="hang", payload=1)
        finally:
            stopped.append(message.job_id)

    worker, asker, inner = answering("worker", ask, max_concurrency=2), BaseWorker("asker"), Echo("echo")
    async with running(worker, asker, inner):
        jobs = [await asker.request_job("worker") for _ in range(3)]
        await anyio.wait_all_tasks_blocked()
        assert (worker.statistics().running, worker.statistics().pending) == (2, 1)
        assert len(inner.active_jobs) == 2
        for job_id in jobs:
            await asker.cancel_job_group(job_id)
        await anyio.wait_all_tasks_blocked()
        assert sorted(stopped) == sorted(jobs[:2])
        assert inner.active_jobs == {}


async def test_g22_a_job_that_an_event_handler_asks_of_its_own_worker_does_not_wait_for_itself() -> None:
    async def descend(worker: BaseWorker, message: BusJobRequestMessage) -> None:
        answer = await worker.job(worker.name, payload=message.payload - 1) if message.payload else 0
        await worker.send_job_response(message.job_id, answer + 1)

    async with running(answering("worker", descend, max_concurrency=1), asker := BaseWorker("asker")):
        with anyio.fail_after(60):
            assert await asker.job("worker", payload=5) == 6


async def test_handlers_of_its_class_come_first_and_the_event_is_told_all_the_same() -> None:
    echo_too, asker = Echo("echo"), BaseWorker("asker")
    seen: list[Any] = []

    @echo_too.event_handler("on_job_request")
    async def note(worker: BaseWorker, message: BusJobRequestMessage) -> None:
        seen.append(message.job_name)
        if message.job_name == "other":
            await worker.send_job_response(message.job_id, "by events")

    async with running(echo_too, asker):
        assert await asker.job("echo", name="echo", payload=1) == 1
        assert await asker.job("echo", name="other") == "by events"
        assert seen == ["echo", "other"]


async def test_a_worker_whose_handlers_come_after_its_start_is_given_jobs_over_a_network() -> None:
    worker, asker = BaseWorker("worker"), BaseWorker("asker")
    url, quiet = "memory://by-events", {"handle_sigint": False, "handle_sigterm": False}
    here, there = (WorkerRunner(name, bus=open_bus(url), **quiet) for name in ("here", "there"))  # type: ignore[arg-type]
    async with here, there:
        await there.add_workers(worker)
        await here.add_workers(asker)
        await anyio.wait_all_tasks_blocked()
        worker.add_event_handler("on_job_request", echo)
        assert await asker.job("worker", payload=3, timeout=50) == 3


# --- events of one's own ---


class Meter(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._register_event_handler("on_reading")
        self._register_event_handler("on_limit", sync=True)

    @job
    async def read(self, values: list[int]) -> None:
        for value in values:
            await self._call_event_handler("on_reading", value, "degrees")
        await self._call_event_handler("on_limit")


async def test_events_of_ones_own_are_called_with_what_they_are_given() -> None:
    meter, asker = Meter("meter"), BaseWorker("asker")
    seen: list[Any] = []

    @meter.event_handler("on_reading")
    async def reading(worker: BaseWorker, value: int, unit: str) -> None:
        seen.append((worker.name, value, unit))

    @meter.event_handler("on_limit")
    async def limit(_worker: BaseWorker) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append("limit")

    async with running(meter, asker):
        await asker.job("meter", name="read", payload=[1, 2])
        assert seen == [("meter", 1, "degrees"), ("meter", 2, "degrees"), "limit"]


async def test_events_that_nobody_made_or_hears() -> None:
    meter = Meter("meter")
    await meter._call_event_handler("on_reading", 1)
    with pytest.raises(ValueError, match=r"no event 'on_raeding'.*on_reading"):
        meter.add_event_handler("on_raeding", print)
    meter.add_event_handler("on_reading", print)
    with pytest.raises(RunnerStateError, match="on_reading"):
        await meter._call_event_handler("on_reading", 1)
    with pytest.raises(ValueError, match="no event"):
        BaseWorker("other").add_event_handler("on_reading", print)


# --- what waits for a slow hook ---


class Stuck(BaseWorker):
    def __init__(self, name: str, hook: str) -> None:
        super().__init__(name)
        self.gate = anyio.Event()
        self.count = 0
        setattr(self, hook, self.wait_for_gate)

    async def wait_for_gate(self, *_: Any) -> None:
        self.count += 1
        await self.gate.wait()


@pytest.mark.parametrize("way", ["request_job", "awaited", "group", "by hand", "events"])
async def test_g25_who_asks_for_more_waits_while_too_many_ends_wait_for_a_slow_hook(way: str) -> None:
    hooks = {"by hand": "on_job_response", "events": "on_job_update"}
    asker = Stuck("asker", hooks.get(way, "on_job_completed"))
    asked = 0

    async def ask() -> None:
        nonlocal asked
        for number in range(MOST_HOOKS + 500):
            if way == "request_job":
                await asker.request_job("echo", name="echo", payload=1)
            elif way == "events":
                await asker.request_job("echo", name="tell", payload=1)
            elif way == "awaited":
                await asker.job("echo", name="echo", payload=1)
            elif way == "group":
                await (await asker.create_job_group_and_request_job(["echo"], name="echo", payload=1)).wait()
            else:
                request = BusJobRequestMessage(
                    source="asker", target="echo", job_id=f"hand-{number}", job_name="echo", payload=1
                )
                await asker.send_bus_message(request)
            asked += 1
            if number % 50 == 0:
                for _ in range(200):
                    await anyio.lowlevel.checkpoint()

    async with running(asker, Echo("echo")), anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert MOST_HOOKS <= asker.statistics().hooks <= MOST_HOOKS + 100
        assert asked < MOST_HOOKS + 200
        late = asker.job("echo", name="echo", payload=1, timeout=0.01)
        with pytest.raises(JobTimeoutError):
            await late
        asker.gate.set()
    assert asked == MOST_HOOKS + 500


async def test_g25_a_hook_that_asks_is_not_held_up_by_the_hooks_that_wait_for_it() -> None:
    class Eager(BaseWorker):
        done = 0

        async def on_activated(self, args: Any) -> None:
            for _ in range(MOST_HOOKS * 2):
                await self.request_job("echo", name="echo", payload=1)
                await anyio.lowlevel.checkpoint()

        async def on_job_completed(self, result: Any) -> None:
            self.done += 1

    async with running(Echo("echo"), eager := Eager("eager")):
        await anyio.wait_all_tasks_blocked()
        assert eager.done == MOST_HOOKS * 2


async def test_g25_who_floods_a_performer_with_cancellations_waits_for_its_slow_hook() -> None:
    class Slow(Stuck):
        @job
        async def hang(self, value: Any) -> None:
            await anyio.sleep_forever()

    performer, asker, asked = Slow("performer", "on_job_cancelled"), BaseWorker("asker"), 0

    async def flood() -> None:
        nonlocal asked
        for _ in range(MOST_HOOKS + 200):
            await asker.cancel_job_group(await asker.request_job("performer", name="hang", payload=1))
            asked += 1
            await anyio.lowlevel.checkpoint()

    async with running(performer, asker), anyio.create_task_group() as tasks:
        tasks.start_soon(flood)
        await anyio.wait_all_tasks_blocked()
        assert MOST_HOOKS <= performer.statistics().hooks <= MOST_HOOKS + 2
        assert asked <= MOST_HOOKS + 2
        performer.gate.set()
    assert asked == MOST_HOOKS + 200


# --- handlers that are called in line ---


async def test_g56_what_a_handler_in_line_sets_in_a_context_variable_reaches_no_other() -> None:
    worker, found = BaseWorker("worker"), []
    var.set("mine")

    def plain(*_: Any) -> None:
        found.append(var.get())
        var.set("of a plain one")

    async def waiting(*_: Any) -> None:
        found.append(var.get())
        var.set("of one that waits")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.lowlevel.checkpoint)
        assert var.get() == "of one that waits"

    async def failing(*_: Any) -> None:
        var.set("of one that fails")
        await anyio.lowlevel.checkpoint()
        raise ValueError("no")

    class Odd:
        """Can be awaited, and is no coroutine."""

        def __await__(self) -> Any:
            var.set("of an odd one")
            return iter(())

    async with running(worker, Echo("echo")) as runner:
        for handler in (plain, waiting, failing, lambda *_: Odd(), plain):
            for event in ("on_job_start", "on_job_complete"):
                runner.add_event_handler(event, handler)
        for _ in range(2):
            await worker.job("echo", name="echo", payload=1)
        await anyio.wait_all_tasks_blocked()
        assert len(found) == 12
        assert len(set(found)) == 1
    assert var.get() == "mine"


async def test_a_handler_in_line_that_is_cancelled_may_clean_up() -> None:
    meter, cleaned = Meter("meter"), []

    @meter.event_handler("on_limit")
    async def wait(_worker: BaseWorker) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            cleaned.append(True)

    async with running(meter, asker := BaseWorker("asker")):
        job_id = await asker.request_job("meter", name="read", payload=[])
        await anyio.wait_all_tasks_blocked()
        await asker.cancel_job_group(job_id)
        await anyio.wait_all_tasks_blocked()
        assert cleaned == [True]
