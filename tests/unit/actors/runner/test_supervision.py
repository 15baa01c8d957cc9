"""Workers that fail: who is told, who is made again, when, and when it is given up on: G29, G57."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import Backoff, BaseWorker, JobStatus, RestartPolicy, SupervisionError
from actors.worker.verbs import core_of
from bus import WorkerErrorData
from tests.support.running import running
from tests.support.virtual_time import virtual_time
from tests.support.workers import Asker, Parent, Team, quiet

pytestmark = pytest.mark.anyio

STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
SOON = Backoff(first=0.0)


# --- who is told ---


@pytest.mark.parametrize("in_start", [False, True], ids=["run", "start"])
@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_g29_the_parent_of_a_child_that_raises_is_told_and_lives_on(
    in_start: bool, kind: type[BaseException]
) -> None:
    class Raising(BaseWorker):
        async def start(self) -> None:
            if in_start:
                raise kind("because")
            await super().start()

        async def run(self, params: Any) -> None:
            await self.start()
            raise kind("because")

    parent, child, errors = Parent(), Raising("child"), []
    async with running(parent) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data.worker_name))
        await parent.add_workers(child)
        await child.wait()
        await anyio.wait_all_tasks_blocked()
        assert parent.failed == [WorkerErrorData("child", f"{kind.__name__}: because", restarting=False)]
        assert errors == ["child"]
        assert parent.children == []
        assert runner.get_worker("child") is None
        assert core_of(parent).state.name == "READY"
        await parent.add_workers(BaseWorker("child"))


async def test_g29_a_root_worker_that_raises_is_reported_and_stops_alone() -> None:
    team, errors = Team(), []
    async with running(team.factory("root")(), BaseWorker("other")) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append((data.worker_name, data.error)))
        team.now("root").fate.set()
        await team.now("root").wait()
        await anyio.wait_all_tasks_blocked()
        assert errors == [("root", "worker failed: ValueError: root failed")]
        assert runner.registry.local_workers == ["other"]


async def test_g29_a_supervised_child_is_watched_and_its_failures_are_told() -> None:
    team, parent = Team(), Parent()
    async with running(parent):
        await parent.supervise(team.factory("child"), restart=RestartPolicy(backoff=SOON))
        await anyio.wait_all_tasks_blocked()
        team.now("child").fate.set()
        await anyio.wait_all_tasks_blocked()
        assert parent.failed == [WorkerErrorData("child", "ValueError: child failed", restarting=True)]
        assert parent.seen == ["child up", "child lost", "child up"]
        assert parent.children == [team.now("child")]


# --- whom to make again ---


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_g29_a_strategy_says_who_is_made_again_in_which_order(strategy: Any, failing: int) -> None:
    names = ["a", "b", "c"]
    affected = {"one_for_one": [names[failing]], "one_for_all": names, "rest_for_one": names[failing:]}[strategy]
    team, parent = Team(), Parent()
    async with running(parent):
        await parent.supervise(*map(team.factory, names), restart=RestartPolicy(strategy=strategy, backoff=SOON))
        await anyio.wait_all_tasks_blocked()
        first = {name: team.now(name) for name in names}
        team.log.clear()
        first[names[failing]].fate.set()
        await anyio.wait_all_tasks_blocked()
        assert team.counts == {name: 2 if name in affected else 1 for name in names}
        made = [line for line in team.log if line.startswith("make")]
        stops = [line for line in team.log if line.startswith("stop")]
        assert made == [f"make {name}" for name in affected]
        others = [name for name in reversed(affected) if name != names[failing]]
        assert stops == [f"stop {name}" for name in (names[failing], *others)]
        assert all(core_of(team.now(name)).state.name == "READY" for name in names)
        assert all((first[name] is team.now(name)) is (name not in affected) for name in names)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
async def test_g29_children_that_fail_together_are_each_made_again_once(strategy: Any) -> None:
    names = [f"c{number}" for number in range(5)]
    team, parent = Team(), Parent()
    async with running(parent):
        policy = RestartPolicy(strategy=strategy, max_restarts=5, backoff=SOON)
        await parent.supervise(*map(team.factory, names), restart=policy)
        await anyio.wait_all_tasks_blocked()
        for name in names:
            team.now(name).fate.set()
        await anyio.wait_all_tasks_blocked()
        assert team.counts == dict.fromkeys(names, 2)
        assert sorted(data.worker_name for data in parent.failed) == names
        assert sorted(child.name for child in parent.children) == names


async def test_g29_who_was_removed_or_has_ended_is_not_made_again() -> None:
    class Ending(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()

    team, parent, endings = Team(), Parent(), []

    def ending() -> Ending:
        endings.append(Ending("ending"))
        return endings[-1]

    async with running(parent) as runner:
        await parent.supervise(
            team.factory("failing"),
            team.factory("removed"),
            ending,
            restart=RestartPolicy(strategy="one_for_all", backoff=SOON),
        )
        await endings[0].wait()
        await runner.remove_worker("removed")
        team.now("failing").fate.set()
        await anyio.wait_all_tasks_blocked()
        assert team.counts == {"failing": 2, "removed": 1}
        assert len(endings) == 1
        assert [child.name for child in parent.children] == ["failing"]


# --- jobs ---


async def test_g29_running_jobs_are_answered_and_the_others_are_done_by_the_successor() -> None:
    team, asker, parent = Team(), Asker(), Parent()
    async with running(asker, parent):
        await parent.supervise(team.factory("child"), restart=RestartPolicy(backoff=SOON))
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as tasks:
            for job_id in ("running", "second", "third"):
                tasks.start_soon(asker.ask, "child", "work", job_id)
                await anyio.wait_all_tasks_blocked()
            failing = team.now("child")
            assert failing.begun == ["running"]
            failing.fate.set()
            await anyio.wait_all_tasks_blocked()
            successor = team.now("child")
            assert successor is not failing
            successor.gate.set()
        assert asker.outcomes["running"].status is JobStatus.CANCELLED
        assert "it failed: ValueError: child failed" in str(asker.outcomes["running"])
        assert (asker.outcomes["second"], asker.outcomes["third"]) == ("done", "done")
        assert successor.begun == ["second", "third"]
        assert failing.begun == ["running"]


@virtual_time()
async def test_g29_jobs_wait_out_the_backoff() -> None:
    team, asker, parent = Team(), Asker(), Parent()
    async with running(asker, parent):
        policy = RestartPolicy(backoff=Backoff(first=9.0, limit=9.0, jitter=0.0))
        await parent.supervise(team.factory("child"), restart=policy)
        await anyio.wait_all_tasks_blocked()
        team.now("child").fate.set()
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asker.ask, "child")
            await anyio.sleep(9.5)
            team.now("child").gate.set()
        assert asker.outcomes == {"j": "done"}
        assert team.times[-1] - began == pytest.approx(9.0)


# --- each for itself, and as its kind says ---


@virtual_time()
async def test_g57_children_are_recovered_apart_from_each_other() -> None:
    team, parent = Team(), Parent()
    async with running(parent):
        policy = RestartPolicy(max_restarts=9, backoff=Backoff(first=5.0, factor=1.0, limit=5.0, jitter=0.0))
        await parent.supervise(*map(team.factory, ("a", "b", "c")), restart=policy)
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        for name in ("a", "b"):
            team.now(name).fate.set()
            await anyio.sleep(1.0)
        await anyio.sleep(20.0)
        assert team.counts == {"a": 2, "b": 2, "c": 1}
        assert [round(when - began) for when in team.times[3:]] == [5, 6]


@virtual_time()
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_g57_a_factory_that_raises_costs_a_restart_and_is_tried_again(strategy: Any) -> None:
    team, parent, errors, calls = Team(), Parent(), [], [0]
    make = team.factory("a")

    def unlucky() -> BaseWorker:
        calls[0] += 1
        if calls[0] in {2, 3}:
            raise ConnectionError("not yet")
        made: BaseWorker = make()
        return made

    async with running(parent) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data.error))
        policy = RestartPolicy(strategy=strategy, max_restarts=3, backoff=Backoff(first=1.0, factor=2.0, jitter=0.0))
        await parent.supervise(unlucky, team.factory("b"), restart=policy)
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        team.now("a").fate.set()
        await anyio.sleep(30.0)
        assert team.counts == {"a": 2, "b": 1 if strategy == "one_for_one" else 2}
        assert team.times[2] - began == pytest.approx(1.0 + 2.0 + 4.0)
        assert errors[1:] == ["could not be made again: ConnectionError: not yet"] * 2


async def test_g57_a_factory_that_always_raises_is_given_up_on() -> None:
    team, runner, first = Team(), quiet("top"), [True]
    make = team.factory("child", dies_after=0.0)

    def once() -> BaseWorker:
        if not first.pop():
            raise ValueError("never")
        first.append(False)
        made: BaseWorker = make()
        return made

    def again() -> BaseWorker:
        if first:
            return once()
        raise ValueError("never")

    await runner.supervise(again, restart=RestartPolicy(max_restarts=2, backoff=SOON))
    with pytest.raises(SupervisionError, match=r"'child' failed again after 2 restarts.*ValueError: never"):
        await runner.run()
    assert team.counts == {"child": 1}


@pytest.mark.parametrize("fails", [True, False], ids=["fails", "returns"])
@pytest.mark.parametrize(("kind", "lives"), [("permanent", (2, 2)), ("transient", (2, 1)), ("temporary", (1, 1))])
async def test_g57_a_kind_of_child_says_when_it_comes_back(kind: Any, lives: tuple[int, int], fails: bool) -> None:
    made: list[Once] = []

    class Once(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()
            if len(made) > 1:
                await self.wait()
            elif fails:
                raise ValueError("failed")

    def make() -> Once:
        made.append(Once("once"))
        return made[-1]

    parent = Parent()
    async with running(parent):
        await parent.supervise(make, restart=RestartPolicy(restart=kind, backoff=SOON))
        await anyio.wait_all_tasks_blocked()
        again = lives[0 if fails else 1] > 1
        assert len(made) == 1 + again
        assert [child.name for child in parent.children] == ["once"] * again
        told = [WorkerErrorData("once", "ValueError: failed", restarting=again)] if fails else []
        assert parent.failed == told


async def test_g57_a_permanent_child_that_is_removed_stays_away() -> None:
    team, parent = Team(), Parent()
    async with running(parent) as runner:
        await parent.supervise(team.factory("a"), team.factory("b"), restart=RestartPolicy(restart="permanent"))
        await anyio.wait_all_tasks_blocked()
        await runner.remove_worker("a")
        await team.now("b").stop()
        await anyio.wait_all_tasks_blocked()
        assert team.counts == {"a": 1, "b": 1}
        assert parent.children == []


async def test_g57_a_permanent_child_that_returns_too_often_is_given_up_on() -> None:
    class Brief(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()

    runner = quiet("top")
    policy = RestartPolicy(restart="permanent", max_restarts=2, backoff=SOON)
    await runner.supervise(lambda: Brief("brief"), restart=policy)
    with pytest.raises(SupervisionError, match=r"'brief' failed again after 2 restarts.*its run.. returned"):
        await runner.run()


async def test_g57_a_child_that_fails_while_its_parent_starts_is_made_again() -> None:
    team = Team()

    class Slow(Parent):
        async def start(self) -> None:
            await self.supervise(team.factory("child"), restart=RestartPolicy(backoff=SOON))
            first = team.now("child")
            first.fate.set()
            await first.wait()
            await super().start()

    async with running(slow := Slow()):
        await anyio.wait_all_tasks_blocked()
        assert team.counts == {"child": 2}
        assert slow.children == [team.now("child")]


# --- background tasks ---


async def test_g57_a_background_task_that_raises_is_a_failure_of_its_worker() -> None:
    lives: list[Pump] = []

    class Pump(BaseWorker):
        async def start(self) -> None:
            lives.append(self)
            self.fate = anyio.Event()
            self.create_task(self.pump())
            self.create_task(self.pump())
            await super().start()

        async def pump(self) -> None:
            await self.fate.wait()
            raise RuntimeError("dead")

    parent = Parent()
    async with running(parent):
        await parent.supervise(lambda: Pump("pump"), restart=RestartPolicy(backoff=SOON))
        await anyio.wait_all_tasks_blocked()
        lives[0].fate.set()
        await anyio.wait_all_tasks_blocked()
        assert len(lives) == 2
        assert parent.failed == [WorkerErrorData("pump", "RuntimeError: dead", restarting=True)]
        assert parent.children == [lives[1]]


async def test_g57_a_background_task_that_somebody_awaits_is_no_failure_of_its_worker() -> None:
    async def fails() -> None:
        raise RuntimeError("dead")

    async with running(worker := BaseWorker("worker")):
        with pytest.raises(RuntimeError, match="dead"):
            await worker.create_task(fails())
        assert core_of(worker).state.name == "READY"
        task = worker.create_task(fails())
        await task.wait()
        await worker.wait()
        assert core_of(worker).state.name == "STOPPED"
