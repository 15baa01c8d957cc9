"""Verbs before a runner runs are done when it does; those after the end are dropped, and logged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import (
    BaseWorker,
    Job,
    JobGroupResponse,
    RunnerStateError,
    WorkerActivationArgs,
    WorkerRunner,
    job,
    subscribe,
)
from bus import BusMessage, DuplicateNameError, EncodeError
from tests.support.messages import Note
from tests.support.workers import quiet

pytestmark = pytest.mark.anyio


class Witness(BaseWorker):
    """It notes everything that it is told."""

    def __init__(self, name: str, *, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.seen: list[Any] = []

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        self.seen.append(("activated", args))

    async def on_worker_ready(self, data: Any) -> None:
        self.seen.append(("ready", data.worker_name))

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            self.seen.append(("note", message.text))

    async def on_job_completed(self, response: JobGroupResponse) -> None:
        self.seen.append(("completed", response.job_id))

    @subscribe("news")
    async def news(self, data: Any) -> None:
        self.seen.append(("news", data))

    @job(name="double")
    async def double(self, job: Job[int]) -> int:
        return 2 * job.payload


async def test_verbs_between_add_workers_and_run_are_done_in_order_once_all_workers_have_started() -> None:
    runner, ran = quiet(), []
    first, second = Witness("first"), Witness("second", active=False)
    await runner.add_workers(first, second)
    await first.watch_workers("second")
    await first.activate_worker("second", args=WorkerActivationArgs(metadata={"x": 1}))
    payload = [1]
    await first.send_bus_message(Note(source="first", target="second", text="a"))
    await first.send_bus_message(Note(source="first", target="second", text="b"))
    job_id = await first.request_job("second", name="double", payload=payload[0])
    assert await first.publish("news", "it runs") == 0

    async def background() -> str:
        ran.append("background")
        return "done"

    task = first.create_task(background())
    child = Witness("child")
    await first.add_workers(child)
    with pytest.raises(DuplicateNameError):
        await first.add_workers(Witness("second"))
    assert (first.seen, second.seen, ran, task.done()) == ([], [], [], False)
    async with runner:
        assert await task == "done"
        await anyio.wait_all_tasks_blocked()
        assert child.parent == "first"
    assert [each for each in second.seen if each[0] != "news"] == [
        ("activated", {"metadata": {"x": 1}}),
        ("note", "a"),
        ("note", "b"),
    ]
    assert {("ready", "second"), ("ready", "child"), ("completed", job_id)} <= set(map(tuple, first.seen[1:]))
    assert ("news", "it runs") in second.seen


async def test_a_verb_that_fails_when_the_runner_runs_is_reported() -> None:
    runner, errors = quiet(), []
    worker = Witness("worker")
    await runner.add_workers(worker)

    @runner.event_handler("on_error")
    async def on_error(_runner: WorkerRunner, data: Any) -> None:
        errors.append(data.error)

    await worker.send_bus_message(Note(source="worker", target="worker", text=object()))
    await worker.request_job("nobody", name="x\n")
    with pytest.raises(EncodeError):
        await worker.request_job("nobody", payload=object())
    async with runner:
        await anyio.wait_all_tasks_blocked()
    assert sorted(error.partition(":")[0] for error in errors) == [
        "could not request a job, as it was told before the runner ran",
        "could not send a message, as it was told before the runner ran",
    ]


LATE: dict[str, Callable[[Witness], Awaitable[object]]] = {
    "send a message": lambda worker: worker.send_bus_message(Note(source="worker")),
    "activate": lambda worker: worker.activate_worker("other"),
    "deactivate": lambda worker: worker.deactivate_worker("other"),
    "report an error": lambda worker: worker.send_bus_error_message("late"),
    "publish": lambda worker: worker.publish("news"),
    "watch workers": lambda worker: worker.watch_workers("other"),
    "unwatch workers": lambda worker: worker.unwatch_workers("other"),
    "end the session": lambda worker: worker.end(),
    "cancel the session": lambda worker: worker.cancel(),
    "ask for an update": lambda worker: worker.request_job_update("j", "other"),
}


@pytest.mark.parametrize("verb", LATE)
@pytest.mark.parametrize("who", ["runner", "worker"])
async def test_a_verb_after_the_end_is_dropped_and_logged(
    verb: str, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    runner, worker = quiet(), Witness("worker")
    await runner.add_workers(worker, Witness("other"))
    async with runner:
        if who == "worker":
            await worker.stop()
            await LATE[verb](worker)
    if who == "runner":
        await LATE[verb](worker)
    assert caplog.text.count("dropped: the worker has stopped") == 1


async def test_what_waits_for_an_answer_is_refused_after_the_end() -> None:
    runner, worker = quiet(), Witness("worker")
    await runner.add_workers(worker)
    async with runner:
        pass
    for ask in (worker.job("worker"), worker.request_job("worker"), worker.add_workers(Witness("child"))):
        with pytest.raises(RunnerStateError, match="it is stopped"):
            await ask
    with pytest.raises(RunnerStateError, match="start a background task"):
        worker.create_task(anyio.lowlevel.checkpoint())


async def test_a_message_on_a_stopped_bus_is_dropped_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    runner = quiet()
    async with runner:
        pass
    before = runner.bus.statistics().undeliverable
    await runner.bus.send(Note(source="somebody"))
    assert runner.bus.statistics().undeliverable == before + 1
    assert "message dropped: the bus was stopped" in caplog.text


async def test_a_worker_given_to_run_is_added_first() -> None:
    runner, worker = quiet(), Witness("worker")

    async with anyio.create_task_group() as group:
        group.start_soon(runner.run, worker)
        await anyio.wait_all_tasks_blocked()
        await worker.end()
    assert worker.seen == [("activated", None)]


@pytest.mark.parametrize("backend", ["asyncio"])
def test_a_background_task_is_asked_and_awaited_like_a_task_of_asyncio(backend: str) -> None:
    async def program() -> None:
        worker, runner = Witness("worker"), quiet()
        await runner.add_workers(worker)

        async def answer(seconds: float, value: int) -> int:
            await asyncio.sleep(seconds)
            if value < 0:
                raise ValueError(value)
            return value

        async with runner:
            done, pending = await asyncio.wait({worker.create_task(answer(0, n)) for n in range(3)})  # type: ignore[type-var]
            assert ({task.result() for task in done}, pending) == ({0, 1, 2}, set())
            assert await asyncio.gather(*(worker.create_task(answer(0, n)) for n in range(3))) == [0, 1, 2]
            slow = worker.create_task(answer(60, 1))
            with pytest.raises(asyncio.InvalidStateError):
                slow.result()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(slow, 0.01)
            await slow.wait()
            assert slow.cancelled()
            with pytest.raises(asyncio.CancelledError):
                slow.exception()
            failing = worker.create_task(answer(0, -1))
            with pytest.raises(ValueError, match="-1"):
                await failing
            assert isinstance(failing.exception(), ValueError)
            assert not failing.cancel()

    anyio.run(program, backend=backend)
