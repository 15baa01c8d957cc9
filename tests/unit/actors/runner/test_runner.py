"""A runner from its making to its end, seen by the program that has it: names, contexts, events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import (
    BaseWorker,
    RestartPolicy,
    RunnerStateError,
    SupervisionError,
    WorkerRunner,
)
from actors.worker.verbs import core_of
from bus import AsyncQueueBus, DuplicateNameError
from tests.support.running import running
from tests.support.workers import Asker, Performer, quiet

pytestmark = pytest.mark.anyio


EARLY: dict[str, Callable[[BaseWorker], Any]] = {
    "job": lambda worker: worker.job("other"),
    "job_group": lambda worker: worker.job_group("other"),
    "create_job_group_and_request_job": lambda worker: worker.create_job_group_and_request_job(["other"]),
    "start": lambda worker: worker.start(),
    "wait": lambda worker: worker.wait(),
}
"""What somebody waits for: it cannot be put off."""

PUT_OFF: dict[str, Callable[[BaseWorker], Any]] = {
    "request_job": lambda worker: worker.request_job("other"),
    "end": lambda worker: worker.end(),
    "cancel": lambda worker: worker.cancel(),
    "add_workers": lambda worker: worker.add_workers(BaseWorker("child")),
    "supervise": lambda worker: worker.supervise(lambda: BaseWorker("child")),
    "watch_workers": lambda worker: worker.watch_workers("other"),
    "publish": lambda worker: worker.publish("topic", 1),
    "activate_worker": lambda worker: worker.activate_worker("other"),
    "send_bus_error_message": lambda worker: worker.send_bus_error_message("no"),
    "request_job_update": lambda worker: worker.request_job_update("j", "other"),
}


@pytest.mark.parametrize("verb", EARLY | PUT_OFF)
async def test_a_verb_of_a_worker_without_a_runner_raises_and_says_what_to_do(verb: str) -> None:
    with pytest.raises(RunnerStateError, match=r"'early' cannot .*add it to a runner and run"):
        await (EARLY | PUT_OFF)[verb](BaseWorker("early"))


@pytest.mark.parametrize("verb", EARLY)
async def test_what_waits_for_an_answer_raises_before_the_runner_runs(verb: str) -> None:
    worker = BaseWorker("early")
    await quiet().add_workers(worker)
    with pytest.raises(RunnerStateError, match=r"'early' cannot .*add it to a runner and run"):
        await EARLY[verb](worker)


@pytest.mark.parametrize("verb", PUT_OFF)
async def test_everything_else_is_put_off_until_the_runner_runs(verb: str) -> None:
    worker, runner = BaseWorker("early"), quiet()
    await runner.add_workers(worker)
    await PUT_OFF[verb](worker)


async def test_what_needs_a_runner_says_so_when_there_is_none() -> None:
    for attribute in ("bus", "registry", "worker_runner"):
        with pytest.raises(RunnerStateError, match="has no runner yet"):
            getattr(BaseWorker("early"), attribute)


async def test_a_background_task_before_the_start_is_refused_and_its_coroutine_closed() -> None:
    with pytest.raises(RunnerStateError, match="cannot start a background task"):
        BaseWorker("early").create_task(
            anyio.lowlevel.checkpoint()
        )  # filterwarnings turns "never awaited" into an error


async def test_a_worker_removed_before_the_run_does_not_end_the_run() -> None:
    runner, ran = quiet(), anyio.Event()

    class Running(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()
            ran.set()

    removed, stopped = BaseWorker("removed"), BaseWorker("stopped")
    await runner.add_workers(removed, stopped)
    assert await runner.remove_worker("removed")
    await stopped.stop()
    assert (core_of(removed).state.name, core_of(stopped).state.name) == ("STOPPED", "STOPPED")
    await runner.add_workers(Running("removed"))
    await runner.run()
    assert ran.is_set()


async def test_a_runner_told_to_end_before_its_run_runs_nothing() -> None:
    runner, worker = quiet(), BaseWorker("worker")
    await runner.add_workers(worker)
    await runner.end()
    await runner.run()
    assert core_of(worker).state.name == "STOPPED"


async def test_a_runner_lives_once() -> None:
    runner = quiet("once")
    async with runner:
        pass
    with pytest.raises(RunnerStateError, match="'once' has been run before: make a new one"):
        await runner.run()
    with pytest.raises(RunnerStateError, match="make a new one"):
        async with runner:
            pytest.fail("entered")
    with pytest.raises(RunnerStateError, match="'once' is ending: it takes no new"):
        await runner.add_workers(BaseWorker("late"))


async def test_a_worker_is_added_once() -> None:
    first, second, worker = quiet("first"), quiet("second"), BaseWorker("worker")
    await first.add_workers(worker)
    with pytest.raises(RunnerStateError, match="was added to runner 'first' before"):
        await first.add_workers(worker)
    with pytest.raises(RunnerStateError, match="'worker' is attached: add a new one"):
        await second.add_workers(worker)


async def test_a_name_that_is_taken_is_refused_naming_both() -> None:
    async with running(Performer("a"), Asker()) as runner:
        with pytest.raises(DuplicateNameError, match=r"'a' is already taken by <Performer a ready> of runner"):
            await runner.add_workers(BaseWorker("a"))
        assert await runner.get_worker("asker").job("a", name="echo", payload=1) == 1  # type: ignore[union-attr]


async def test_a_runner_that_finds_a_name_taken_leaves_its_holder_alone() -> None:
    async with AsyncQueueBus() as bus, running(Performer("a"), Asker(), name="first", bus=bus) as first:
        asker = first.get_worker("asker")
        assert asker is not None
        for name in ("second", "first"):
            late = quiet(name, bus=bus)
            await late.add_workers(Performer("a"))
            with pytest.raises(DuplicateNameError, match="is already taken"):
                await late.run()
            again = quiet(name, bus=bus)
            await again.add_workers(Performer("a"))
            with pytest.raises(DuplicateNameError, match="is already taken"):
                async with again:
                    pytest.fail("entered")
            assert await asker.job("a", name="echo", payload=name) == name
            assert bus.statistics().subscribers == 3  # the runner and its two workers
        await asker.end()  # reaches the first runner: it still has its name


async def test_a_runner_that_is_named_like_a_worker_of_another_leaves_that_one_alone() -> None:
    async with AsyncQueueBus() as bus, running(Performer("a"), Asker(), bus=bus) as first:
        with pytest.raises(DuplicateNameError, match="'a' is already taken"):
            await quiet("a", bus=bus).run()
        asker = first.get_worker("asker")
        assert asker is not None
        assert await asker.job("a", name="echo", payload=1) == 1


async def test_a_worker_without_a_name_gets_one_nobody_has() -> None:
    async with running(BaseWorker(), BaseWorker()) as runner:
        names = runner.registry.local_workers
        assert len(set(names)) == 2
        assert all(name.startswith("BaseWorker-") for name in names)


async def test_the_context_raises_what_the_body_raised_and_has_stopped_everything() -> None:
    runner, worker = quiet(), Performer("worker")
    await runner.add_workers(worker)

    async def script() -> None:
        async with runner:
            await worker.request_job("worker", name="work")
            raise KeyError("body")

    with pytest.raises(KeyError, match="body"):
        await script()
    assert core_of(worker).state.name == "STOPPED"
    assert not runner.running


async def test_the_body_of_the_context_is_cancelled_when_the_runner_fails() -> None:
    fail = anyio.Event()

    class Failing(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()
            await fail.wait()
            raise ValueError("no")

    runner = quiet()
    await runner.supervise(lambda: Failing("failing"), restart=RestartPolicy(max_restarts=0))

    async def script() -> None:
        async with runner:
            fail.set()
            await anyio.sleep_forever()

    with pytest.raises(SupervisionError, match="'failing' failed again after 0 restarts"):
        await script()


async def test_a_context_whose_entering_is_cancelled_stops_everything() -> None:
    runner, entered = quiet(), anyio.Event()

    @runner.event_handler("on_ready")
    async def on_ready(_: WorkerRunner) -> None:
        entered.set()
        await anyio.sleep_forever()

    worker = BaseWorker("a")
    await runner.add_workers(worker)
    async with anyio.create_task_group() as tasks:

        async def enter() -> None:
            async with runner:
                pytest.fail("entered")

        tasks.start_soon(enter)
        await entered.wait()
        tasks.cancel_scope.cancel()
    assert core_of(worker).state.name == "STOPPED"
