"""How soon and how often failed workers are made again, and what happens when that is given up: G29."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import Backoff, BaseWorker, RestartPolicy, SupervisionError, WorkerRunner
from actors.worker.verbs import core_of
from tests.support.running import running
from tests.support.virtual_time import virtual_time
from tests.support.workers import Child, Parent, Team, quiet

pytestmark = pytest.mark.anyio

SOON = Backoff(first=0.0)


# --- how often and how soon ---


@virtual_time()
async def test_g29_the_waits_grow_up_to_their_limit() -> None:
    team, runner = Team(), quiet()
    policy = RestartPolicy(max_restarts=6, backoff=Backoff(first=1.0, factor=2.0, limit=10.0, jitter=0.0))
    await runner.supervise(team.factory("child", in_start=True), restart=policy)
    with pytest.raises(SupervisionError):
        await runner.run()
    waits = [later - earlier for earlier, later in zip(team.times, team.times[1:], strict=False)]
    assert waits == pytest.approx([1, 2, 4, 8, 10, 10])


@virtual_time()
async def test_g29_jitter_comes_from_the_randomness_that_was_given() -> None:
    from random import Random  # noqa: PLC0415

    async def waits(seed: int) -> list[float]:
        team = Team()
        runner = WorkerRunner(handle_sigint=False, handle_sigterm=False, rng=Random(seed))
        policy = RestartPolicy(max_restarts=3, backoff=Backoff(first=1.0, jitter=0.5))
        await runner.supervise(team.factory("child", in_start=True), restart=policy)
        with pytest.raises(SupervisionError):
            await runner.run()
        return [later - team.times[0] for later in team.times]

    first = await waits(1)
    assert await waits(1) == pytest.approx(first)
    assert await waits(2) != pytest.approx(first)
    assert 0.5 <= first[1] <= 1.0


@virtual_time()
@pytest.mark.parametrize(("lives", "gives_up"), [(19.0, True), (20.5, False)])
async def test_g29_only_failures_within_the_period_count(lives: float, gives_up: bool) -> None:
    """Three restarts in 60 s: the fourth failure comes 57 s, or 61.5 s, after the first."""
    team, runner = Team(), quiet()
    policy = RestartPolicy(max_restarts=3, period=60.0, backoff=SOON)
    await runner.supervise(team.factory("child", dies_after=lives), restart=policy)
    with anyio.move_on_after(10 * lives):
        with pytest.raises(SupervisionError) if gives_up else anyio.CancelScope():
            await runner.run()
    assert team.counts == {"child": 4 if gives_up else 10}


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_g29_past_the_limit_the_parent_fails_and_at_the_top_run_raises(limit: int) -> None:
    team, runner, other = Team(), quiet("top"), BaseWorker("other")
    await runner.add_workers(other)
    await runner.supervise(
        team.factory("child", dies_after=0.0), restart=RestartPolicy(max_restarts=limit, period=7.0, backoff=SOON)
    )
    with pytest.raises(SupervisionError) as failure:
        await runner.run()
    assert team.counts == {"child": limit + 1}
    assert (failure.value.child, failure.value.parent) == ("child", "runner 'top'")
    assert str(failure.value) == (
        f"runner 'top': worker 'child' failed again after {limit} restarts within 7 s; "
        "last error: ValueError: child failed"
    )
    assert core_of(other).state.name == "STOPPED"
    assert not runner.running


async def test_g29_a_failure_goes_up_one_level_at_a_time_and_each_level_tries_again() -> None:
    team, middles, told = Team(), [], []

    class Middle(Parent):
        async def start(self) -> None:
            await super().start()
            await self.supervise(
                team.factory("leaf", dies_after=0.0), team.factory("sibling"), restart=RestartPolicy(max_restarts=1)
            )

    class Top(Parent):
        async def start(self) -> None:
            await super().start()
            await self.supervise(make_middle, restart=RestartPolicy(max_restarts=2, backoff=SOON))

    def make_middle() -> Middle:
        middles.append(Middle("middle"))
        return middles[-1]

    tops: list[Top] = []

    def make_top() -> Top:
        tops.append(Top("top"))
        return tops[-1]

    runner = quiet("runner")
    runner.add_event_handler("on_error", lambda _, data: told.append(data.worker_name))
    await runner.supervise(make_top, restart=RestartPolicy(max_restarts=1, backoff=SOON))
    with pytest.raises(SupervisionError, match="runner 'runner': worker 'top' failed again after 1 restarts"):
        await runner.run()
    assert len(tops) == 2
    assert len(middles) == 2 * 3
    assert team.counts == {"leaf": 2 * 3 * 2, "sibling": 2 * 3}
    assert all(core_of(each).state.name == "STOPPED" for each in (*tops, *middles, *team.made["sibling"]))
    assert runner.registry.local_workers == []
    assert [data.error.split(":")[0] for data in tops[0].failed] == ["SupervisionError"] * 3


# --- the runner around it ---


@pytest.mark.parametrize("fails", [1, 3])
async def test_g29_a_runner_whose_only_worker_is_being_made_again_does_not_end(fails: int) -> None:
    made: list[BaseWorker] = []

    class Root(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()
            if len(made) <= fails:
                raise ValueError("again")

    def make() -> BaseWorker:
        made.append(Root("root"))
        return made[-1]

    runner = quiet()
    await runner.supervise(make, restart=RestartPolicy(max_restarts=fails, backoff=SOON))
    await runner.run()
    assert len(made) == fails + 1


@virtual_time()
@pytest.mark.parametrize("ends", ["runner", "parent"])
async def test_g29_nobody_is_made_again_once_the_parent_or_the_runner_ends(ends: str) -> None:
    team, parent = Team(), Parent()
    async with running(parent, BaseWorker("other")) as runner:
        await parent.supervise(team.factory("child"), restart=RestartPolicy(backoff=Backoff(first=5.0, jitter=0.0)))
        await anyio.wait_all_tasks_blocked()
        team.now("child").fate.set()
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        if ends == "runner":
            await runner.end()
            await parent.wait()
        else:
            await runner.remove_worker("parent")
        assert anyio.current_time() == began
        if ends != "runner":
            await anyio.sleep(20)
    await anyio.sleep(20)
    assert team.counts == {"child": 1}


async def test_g29_a_worker_that_fails_while_it_ends_is_reported_and_not_made_again() -> None:
    class Failing(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()
            try:
                await self.wait()
            finally:
                raise ValueError("on the way out")

    made: list[Failing] = []
    errors: list[str] = []

    def make() -> Failing:
        made.append(Failing("failing"))
        return made[-1]

    async with running(BaseWorker("other")) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data.error))
        await runner.supervise(make, restart=RestartPolicy(backoff=SOON))
        await anyio.wait_all_tasks_blocked()
        await runner.remove_worker("failing")
        await anyio.wait_all_tasks_blocked()
        assert errors == ["run() failed while the worker was stopping: ValueError: on the way out"]
        assert len(made) == 1


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
async def test_g29_a_factory_that_raises_is_a_failure_of_the_parent(kind: type[BaseException]) -> None:
    team, parent = Team(), Parent()
    made: list[Child] = []

    def make() -> Child:
        if made:
            raise kind("no second one")
        made.append(team.factory("child")())
        return made[-1]

    async with running(parent, BaseWorker("other")) as runner:
        await parent.supervise(make, restart=RestartPolicy(backoff=SOON))
        await anyio.wait_all_tasks_blocked()
        made[0].fate.set()
        await parent.wait()
        assert runner.registry.local_workers == ["other"]


async def test_g29_a_factory_must_make_a_new_worker_each_time() -> None:
    team, runner = Team(), quiet()
    child = team.factory("child", dies_after=0.0)()
    await runner.supervise(lambda: child, restart=RestartPolicy(backoff=SOON))
    with pytest.raises(SupervisionError, match="factory of worker 'child' gave the same object again: make a new one"):
        await runner.run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "all"}, "strategy must be one of one_for_one, one_for_all, rest_for_one; got 'all'"),
        ({"max_restarts": -1}, "max_restarts must be 0 or more; got -1"),
        ({"restart": "always"}, "restart must be one of permanent, transient, temporary; got 'always'"),
        ({"period": 0}, "period must be seconds, more than 0; got 0"),
    ],
)
def test_g29_a_policy_that_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RestartPolicy(**options)
