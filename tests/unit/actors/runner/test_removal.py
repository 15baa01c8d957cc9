"""A worker that is stopped or removed is gone at once and whole: G26."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import (
    BaseWorker,
    JobError,
    JobStatus,
    WorkerUnavailableError,
    job,
)
from actors.worker.verbs import core_of
from bus import AsyncQueueBus, BusCancelWorkerMessage, BusEndWorkerMessage
from tests.support.running import running
from tests.support.virtual_time import virtual_time
from tests.support.workers import Asker, Performer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["remove_worker", "stop", "run returns", "end message", "cancel message"])
async def test_g26_a_worker_that_is_gone_leaves_nothing_and_its_name_is_free_at_once(how: str) -> None:
    leave = anyio.Event()

    class Leaving(Performer):
        async def run(self, params: Any) -> None:
            await self.start()
            await (leave.wait() if how == "run returns" else self.wait())

    near, far, worker = Asker("near"), Asker("far"), Leaving("worker")
    async with AsyncQueueBus() as bus, running(near, worker, bus=bus) as runner, running(far, bus=bus) as other:
        for watcher in (near, far):
            await watcher.watch_workers("worker")
        await anyio.wait_all_tasks_blocked()
        subscribers = bus.statistics().subscribers
        match how:
            case "remove_worker":
                assert await runner.remove_worker("worker")
            case "stop":
                await worker.stop()
            case "run returns":
                leave.set()
                await worker.wait()
            case "end message":
                await far.send_bus_message(BusEndWorkerMessage(source="far", target="worker"))
                await worker.wait()
            case _:
                await far.send_bus_message(BusCancelWorkerMessage(source="far", target="worker"))
                await worker.wait()
        assert bus.statistics().subscribers == subscribers - 1
        assert "worker" not in runner.registry
        assert runner.get_worker("worker") is None
        successor = Performer("worker")
        await runner.add_workers(successor)
        assert await near.job("worker", name="echo", payload=2) == 2
        await anyio.wait_all_tasks_blocked()
        assert [data.worker_name for data in near.lost] == ["worker"]
        assert [(data.worker_name, data.runner) for data in far.lost] == [("worker", runner.name)]
        assert "worker" in other.registry


async def test_g26_removing_what_is_not_there_says_so() -> None:
    async with running(BaseWorker("a")) as runner:
        assert not await runner.remove_worker("b")
        assert await runner.remove_worker("a")
        assert not await runner.remove_worker("a")


async def test_g26_a_removed_worker_drains_and_gives_what_it_has_not_begun_to_its_successor() -> None:
    worker, asker = Performer("worker"), Asker()
    async with running(worker, asker) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(asker.ask, "worker", "one", "first")
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(asker.ask, "worker", "one", "second")
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(runner.remove_worker, "worker")
        await anyio.wait_all_tasks_blocked()
        assert worker.begun == ["first"]
        assert core_of(worker).state.name == "DRAINING"
        worker.gate.set()
        await worker.wait()
        successor = Performer("worker")
        successor.gate.set()
        await runner.add_workers(successor)
        tasks.start_soon(asker.ask, "worker", "one", "third")
    assert asker.outcomes == dict.fromkeys(["first", "second", "third"], "done by worker")
    assert worker.begun == ["first"]
    assert successor.begun == ["second", "third"]


@virtual_time()
async def test_g26_a_job_that_does_not_drain_in_time_is_cancelled_and_its_requester_told() -> None:
    worker, asker = Performer("worker"), Asker()
    async with running(worker, asker, drain_timeout=7.0) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(asker.ask, "worker")
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        await runner.remove_worker("worker")
        assert anyio.current_time() - began == pytest.approx(7.0)
    assert asker.outcomes["j"].status is JobStatus.CANCELLED
    assert "worker 'worker' stopped: it was removed" in str(asker.outcomes["j"])


@virtual_time()
async def test_g26_a_removal_goes_on_when_its_caller_is_cancelled() -> None:
    worker, asker = Performer("worker"), Asker()
    async with running(worker, asker, drain_timeout=5.0) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(asker.ask, "worker")
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(1):
            await runner.remove_worker("worker")
        assert core_of(worker).state.name == "DRAINING"
        await worker.wait()
        assert runner.get_worker("worker") is None
    assert asker.outcomes["j"].status is JobStatus.CANCELLED


@virtual_time()
@pytest.mark.parametrize("remover", ["worker", "child", "friend"])
async def test_g26_a_worker_can_be_removed_inside_a_job_that_it_takes_part_in(remover: str) -> None:
    """Else the removal waits for the job, and the job for the removal, until the drain gives up."""

    class Remover(Performer):
        @job(name="remove")
        async def remove(self) -> str:
            await self.worker_runner.remove_worker("worker")
            await anyio.lowlevel.checkpoint()
            return "removed"

        @job(name="remove-by-another")
        async def remove_by_another(self) -> Any:
            return await self.job(remover, name="remove")

    worker, asker = Remover("worker"), Asker()
    async with running(worker, Remover("friend"), asker):
        await worker.add_workers(Remover("child"))
        began = anyio.current_time()
        if remover == "friend":
            assert await asker.job("worker", name="remove-by-another") == "removed"
        else:
            assert await asker.job(remover, name="remove") == "removed"
        await worker.wait()
        assert anyio.current_time() == began


@pytest.mark.parametrize("where", ["job", "hook", "background task", "run"])
async def test_g26_a_worker_may_stop_itself_anywhere(where: str) -> None:
    class Suicidal(BaseWorker):
        async def run(self, params: Any) -> None:
            await super().start()
            if where == "run":
                await self.stop()
            await self.wait()

        async def on_activated(self, args: Any) -> None:
            if where == "hook":
                await self.stop()
            if where == "background task":
                self.create_task(self.stop())

        @job(name="die")
        async def die(self) -> None:
            await self.stop()

    worker, asker = Suicidal("worker"), Asker()
    async with running(asker) as runner:
        await runner.add_workers(worker)
        if where == "job":
            await asker.ask("worker", "die")
            assert asker.outcomes["j"].status is JobStatus.CANCELLED
        await worker.wait()
        assert runner.get_worker("worker") is None


@pytest.mark.parametrize("how", ["stop", "remove", "runner ends"])
async def test_g26_an_overridden_stop_runs_once_however_the_worker_is_stopped(how: str) -> None:
    calls = []

    class Tidy(BaseWorker):
        async def stop(self) -> None:
            calls.append(f"before, {core_of(self).state.name.lower()}")
            await super().stop()
            calls.append("after")

    worker = Tidy("tidy")
    async with running(worker, BaseWorker("other")) as runner:
        match how:
            case "stop":
                await worker.stop()
                assert calls == ["before, ready", "after"]
            case "remove":
                await runner.remove_worker("tidy")
            case _:
                pass
    assert [call.split(",")[0] for call in calls] == ["before", "after"]


@virtual_time()
async def test_g26_a_stop_that_never_returns_is_left_behind() -> None:
    class Stuck(BaseWorker):
        async def stop(self) -> None:
            await anyio.sleep_forever()

    async with running(Stuck("stuck"), BaseWorker("other")) as runner:
        began = anyio.current_time()
        await runner.remove_worker("stuck")
        assert anyio.current_time() - began == pytest.approx(10.0)
        assert runner.get_worker("stuck") is None


async def test_g26_what_raises_out_of_a_stop_is_reported_and_stops_nothing() -> None:
    class Failing(BaseWorker):
        async def stop(self) -> None:
            raise SystemExit(2)

    errors = []
    async with running(Failing("failing"), BaseWorker("other")) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        assert await runner.remove_worker("failing")
        assert runner.get_worker("failing") is None
        await anyio.wait_all_tasks_blocked()
    assert [(data.worker_name, data.error) for data in errors] == [("failing", "hook stop failed: SystemExit: 2")]


async def test_g26_hooks_and_background_tasks_end_with_their_worker() -> None:
    left = []

    class Blocked(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            self.create_task(self.forever("task"))
            await self.forever("hook")

        async def forever(self, what: str) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                left.append(what)

    async with running(BaseWorker("other")) as runner:
        before = runner.statistics().tasks
        await runner.add_workers(Blocked("blocked"))
        await anyio.wait_all_tasks_blocked()
        assert runner.statistics().tasks == before + 2
        await runner.remove_worker("blocked")
        assert sorted(left) == ["hook", "task"]
        await anyio.wait_all_tasks_blocked()
        assert runner.statistics().tasks == before


async def test_g26_a_worker_whose_every_part_swallows_its_cancellation_is_still_gone_after_the_grace() -> None:
    released = anyio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            with contextlib.suppress(BaseException):
                await released.wait()

    class Stubborn(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()
            await stubborn()

        async def on_activated(self, args: Any) -> None:
            await stubborn()

        @job(name="work")
        async def work(self) -> None:
            await stubborn()

    asker = Asker()
    async with running(Stubborn("stubborn"), asker, cancel_grace=0.1, drain_timeout=0.0) as runner:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asker.ask, "stubborn")
            await anyio.wait_all_tasks_blocked()
            await runner.remove_worker("stubborn")
        assert asker.outcomes["j"].status is JobStatus.CANCELLED
        assert runner.get_worker("stubborn") is None
        await runner.add_workers(Performer("stubborn"))
        assert await asker.job("stubborn", name="echo", payload=1) == 1
        released.set()


@virtual_time()
async def test_g26_requests_that_keep_coming_do_not_delay_a_stop() -> None:
    worker, asker = Performer("worker"), Asker()

    class Slow(Performer):
        async def stop(self) -> None:
            await asker.request_job("slow", name="work", job_id="while it stops", timeout=5)
            await super().stop()

    slow = Slow("slow")
    async with running(worker, slow, asker) as runner:
        began = anyio.current_time()
        await runner.remove_worker("slow")
        assert anyio.current_time() == began
        assert slow.begun == []
        group = asker.job_groups["while it stops"]
        with pytest.raises(JobError, match="deadline"):
            await group.wait()


async def test_g26_a_worker_that_many_remove_at_once_is_removed_once_and_all_of_them_return() -> None:
    stops = []

    class Tidy(Performer):
        async def stop(self) -> None:
            stops.append(self.name)
            await super().stop()

    worker, asker = Tidy("worker"), Asker()
    async with running(worker, asker) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(asker.ask, "worker")
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            tasks.start_soon(runner.remove_worker, "worker")
        tasks.start_soon(worker.wait)
        await anyio.wait_all_tasks_blocked()
        worker.gate.set()
    assert asker.outcomes == {"j": "done by worker"}
    assert stops == ["worker"]


@pytest.mark.parametrize("successor", [True, False])
@virtual_time()
async def test_g26_senders_that_wait_for_room_are_not_left_waiting(successor: bool) -> None:
    class Narrow(Performer):
        mailbox_size = 1

    worker, asker = Narrow("worker"), Asker()
    async with running(worker, asker, drain_timeout=1.0) as runner, anyio.create_task_group() as tasks:
        for job_id in ("running", "queued", "waiting", "waiting too"):
            tasks.start_soon(asker.ask, "worker", "one", job_id)
            await anyio.wait_all_tasks_blocked()
        await runner.remove_worker("worker")
        if successor:
            after = Narrow("worker")
            after.gate.set()
            await runner.add_workers(after)
    assert asker.outcomes.pop("running").status is JobStatus.CANCELLED
    assert len(asker.outcomes) == 3
    for outcome in asker.outcomes.values():
        assert outcome == "done by worker" if successor else isinstance(outcome, WorkerUnavailableError)


@virtual_time()
async def test_g26_a_worker_whose_start_never_ends_can_be_removed_and_its_jobs_fail_in_time() -> None:
    class Stuck(Performer):
        async def start(self) -> None:
            await anyio.sleep_forever()

    asker = Asker()
    async with running(asker, ready_timeout=20.0) as runner, anyio.create_task_group() as tasks:
        await runner.add_workers(Stuck("stuck"))
        began = anyio.current_time()
        tasks.start_soon(asker.ask, "stuck")
        await anyio.sleep(5)
        await runner.remove_worker("stuck")
        assert anyio.current_time() - began == pytest.approx(5.0)
        assert runner.get_worker("stuck") is None
    assert isinstance(asker.outcomes["j"], WorkerUnavailableError)
    assert anyio.current_time() - began == pytest.approx(20.0)


async def test_g26_what_a_worker_asks_for_while_it_stops_ends_with_it() -> None:
    class Asking(Asker):
        async def stop(self) -> None:
            await self.request_job("performer", name="work")
            await super().stop()

    performer = Performer("performer")
    async with running(performer, Asking("asking")) as runner:
        await runner.remove_worker("asking")
        await anyio.wait_all_tasks_blocked()
        assert performer.active_jobs == {}
        assert runner.statistics().groups == 0
