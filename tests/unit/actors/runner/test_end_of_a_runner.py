"""Runners end in order, in time, and children before their parents: G30."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import (
    BaseWorker,
    JobStatus,
    RunnerStateError,
    WorkerRunner,
    job,
)
from actors.worker.verbs import core_of
from tests.support.running import running
from tests.support.virtual_time import virtual_time
from tests.support.workers import Asker, Performer, quiet

pytestmark = pytest.mark.anyio


async def test_g30_children_are_stopped_before_their_parents() -> None:
    order = []

    class Node(BaseWorker):
        async def stop(self) -> None:
            order.append(self.name)
            await super().stop()

    root = Node("root")
    async with running(root, Node("other")) as runner:
        branches = [Node("left"), Node("right")]
        await root.add_workers(*branches)
        for branch in branches:
            await branch.add_workers(Node(f"{branch.name}.1"), Node(f"{branch.name}.2"))
        assert [child.name for child in root.children] == ["left", "right"]
        assert branches[0].parent == "root"
        await runner.remove_worker("left")
        assert (set(order[:2]), order[2:]) == ({"left.1", "left.2"}, ["left"])
        assert [child.name for child in root.children] == ["right"]
        order.clear()
    order.remove("other")
    assert (set(order[:2]), order[2:]) == ({"right.1", "right.2"}, ["right", "root"])


async def linger(seconds: float) -> None:
    """Go on for a while after the cancellation."""
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(seconds)


@virtual_time()
@pytest.mark.parametrize("how", ["end", "cancel"])
async def test_g30_the_handlers_of_all_workers_are_told_to_stop_together(how: str) -> None:
    class Slow(BaseWorker):
        @job(name="work")
        async def work(self) -> None:
            await linger(3.0)

    asker, runner = Asker(), quiet(drain_timeout=0.0)
    await runner.add_workers(asker, *(Slow(f"slow-{number}") for number in range(10)))
    async with runner:
        for number in range(10):
            await asker.request_job(f"slow-{number}", name="work")
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        await getattr(runner, how)()
    assert anyio.current_time() - began == pytest.approx(3.0)


@virtual_time()
@pytest.mark.parametrize("slow", ["stop", "background task"])
@pytest.mark.parametrize("cancelled_after", [0.0, 1.0, None], ids=["at once", "by a second signal", "in order"])
async def test_g57_siblings_stop_side_by_side_and_children_still_before_their_parents(
    slow: str, cancelled_after: float | None
) -> None:
    order = []

    class Slow(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            if slow == "background task":
                self.create_task(linger(3.0))

        async def stop(self) -> None:
            order.append(self.name)
            if slow == "stop":
                await anyio.sleep(3.0)
            await super().stop()

    parent, runner = Slow("parent"), quiet()
    await runner.add_workers(parent)
    async with runner:
        await parent.add_workers(*(Slow(f"slow-{number}") for number in range(10)))
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        await (runner.end() if cancelled_after != 0 else runner.cancel())
        if cancelled_after is not None:
            await anyio.sleep(cancelled_after)
            await runner.cancel()
    assert anyio.current_time() - began == pytest.approx(6.0)  # the children together, the parent last
    assert len(order) == 11
    assert order[-1] == "parent"


@virtual_time()
@pytest.mark.parametrize("early", [True, False], ids=["before", "while it stops"])
async def test_g30_a_stop_has_no_more_than_the_grace_once_the_runner_is_cancelled(early: bool) -> None:
    class Stuck(BaseWorker):
        async def stop(self) -> None:
            await anyio.sleep_forever()

    runner = quiet(cancel_grace=2.0)
    await runner.add_workers(*(Stuck(f"stuck-{number}") for number in range(5)))
    async with runner:
        began = anyio.current_time()
        if not early:
            await runner.end()
            await anyio.sleep(1.0)
        await runner.cancel()
    assert anyio.current_time() - began == pytest.approx(2.0 if early else 1.0 + 2.0)


@pytest.mark.parametrize("drained", [True, False], ids=["drained", "at once"])
@pytest.mark.parametrize("when", ["in its stop", "in a sibling's stop", "while it drains"])
async def test_g30_no_child_outlives_its_parent_even_if_it_is_added_while_the_parent_ends(
    when: str, drained: bool
) -> None:
    refused = []
    late = BaseWorker("late")

    async def add_to(parent: BaseWorker) -> None:
        try:
            await parent.add_workers(late)
        except RunnerStateError as error:
            refused.append(str(error))

    class Parent(Performer):
        async def stop(self) -> None:
            if when == "in its stop":
                await add_to(self)
            await super().stop()

        @job(name="add-later")
        async def add_later(self, message: Any) -> None:
            await self.gate.wait()
            await add_to(self)

    class Child(BaseWorker):
        async def stop(self) -> None:
            if when == "in a sibling's stop" and self.name == "second":
                await add_to(parent)
            await super().stop()

    parent, asker = Parent("parent"), Asker()
    async with running(parent, asker) as runner, anyio.create_task_group() as tasks:
        await parent.add_workers(Child("first"), Child("second"))
        if when == "while it drains":
            tasks.start_soon(asker.ask, "parent", "add-later")
            await anyio.wait_all_tasks_blocked()
        if drained:
            tasks.start_soon(runner.remove_worker, "parent")
        else:
            tasks.start_soon(parent.stop)
        await anyio.wait_all_tasks_blocked()
        parent.gate.set()
        await parent.wait()
        assert runner.registry.local_workers == ["asker"]
    assert core_of(late).state.name in {"NEW", "STOPPED"}
    assert not refused or "is ending: it takes no new children" in refused[0]


async def test_a_runner_that_ends_takes_no_new_workers() -> None:
    refused = []

    class Late(BaseWorker):
        async def stop(self) -> None:
            try:
                await self.worker_runner.add_workers(BaseWorker("late"))
            except RunnerStateError as error:
                refused.append(str(error))
            await super().stop()

    runner = quiet("runner")
    await runner.add_workers(Late("a"))
    async with runner:
        pass
    assert refused == ["runner 'runner' is ending: it takes no new jobs or workers"]
    assert runner.registry.local_workers == []


async def test_g30_an_ending_runner_lets_running_jobs_finish_and_takes_no_new_ones() -> None:
    worker, asker = Performer("worker"), Asker()
    runner = quiet()
    await runner.add_workers(worker, asker)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(asker.ask, "worker")
        await anyio.wait_all_tasks_blocked()
        await runner.end("enough")
        await anyio.wait_all_tasks_blocked()
        assert core_of(worker).state.name == "DRAINING"
        with pytest.raises(RunnerStateError, match="is ending: it takes no new jobs"):
            await asker.job("worker", name="work")
        worker.gate.set()
    assert asker.outcomes == {"j": "done by worker"}
    assert core_of(worker).state.name == core_of(asker).state.name == "STOPPED"
    assert not runner.running


async def test_g30_who_waits_for_an_answer_gets_it_before_it_is_stopped_itself() -> None:
    class Ending(BaseWorker):
        @job(name="last")
        async def last(self) -> str:
            await self.worker_runner.end()
            return "the last answer"

    for _ in range(10):  # trio runs what is ready in random order
        asker = Asker()
        runner = quiet()
        await runner.add_workers(asker, Ending("ending"))
        async with runner:
            asker.create_task(asker.ask("ending", "last"))
            await asker.wait()
        assert asker.outcomes == {"j": "the last answer"}


@pytest.mark.parametrize("helper_was_used", [False, True])
@virtual_time()
async def test_g30_sub_jobs_of_draining_jobs_still_work(helper_was_used: bool) -> None:
    worker, helper, asker = Performer("worker"), Performer("helper"), Asker()
    async with running(worker, helper, asker) as runner, anyio.create_task_group() as tasks:
        if helper_was_used:
            await asker.job("helper", name="echo")
        tasks.start_soon(asker.ask, "worker", "delegate", "j", "helper")
        await anyio.wait_all_tasks_blocked()
        await runner.end()
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        worker.gate.set()
        await worker.wait()
        assert anyio.current_time() == began
        tasks.cancel_scope.cancel()
    assert asker.outcomes == {"j": "from the sub-job"}


@virtual_time()
async def test_g30_the_drain_is_bounded_and_then_jobs_are_cancelled() -> None:
    worker, asker, runner = Performer("worker"), Asker(), quiet(drain_timeout=20.0)
    await runner.add_workers(worker, asker)
    began = 0.0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(asker.ask, "worker")
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        await runner.end()
    assert anyio.current_time() - began == pytest.approx(20.0)
    assert asker.outcomes["j"].status is JobStatus.CANCELLED


@virtual_time()
async def test_g30_a_cancel_cuts_the_drain_short() -> None:
    worker, asker, runner = Performer("worker"), Asker(), quiet(drain_timeout=20.0)
    await runner.add_workers(worker, asker)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(asker.ask, "worker")
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        await runner.end()
        await anyio.sleep(2)
        await runner.cancel()
        await worker.wait()
        assert anyio.current_time() - began == pytest.approx(2.0)
    assert asker.outcomes["j"].status is JobStatus.CANCELLED


async def test_g30_requesters_outside_of_the_runner_are_told_when_it_stops() -> None:
    asker, runner = Asker(), quiet()
    await runner.add_workers(asker)
    async with runner:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asker.ask, "nobody", "work", "one")
            tasks.start_soon(asker.ask, "nobody", "work", "two")
            await anyio.wait_all_tasks_blocked()
            await runner.end()
        assert {error.status for error in asker.outcomes.values()} == {JobStatus.CANCELLED}
    assert runner.statistics().groups == 0
    assert runner.bus.statistics().parked == 0


async def test_a_runner_ends_with_its_last_worker_if_told_so() -> None:
    runner, workers = quiet(), [BaseWorker("a"), BaseWorker("b")]
    await runner.add_workers(*workers)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await anyio.wait_all_tasks_blocked()
        await workers[0].stop()
        await anyio.wait_all_tasks_blocked()
        assert runner.running
        await runner.add_workers(BaseWorker("a"))
        for name in ("a", "b"):
            await runner.remove_worker(name)
    assert not runner.running


async def test_a_runner_told_not_to_end_by_itself_goes_on_without_workers() -> None:
    runner, worker = quiet(), BaseWorker("a")
    await runner.add_workers(worker)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: runner.run(auto_end=False))
        await anyio.wait_all_tasks_blocked()
        await worker.stop()
        await anyio.wait_all_tasks_blocked()
        assert runner.running
        await runner.end()


async def test_a_ready_handler_that_never_returns_does_not_keep_the_runner_from_ending() -> None:
    runner, called = quiet(), anyio.Event()
    await runner.add_workers(BaseWorker("a"))

    @runner.event_handler("on_ready")
    async def on_ready(_: WorkerRunner) -> None:
        called.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await called.wait()
        await runner.end()
    assert not runner.running


async def test_a_program_may_live_in_the_ready_handler() -> None:
    runner, worker, asker, seen = quiet(), Performer("worker"), Asker(), []

    @runner.event_handler("on_ready")
    async def main(_: WorkerRunner) -> None:
        seen.append(await asker.job("worker", name="echo", payload=3))
        await runner.end()

    await runner.add_workers(worker, asker)
    await runner.run()
    assert seen == [3]


@pytest.mark.parametrize("kind", [ValueError, SystemExit, asyncio.CancelledError])
async def test_event_handlers_that_raise_change_nothing(kind: type[BaseException]) -> None:
    worker, asker = Performer("worker"), Asker()
    async with running(worker, asker) as runner:
        for event in ("on_job_start", "on_job_complete", "on_job_error", "on_error"):

            @runner.event_handler(event)
            async def fail(*_: Any) -> None:
                raise kind("no")

        @worker.event_handler("on_job_request")
        def fail_too(*_: Any) -> None:
            raise kind("no")

        assert await asker.job("worker", name="echo", payload=1) == 1
        await asker.ask("worker", "unknown")
        await worker.send_bus_error_message("an error")
        await anyio.wait_all_tasks_blocked()
        assert await asker.job("worker", name="echo", payload=2) == 2
