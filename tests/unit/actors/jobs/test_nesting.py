"""Jobs asked for inside jobs: they keep the limits of handlers, and never wait for what waits for them: G22."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Job, JobGroup, job
from bus import BusEndWorkerMessage, BusJobUpdateMessage, BusMessage
from tests.support.running import running

pytestmark = pytest.mark.anyio

EVENTS = 300
"""More than the events of one job that may be on their way: the performer has to wait for hooks."""


class Store(BaseWorker):
    """Its handler `write` has a limit of its own; `process` asks for it."""

    def __init__(self, name: str = "store") -> None:
        super().__init__(name)
        self.gate = anyio.Event()
        self.now: dict[str, int] = {"write": 0, "two": 0}
        self.most: dict[str, int] = {"write": 0, "two": 0}
        self.written: list[Any] = []

    async def at_once(self, name: str, value: Any) -> Any:
        self.now[name] += 1
        self.most[name] = max(self.most[name], self.now[name])
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        self.now[name] -= 1
        self.written.append(value)
        return value

    @job
    async def process(self, job: Job[Any]) -> Any:
        return await self.job(self.name, name="write", payload=job.payload)

    @job
    async def process_two(self, job: Job[Any]) -> Any:
        return await self.job(self.name, name="two", payload=job.payload)

    @job
    async def process_several(self, job: Job[list[Any]]) -> Any:
        groups = [
            await self.create_job_group_and_request_job([self.name], name="write", payload=value)
            for value in job.payload
        ]
        for group in groups:
            await group.wait()
        return len(groups)

    @job
    async def hold(self, job: Job[Any]) -> Any:
        await self.gate.wait()
        return await self.job(self.name, name="write", payload=job.payload)

    @job(sequential=True)
    async def write(self, job: Job[Any]) -> Any:
        return await self.at_once("write", job.payload)

    @job(max_concurrency=2)
    async def two(self, job: Job[Any]) -> Any:
        return await self.at_once("two", job.payload)


async def ask(client: BaseWorker, name: str, payloads: list[Any], to: str = "store") -> list[JobGroup]:
    return [await client.create_job_group_and_request_job([to], name=name, payload=each) for each in payloads]


async def wait(groups: list[JobGroup]) -> None:
    with anyio.fail_after(30):
        for group in groups:
            await group.wait()


async def test_g22_a_sequential_handler_is_asked_by_many_handlers_of_its_worker_one_at_a_time() -> None:
    async with running(store := Store(), client := BaseWorker("client")):
        await wait(await ask(client, "process", list(range(10))))
    assert store.most["write"] == 1
    assert sorted(store.written) == list(range(10))


async def test_g22_a_handler_asked_by_others_of_its_worker_keeps_its_own_max_concurrency() -> None:
    async with running(store := Store(), client := BaseWorker("client")):
        await wait(await ask(client, "process_two", list(range(10))))
    assert store.most["two"] == 2
    assert sorted(store.written) == list(range(10))


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_g22_what_the_holders_of_all_slots_ask_for_passes_what_waits_for_a_slot(limit: int) -> None:
    class Small(Store):
        max_concurrency = limit

    async with running(store := Small(), client := BaseWorker("client")):
        holders = await ask(client, "hold", [f"inner {number}" for number in range(limit)])
        await anyio.wait_all_tasks_blocked()
        outsiders = await ask(client, "write", ["outsider 0", "outsider 1"])
        more = await ask(client, "process", ["later"])
        await anyio.wait_all_tasks_blocked()
        assert not store.written
        store.gate.set()
        await wait([*holders, *outsiders, *more])
        assert store.most["write"] == 1
        assert store.written[0].startswith("inner")
        assert [value for value in store.written if value.startswith("outsider")] == ["outsider 0", "outsider 1"]


@pytest.mark.parametrize("when_full", ["wait", "refuse"])
async def test_g22_what_is_asked_for_inside_a_job_finds_room_in_a_full_mailbox_of_its_worker(when_full: Any) -> None:
    class Small(Store):
        max_concurrency = 1
        mailbox_size = 1

    store = Small()
    store.when_full = when_full
    async with running(store, client := BaseWorker("client")):
        first = await ask(client, "process_several", [["a", "b", "c"]])
        waiting = await ask(client, "write", ["outsider"])
        await wait([*first, *waiting])
        assert store.most["write"] == 1
        assert store.written == ["a", "b", "c", "outsider"]


async def test_g22_a_job_left_behind_by_the_one_that_asked_for_it_waits_like_any_other() -> None:
    class Small(Store):
        max_concurrency = 2

        @job
        async def forget(self, job: Job[Any]) -> Any:
            await self.request_job(self.name, name="write", payload="left behind")

        @job(sequential=True)
        async def other(self, job: Job[Any]) -> Any:
            await self.gate.wait()
            return await self.job(self.name, name="write", payload="other")

    async with running(store := Small(), client := BaseWorker("client")):
        await client.deactivate_worker("store")
        outsiders = await ask(client, "write", ["first"])
        await client.activate_worker("store")
        groups = await ask(client, "forget", [None])
        await wait(groups)
        others = await ask(client, "other", [None])
        store.gate.set()
        await wait([*outsiders, *others])
        await anyio.wait_all_tasks_blocked()
        assert sorted(store.written) == ["first", "left behind", "other"]
        assert store.most["write"] == 1


async def test_g22_a_job_inside_a_sequential_one_starts_after_a_pause_before_the_outsiders() -> None:
    class Deep(Store):
        @job(sequential=True)
        async def down(self, job: Job[Any]) -> Any:
            self.written.append(job.payload)
            if job.payload == "outer":
                await self.gate.wait()
                await self.job(self.name, name="down", payload="inner")

    async with running(store := Deep(), client := BaseWorker("client")):
        outer = await ask(client, "down", ["outer"])
        await anyio.wait_all_tasks_blocked()
        await client.deactivate_worker("store")
        outsider = await ask(client, "down", ["outsider"])
        store.gate.set()
        await anyio.wait_all_tasks_blocked()
        await client.activate_worker("store")
        await wait([*outer, *outsider])
        assert store.written == ["outer", "inner", "outsider"]


# --- asked for inside the hooks of a job's events ---


class Feeder(BaseWorker):
    """Sends events of one job, and is asked to look things up meanwhile, with one slot for both."""

    max_concurrency = 1

    @job
    async def feed(self, job: Job[int]) -> Any:
        for number in range(job.payload):
            await job.update(number)
        return {"fed": job.payload}

    @job
    async def lookup(self, job: Job[Any]) -> Any:
        return job.payload


class Eater(BaseWorker):
    """Asks back, for each of the first `until` events, whom `whom` names."""

    def __init__(self, whom: str = "feeder", *, until: int = EVENTS) -> None:
        super().__init__("eater")
        self.whom = whom
        self.until = until
        self.eaten: list[Any] = []
        self.started = anyio.Event()
        self.full = anyio.Event()
        self.full.set()

    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        self.started.set()
        await self.full.wait()
        if message.update < self.until:
            self.eaten.append(await self.job(self.whom, name="lookup", payload=message.update))


async def test_g22_the_hook_of_an_event_asks_the_busy_performer_that_sent_it() -> None:
    async with running(Feeder("feeder"), eater := Eater()):
        with anyio.fail_after(30):
            assert await eater.job("feeder", name="feed", payload=EVENTS) == {"fed": EVENTS}
        await anyio.wait_all_tasks_blocked()
        assert eater.eaten == list(range(EVENTS))


async def test_g22_an_event_handler_asks_the_busy_performer_that_sent_the_event() -> None:
    eater = BaseWorker("eater")
    eaten: list[Any] = []

    @eater.event_handler("on_job_update")
    async def look_up(_worker: BaseWorker, message: BusJobUpdateMessage) -> None:
        eaten.append(await eater.job("feeder", name="lookup", payload=message.update))

    async with running(Feeder("feeder"), eater):
        with anyio.fail_after(30):
            assert await eater.job("feeder", name="feed", payload=EVENTS) == {"fed": EVENTS}
        await anyio.wait_all_tasks_blocked()
        assert eaten == list(range(EVENTS))


async def test_g22_the_hook_of_an_event_asks_back_also_if_its_worker_hears_all_messages() -> None:
    class Hearing(Eater):
        heard = 0

        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, BusJobUpdateMessage):
                self.heard += await self.job("feeder", name="lookup", payload=1)

    async with running(Feeder("feeder"), eater := Hearing()):
        with anyio.fail_after(30):
            assert await eater.job("feeder", name="feed", payload=EVENTS) == {"fed": EVENTS}
        await anyio.wait_all_tasks_blocked()
        assert eater.eaten == list(range(EVENTS))
        assert eater.heard == EVENTS


async def test_g22_the_hook_of_an_event_asks_through_another_worker() -> None:
    class Relay(BaseWorker):
        @job
        async def lookup(self, job: Job[Any]) -> Any:
            return await self.job("feeder", name="lookup", payload=job.payload)

    async with running(Feeder("feeder"), Relay("relay"), eater := Eater("relay")):
        with anyio.fail_after(30):
            assert await eater.job("feeder", name="feed", payload=EVENTS) == {"fed": EVENTS}
        await anyio.wait_all_tasks_blocked()
        assert eater.eaten == list(range(EVENTS))


async def test_g22_the_hook_of_an_event_asks_its_own_worker_whose_job_waits_for_the_events() -> None:
    class Busy(Eater):
        max_concurrency = 1

        @job
        async def eat(self, job: Job[Any]) -> Any:
            return await self.job("feeder", name="feed", payload=EVENTS)

        @job
        async def lookup(self, job: Job[Any]) -> Any:
            return job.payload

    async with running(Feeder("feeder"), eater := Busy("eater"), client := BaseWorker("client")):
        with anyio.fail_after(30):
            assert await client.job("eater", name="eat") == {"fed": EVENTS}
        await anyio.wait_all_tasks_blocked()
        assert eater.eaten == list(range(EVENTS))


async def test_g22_a_performer_that_ends_still_does_what_the_hooks_of_its_events_ask_for() -> None:
    eater = Eater(until=10)
    async with running(Feeder("feeder"), eater, client := BaseWorker("client")):
        eater.full = anyio.Event()
        group = await eater.create_job_group_and_request_job(["feeder"], name="feed", payload=EVENTS)
        await eater.started.wait()
        await client.send_bus_message(BusEndWorkerMessage(source="client", target="feeder"))
        await anyio.wait_all_tasks_blocked()
        eater.full.set()
        await wait([group])
        await anyio.wait_all_tasks_blocked()
        assert group.responses == {"feeder": {"fed": EVENTS}}
        assert eater.eaten == list(range(10))


async def test_g22_the_hook_of_an_event_waits_for_a_slot_once_the_job_of_the_event_has_ended() -> None:
    class Counting(Feeder):
        running = most = 0

        @job
        async def lookup(self, job: Job[Any]) -> Any:
            self.running += 1
            self.most = max(self.most, self.running)
            await anyio.lowlevel.checkpoint()
            self.running -= 1
            return job.payload

    feeder, eater = Counting("feeder"), Eater()
    async with running(feeder, eater, client := BaseWorker("client")):
        assert await eater.job("feeder", name="feed", payload=3) == {"fed": 3}
        await wait(await ask(client, "lookup", list(range(20)), "feeder"))
        await anyio.wait_all_tasks_blocked()
        assert eater.eaten == [0, 1, 2]
        assert feeder.most == 1
