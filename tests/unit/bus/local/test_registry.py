"""Who serves which name, and who is told when that changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from actors import BaseWorker, job, worker_ready
from actors.runner.runner import core_of_runner
from actors.worker.verbs import core_of
from bus import AsyncQueueBus, InvalidNameError, WorkerLostData, WorkerReadyData, WorkerRegistry, WorkerRegistryEntry
from bus.local.registry import RegistryStatistics
from tests.support.running import running
from tests.support.virtual_time import virtual_time
from tests.support.workers import quiet

pytestmark = pytest.mark.anyio


class Log:
    """What a watcher was told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def up(self, data: WorkerReadyData) -> None:
        self.told.append(f"+{data.worker_name}@{data.runner}")

    async def down(self, data: WorkerLostData) -> None:
        self.told.append(f"-{data.worker_name}@{data.runner}")

    def take(self) -> list[str]:
        told, self.told = self.told, []
        return told


def here(name: str, *, active: bool = True) -> WorkerReadyData:
    return WorkerReadyData(name, "here", active=active)


def there(name: str, runner: str = "there", *, active: bool = True, address: str = "there#1") -> WorkerReadyData:
    return WorkerReadyData(name, runner, active=active, address=address)


# --- watches ---


async def test_watchers_are_told_once_when_a_worker_comes_and_once_when_it_goes() -> None:
    registry, log = WorkerRegistry("here"), Log()
    await registry.watch("a", log.up, log.down)
    assert await registry.register(here("a"))
    assert not await registry.register(here("a"))
    assert not await registry.register(here("a", active=False))
    await registry.register(here("b"))
    assert log.take() == ["+a@here"]
    assert await registry.unregister("a")
    assert not await registry.unregister("a")
    assert log.take() == ["-a@here"]
    await registry.register(here("a"))
    assert log.take() == ["+a@here"]


async def test_the_same_watch_twice_is_one_and_is_not_told_again() -> None:
    registry, log = WorkerRegistry("here"), Log()
    await registry.register(here("a"))
    for _ in range(3):
        await registry.watch("a", log.up, log.down)
    assert log.take() == ["+a@here"]
    assert registry.statistics().watches == 1
    await registry.unregister("a")
    assert log.take() == ["-a@here"]


async def test_who_watches_late_is_told_at_once_of_each_replica() -> None:
    registry, log = WorkerRegistry("here"), Log()
    await registry.register(there("a", "r1"))
    await registry.register(here("a"))
    await registry.register(there("a", "r2"))
    await registry.watch("a", log.up)
    assert log.take() == ["+a@here", "+a@r1", "+a@r2"]


async def test_who_stops_watching_is_told_nothing_more() -> None:
    registry, kept, gone = WorkerRegistry("here"), Log(), Log()
    for log in (kept, gone):
        await registry.watch("a", log.up, log.down)
    await registry.unwatch("a", gone.up)
    await registry.unwatch("a", gone.up)
    await registry.unwatch("never watched", gone.up)
    await registry.register(here("a"))
    await registry.unregister("a")
    assert (kept.take(), gone.take()) == (["+a@here", "-a@here"], [])
    await registry.unwatch("a", kept.up)
    assert registry.statistics() == RegistryStatistics(0, 0, 0)
    assert registry._watches == {}


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
async def test_a_watcher_that_raises_does_not_hide_the_news_from_the_others(kind: type[BaseException]) -> None:
    registry, log = WorkerRegistry("here"), Log()

    async def fail(_: Any) -> None:
        raise kind("no")

    def fail_at_once(_: Any) -> None:
        raise kind("no")

    for failing in (fail, fail_at_once):
        await registry.watch("a", failing, failing)
    await registry.watch("a", log.up, log.down)
    await registry.register(here("a"))
    await registry.unregister("a")
    assert log.take() == ["+a@here", "-a@here"]


@virtual_time()
async def test_a_watcher_that_never_returns_holds_nobody_up_for_longer_than_ten_seconds() -> None:
    registry, log = WorkerRegistry("here"), Log()

    async def never_returns(_: Any) -> None:
        await anyio.sleep_forever()

    await registry.watch("a", never_returns, never_returns)
    await registry.watch("a", log.up, log.down)
    began = anyio.current_time()
    await registry.register(here("a"))
    assert anyio.current_time() - began == pytest.approx(10.0)
    assert await registry.unregister("a")
    assert anyio.current_time() - began == pytest.approx(20.0)
    assert log.take() == ["+a@here", "-a@here"]


@virtual_time()
async def test_a_runner_ends_although_a_watcher_never_returns() -> None:
    async def never_returns(_: WorkerLostData) -> None:
        await anyio.sleep_forever()

    runner = quiet()
    await runner.add_workers(BaseWorker("a"))
    async with runner:
        await runner.registry.watch("a", lambda _: None, never_returns)
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(10.0)


async def test_a_watcher_may_stop_watching_or_begin_to_while_it_is_told() -> None:
    registry, late = WorkerRegistry("here"), Log()

    async def once(data: WorkerReadyData) -> None:
        await registry.unwatch("a", once)
        await registry.watch("a", late.up, late.down)

    await registry.watch("a", once)
    await registry.register(here("a"))
    assert "+a@here" in late.take()
    await registry.unregister("a")
    await registry.register(here("a"))
    assert late.take() == ["-a@here", "+a@here"]


async def test_watching_a_name_nobody_can_have_is_refused() -> None:
    worker = BaseWorker("worker")
    async with running(worker):
        with pytest.raises(InvalidNameError, match=r"worker name 'no such name.n' is not a valid name"):
            await worker.watch_workers("no such name\n")


# --- replicas ---


async def test_a_name_is_served_as_long_as_one_of_its_replicas_is_there() -> None:
    registry, log = WorkerRegistry("here"), Log()
    await registry.watch("a", log.up, log.down)
    for data in (there("a", "r1"), there("a", "r2"), here("a")):
        assert await registry.register(data)
    assert log.take() == ["+a@r1", "+a@r2", "+a@here"]
    assert [data.runner for data in registry.replicas("a")] == ["here", "r1", "r2"]
    assert [data.runner for data in registry.remote_replicas("a")] == ["r1", "r2"]
    assert registry.remote_workers == ["a"]
    assert registry.get("a") == here("a")
    for runner in ("here", "r1"):
        await registry.unregister("a", runner)
        assert "a" in registry
        assert registry.available("a")
    assert registry.get("a") == there("a", "r2")
    await registry.unregister("a", "r2")
    assert "a" not in registry
    assert registry.get("a") is None
    assert not registry.available("a")
    assert log.take() == ["-a@here", "-a@r1", "-a@r2"]


async def test_an_inactive_replica_elsewhere_does_not_serve_but_one_here_keeps_what_waits() -> None:
    registry = WorkerRegistry("here")
    await registry.register(there("a", active=False))
    assert not registry.available("a")
    await registry.register(here("a", active=False))
    assert not registry.available("a")
    await registry.register(there("a", active=True))
    assert registry.available("a")


async def test_another_life_of_a_runner_is_another_worker() -> None:
    registry, log = WorkerRegistry("here"), Log()
    await registry.watch("a", log.up, log.down)
    await registry.register(there("a", address="there#1"))
    await registry.register(there("a", address="there#2"))
    assert log.take() == ["+a@there", "-a@there", "+a@there"]
    assert len(registry.replicas("a")) == 1


async def test_a_runner_that_tells_its_whole_list_replaces_what_was_known_of_it() -> None:
    registry, log = WorkerRegistry("here"), Log()
    for name in ("a", "b", "c"):
        await registry.watch(name, log.up, log.down)
    for data in (there("a"), there("b"), there("b", "other"), here("a")):
        await registry.register(data)
    log.take()
    await registry.replace_runner("there", "there#1", [WorkerRegistryEntry("a"), WorkerRegistryEntry("c")])
    assert sorted(log.take()) == ["+c@there", "-b@there"]
    assert registry.remote_workers == ["a", "b", "c"]
    await registry.replace_runner("here", "", [])
    assert registry.local_workers == ["a"]
    assert log.take() == []


async def test_a_runner_that_is_forgotten_takes_only_its_own_workers_along() -> None:
    registry, log = WorkerRegistry("here"), Log()
    for data in (there("a"), there("b"), there("b", "other"), here("a")):
        await registry.register(data)
    for name in ("a", "b"):
        await registry.watch(name, log.up, log.down)
    log.take()
    await registry.forget_runner("there")
    assert log.take() == ["-a@there", "-b@there"]
    assert registry.remote_workers == ["b"]
    assert registry.local_workers == ["a"]
    assert registry.statistics() == RegistryStatistics(local_workers=1, remote_workers=1, watches=2)


async def test_who_is_alive_is_said_with_the_nearest_names_first() -> None:
    registry = WorkerRegistry("here")
    assert registry.who_is_alive("critic") == "no worker is registered"
    for name in ("editor", "scout"):
        await registry.register(here(name))
    await registry.register(there("critic"))
    assert registry.who_is_alive("critik") == "did you mean 'critic'?"
    assert registry.who_is_alive("zzz") == "registered are 'editor', 'scout', 'critic'"
    for number in range(10):
        await registry.register(here(f"worker{number}"))
    assert registry.who_is_alive("zzz").endswith(", ...")


# --- workers that watch ---


class Watcher(BaseWorker):
    def __init__(self, name: str = "watcher") -> None:
        super().__init__(name)
        self.told: list[str] = []

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        self.told.append(f"+{data.worker_name}")

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        self.told.append(f"-{data.worker_name}")


class Startled(Watcher):
    @worker_ready(name="a")
    async def a_is_there(self, data: WorkerReadyData) -> None:
        self.told.append(f"method {data.worker_name}")


async def test_a_worker_hears_of_those_it_watches_up_and_down() -> None:
    watcher = Watcher()
    async with running(watcher) as runner:
        await watcher.watch_workers("a", "b")
        await watcher.watch_workers("a")
        for name in ("a", "other", "b"):
            await runner.add_workers(BaseWorker(name))
        await runner.remove_worker("a")
        await runner.remove_worker("other")
        await anyio.wait_all_tasks_blocked()
        assert watcher.told == ["+a", "+b", "-a"]
        await watcher.unwatch_workers("b")
        await runner.remove_worker("b")
        await anyio.wait_all_tasks_blocked()
        assert watcher.told == ["+a", "+b", "-a"]


@pytest.mark.parametrize("first", ["watcher", "watched"])
async def test_a_worker_ready_method_is_called_each_time_the_worker_comes_up(first: str) -> None:
    watcher = Startled()
    both = [watcher, BaseWorker("a")]
    async with running(*(both if first == "watcher" else reversed(both))) as runner:
        await anyio.wait_all_tasks_blocked()
        assert watcher.told == ["method a", "+a"]
        await runner.remove_worker("a")
        await runner.add_workers(BaseWorker("a"))
        await anyio.wait_all_tasks_blocked()
        assert watcher.told == ["method a", "+a", "-a", "method a", "+a"]


@pytest.mark.parametrize("watch", [True, False])
async def test_a_parent_hears_of_its_children_unless_told_otherwise(watch: bool) -> None:
    parent = Watcher()
    async with running(parent) as runner:
        await parent.add_workers(BaseWorker("child"), watch=watch)
        await runner.remove_worker("child")
        await anyio.wait_all_tasks_blocked()
        assert parent.told == (["+child", "-child"] if watch else [])


async def test_a_parent_forgets_children_that_are_gone_but_not_what_it_asked_for_itself() -> None:
    parent = Watcher("parent")
    async with running(parent) as runner:
        before = runner.registry.statistics()
        for number in range(3):
            await parent.add_workers(BaseWorker(f"child{number}"))
            await runner.remove_worker(f"child{number}")
        assert runner.registry.statistics() == before
        await parent.watch_workers("asked")
        await parent.add_workers(BaseWorker("asked"))
        await runner.remove_worker("asked")
        await runner.add_workers(BaseWorker("asked"))
        await anyio.wait_all_tasks_blocked()
        assert parent.told[-3:] == ["+asked", "-asked", "+asked"]


async def test_nothing_of_a_watcher_is_left_when_it_is_gone() -> None:
    async with running(BaseWorker("other")) as runner:
        before = runner.registry.statistics()
        watcher = Startled()
        await runner.add_workers(watcher)
        await watcher.watch_workers("a", "b", "c")
        await watcher.add_workers(BaseWorker("child"))
        assert runner.registry.statistics().watches > before.watches
        await runner.remove_worker("watcher")
        assert runner.registry.statistics() == before
        await runner.add_workers(BaseWorker("a"))


async def test_a_change_between_active_and_inactive_is_known_everywhere_and_is_no_news_to_watchers() -> None:
    watcher, sleepy = Watcher(), BaseWorker("a", active=False)
    async with AsyncQueueBus() as bus, running(watcher, bus=bus) as first, running(sleepy, bus=bus):
        await watcher.watch_workers("a")
        await anyio.wait_all_tasks_blocked()
        assert not first.registry.available("a")
        await watcher.activate_worker("a")
        await anyio.wait_all_tasks_blocked()
        assert first.registry.available("a")
        await watcher.deactivate_worker("a")
        await anyio.wait_all_tasks_blocked()
        assert not first.registry.available("a")
        assert watcher.told == ["+a"]


async def test_a_runner_that_joins_learns_of_everybody_and_is_forgotten_when_it_leaves() -> None:
    async with AsyncQueueBus() as bus, running(BaseWorker("a"), bus=bus) as first:
        late = quiet("late", bus=bus)
        await late.add_workers(BaseWorker("b"))
        async with late:
            assert late.registry.remote_workers == ["a"]
            await anyio.wait_all_tasks_blocked()
            assert first.registry.remote_workers == ["b"]
        await anyio.wait_all_tasks_blocked()
        assert first.registry.remote_workers == []


async def test_a_watcher_that_blocks_does_not_keep_the_session_from_ending() -> None:
    bus = AsyncQueueBus()
    async with bus, quiet(bus=bus, session="s") as first:
        await first.registry.watch("b", forever)
        second = quiet(bus=bus, session="s")
        await second.add_workers(BaseWorker("b"))
        async with second:
            await anyio.wait_all_tasks_blocked()
            worker = second.get_worker("b")
            assert worker is not None
            await worker.end()
            assert not core_of_runner(first).accepting


async def forever(_: Any) -> None:
    await anyio.sleep_forever()


async def test_a_worker_that_is_stopped_by_who_is_told_of_it_stays_stopped() -> None:
    class Brief(BaseWorker):
        @job(name="work")
        async def work(self) -> None: ...

    async with running(BaseWorker("other")) as runner:
        brief = Brief("brief")

        async def stop(_: Any) -> None:
            await brief.stop()

        handler: Callable[[Any], Any] = stop
        await runner.registry.watch("brief", handler)
        await runner.add_workers(brief)
        assert core_of(brief).state.name == "STOPPED"
        assert "brief" not in runner.registry
        assert runner.registry.local_workers == ["other"]


async def test_g45_a_registry_knows_on_which_runners_a_topic_is_followed() -> None:
    registry = WorkerRegistry("here")

    def follows(name: str, runner: str, *topics: str, life: int = 1) -> WorkerReadyData:
        return WorkerReadyData(name, runner, address=f"{runner}#{life}", topics=topics)

    await registry.register(WorkerReadyData("own", "here", topics=("news",)))
    assert registry.followers("news") == ()
    for data in (follows("a", "b", "news", "news"), follows("c", "b", "news"), follows("a", "d", "news", "sports")):
        await registry.register(data)
    assert registry.followers("news") == ("b#1", "d#1")
    assert registry.followers("sports") == ("d#1",)
    await registry.unregister("a", "b")
    assert registry.followers("news") == ("b#1", "d#1")
    await registry.register(follows("c", "b"))
    assert registry.followers("news") == ("d#1",)
    await registry.register(follows("a", "d", "sports", life=2))
    assert (registry.followers("news"), registry.followers("sports")) == ((), ("d#2",))
    assert registry.statistics().topics == 1
    await registry.forget_runner("d")
    assert registry.statistics().topics == 0
