"""A mailbox that is full holds up whoever sends, within bounds, and loses nobody: G25, G47."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, JobError, JobRefusedError, JobStatus, job, subscribe
from bus import (
    AsyncQueueBus,
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
    BusSubscriber,
    MailboxFullError,
)
from tests.support.messages import Alarm, Note
from tests.support.running import running
from tests.support.virtual_time import virtual_time
from tests.support.workers import Producer

pytestmark = pytest.mark.anyio


# --- G25: full mailboxes ---


class Busy(BaseWorker):
    """Has room for few, and does one job at a time when its gate is open."""

    mailbox_size = 3
    max_concurrency = 1

    def __init__(self, name: str = "busy") -> None:
        super().__init__(name)
        self.gate = anyio.Event()
        self.done: list[Any] = []

    @job
    async def work(self, message: BusJobRequestMessage) -> Any:
        await self.gate.wait()
        self.done.append(message.payload)
        return {"done": message.payload}

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            await self.gate.wait()
            self.done.append(message.text)
        if isinstance(message, Alarm):
            self.done.append("alarm")

    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        await self.gate.wait()
        self.done.append("update")


async def test_g25_requesters_wait_for_room_and_all_are_served() -> None:
    answers: list[Any] = []
    async with running(busy := Busy(), client := BaseWorker("client")), anyio.create_task_group() as task_group:

        async def ask(number: int) -> None:
            answers.append(await client.job("busy", name="work", payload=number))

        for number in range(50):
            task_group.start_soon(ask, number)
            await anyio.wait_all_tasks_blocked()
        statistics = busy.statistics()
        assert (statistics.running, statistics.pending, statistics.senders) == (1, 3, 46)
        assert len(busy.active_jobs) == 4
        busy.gate.set()
        with anyio.fail_after(60):
            while len(answers) < 50:
                await anyio.lowlevel.checkpoint()
        assert sorted(busy.done) == list(range(50))
        assert busy.done[:4] == [0, 1, 2, 3]


class Tiny(BaseWorker):
    """One place, one slot, and jobs that end at once: each may start without taking the place it waited for."""

    mailbox_size = 1
    max_concurrency = 1
    done = 0

    @job
    async def quick(self, payload: Any) -> None:
        self.done += 1

    @job
    async def slow(self, payload: Any) -> None:
        await anyio.lowlevel.checkpoint()
        self.done += 1


async def test_g25_no_requester_is_left_behind_when_places_are_not_needed_any_more() -> None:
    async with running(tiny := Tiny("tiny"), client := BaseWorker("client")):
        for _ in range(20):
            tiny.done = 0
            with anyio.fail_after(60):
                async with anyio.create_task_group() as task_group:
                    for number in range(40):

                        async def ask(name: str = "slow" if number % 3 == 0 else "quick") -> None:
                            await client.job("tiny", name=name)

                        task_group.start_soon(ask)
            assert tiny.done == 40
        assert tiny.statistics().senders == 0


async def test_g25_no_requester_is_left_behind_when_others_give_up_in_the_moment_they_could_go_on() -> None:
    async with running(busy := Busy(), client := BaseWorker("client")):
        async with anyio.create_task_group() as task_group:
            answers: list[Any] = []

            async def ask(number: int) -> None:
                answers.append(await client.job("busy", name="work", payload=number))

            groups = [await client.create_job_group_and_request_job(["busy"], name="work") for _ in range(4)]
            scope = anyio.CancelScope()

            async def give_up() -> None:
                with scope:
                    await client.job("busy", name="work", payload="given up")

            task_group.start_soon(give_up)
            await anyio.wait_all_tasks_blocked()
            task_group.start_soon(ask, 4)
            await anyio.wait_all_tasks_blocked()
            # One place becomes free, and the first in line gives up before it can take it.
            groups[1].cancel()
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            statistics = busy.statistics()
            assert (statistics.pending, statistics.senders) == (3, 0)
            busy.gate.set()
        assert answers == [{"done": 4}]


@virtual_time()
async def test_g25_g6_waiting_for_room_is_bounded_by_the_deadline_of_the_job() -> None:
    async with running(busy := Busy(), client := BaseWorker("client")):
        groups = [
            await client.create_job_group_and_request_job(["busy"], name="work", payload=number) for number in range(4)
        ]
        start = anyio.current_time()
        for ask in (
            client.job("busy", name="work", timeout=2.0),
            client.job_group("busy", name="work", timeout=2.0, cancel_on_error=False),
        ):
            with pytest.raises(JobError) as raised:
                await ask
            assert raised.value.status is JobStatus.FAILED
        assert anyio.current_time() - start == pytest.approx(4.0)
        assert busy.statistics().senders == 0
        busy.gate.set()
        for group in groups:
            await group.wait()
        assert busy.done == [0, 1, 2, 3]


@virtual_time()
async def test_g25_a_message_waits_for_room_for_thirty_seconds_and_is_refused_then() -> None:
    async with running(busy := Busy(), client := BaseWorker("client")):
        for number in range(4):
            await client.send_bus_message(Note(source="client", target="busy", text=str(number)))
            await anyio.wait_all_tasks_blocked()
        start = anyio.current_time()
        with pytest.raises(MailboxFullError) as raised:
            await client.send_bus_message(Note(source="client", target="busy", text="too much"))
        assert anyio.current_time() - start == pytest.approx(30.0)
        assert (raised.value.worker_name, raised.value.capacity) == ("busy", 3)
        busy.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert busy.done == ["0", "1", "2", "3"]


async def test_g25_a_worker_that_refuses_does_so_at_once_for_jobs_groups_and_messages() -> None:
    class Refusing(Busy):
        when_full = "refuse"

    async with running(busy := Refusing(), client := BaseWorker("client")):
        groups = [await client.create_job_group_and_request_job(["busy"], name="work") for _ in range(4)]
        with pytest.raises(JobError) as raised:
            await client.job("busy", name="work")
        assert issubclass(type(raised.value), MailboxFullError)
        assert isinstance(raised.value, JobRefusedError)
        assert raised.value.status is JobStatus.FAILED
        assert raised.value.error is not None
        assert raised.value.error.type == "MailboxFullError"
        assert raised.value.error.retryable
        results = (await client.job_group("busy", name="work", cancel_on_error=False)).results
        assert results["busy"].status is JobStatus.FAILED
        for _ in range(4):
            await client.send_bus_message(Note(source="client", target="busy"))
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(MailboxFullError):
            await client.send_bus_message(Note(source="client", target="busy"))
        busy.gate.set()
        for group in groups:
            await group.wait()
        await anyio.wait_all_tasks_blocked()


async def test_g25_a_full_member_of_a_group_does_not_keep_the_requests_of_the_others_back() -> None:
    class Refusing(Busy):
        when_full = "refuse"

    workers = [Busy("first"), Busy("second"), Refusing("third")]
    first, second, _ = workers
    async with running(*workers, client := BaseWorker("client")), anyio.create_task_group() as task_group:
        fillers = [
            await client.create_job_group_and_request_job([worker.name], name="work", payload="filler")
            for worker in workers
            for _ in range(4)
        ]
        results: list[Any] = []

        async def ask() -> None:
            async with client.job_group(
                "first", "second", "third", name="work", payload="late", job_id="mine", cancel_on_error=False
            ) as group:
                pass
            results.append({name: result.status for name, result in group.results.items()})

        task_group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert set(client.job_groups["mine"].results) == {"third"}
        second.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert second.done[-1] == "late"
        assert results == []
        for worker in workers:
            worker.gate.set()
        for group in fillers:
            await group.wait()
        await anyio.wait_all_tasks_blocked()
        assert results == [{"first": JobStatus.COMPLETED, "second": JobStatus.COMPLETED, "third": JobStatus.FAILED}]
        assert first.statistics().senders == 0


async def test_g25_system_messages_always_fit() -> None:
    class Refusing(Busy):
        when_full = "refuse"

    for kind in (Busy, Refusing):
        async with running(busy := kind(), client := BaseWorker("client")):
            groups = [await client.create_job_group_and_request_job(["busy"], name="work") for _ in range(4)]
            for _ in range(4):
                await client.send_bus_message(Note(source="client", target="busy"))
                await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(30):
                for _ in range(1000):
                    await client.send_bus_message(Alarm(source="client", target="busy"))
                await client.send_bus_message(BusActivateWorkerMessage(source="client", target="busy"))
                await anyio.wait_all_tasks_blocked()
                assert busy.done == ["alarm"] * 1000
                await client.cancel_job_group(groups[0].job_id)
                await anyio.wait_all_tasks_blocked()
                assert len(busy.active_jobs) == 3
                await client.send_bus_message(BusCancelWorkerMessage(source="client", target="busy"))
                await busy.wait()
            for group in groups:
                group.cancel()


async def test_g25_update_requests_take_a_place_like_other_messages() -> None:
    async with running(busy := Busy(), client := BaseWorker("client")), anyio.create_task_group() as task_group:
        group = await client.create_job_group_and_request_job(["busy"], name="work")
        await anyio.wait_all_tasks_blocked()
        for _ in range(20):
            task_group.start_soon(client.request_job_update, group.job_id, "busy")
        await anyio.wait_all_tasks_blocked()
        assert busy.statistics().messages == 3
        assert busy.statistics().hooks <= 8  # each also an `on_bus_message`
        busy.gate.set()
        await group.wait()
        await anyio.wait_all_tasks_blocked()
        assert "update" in busy.done


async def test_g25_senders_that_wait_are_released_when_the_worker_ends() -> None:
    async with running(busy := Busy(), client := BaseWorker("client")) as runner:
        outcomes: list[str] = []
        async with anyio.create_task_group() as task_group:
            groups = [await client.create_job_group_and_request_job(["busy"], name="work") for _ in range(4)]
            for _ in range(4):
                await client.send_bus_message(Note(source="client", target="busy"))
                await anyio.wait_all_tasks_blocked()

            async def send() -> None:
                await client.send_bus_message(Note(source="client", target="busy"))
                outcomes.append("sent")

            async def ask() -> None:
                with pytest.raises(JobError):
                    await client.job("busy", name="work")
                outcomes.append("told")

            task_group.start_soon(send)
            task_group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert outcomes == []
            await client.send_bus_message(BusCancelWorkerMessage(source="client", target="busy"))
            await busy.wait()
            await anyio.wait_all_tasks_blocked()
            assert outcomes == ["sent"]  # to nobody, and counted; the job waits for the next worker of that name
            assert runner.bus.statistics().undeliverable > 0
            for group in (*groups, *client.job_groups.values()):
                group.cancel()
        assert outcomes == ["sent", "told"]


async def test_g25_topics_wait_for_room_as_well() -> None:
    class Follower(BaseWorker):
        mailbox_size = 2
        gate: anyio.Event
        seen: list[Any]

        @subscribe("news")
        async def news(self, data: Any) -> None:
            await self.gate.wait()
            self.seen.append(data)

    follower = Follower("follower")
    follower.gate, follower.seen = anyio.Event(), []
    async with running(follower, client := BaseWorker("client")), anyio.create_task_group() as task_group:
        sent: list[int] = []

        async def publish() -> None:
            for number in range(10):
                await client.publish("news", number)
                sent.append(number)

        task_group.start_soon(publish)
        await anyio.wait_all_tasks_blocked()
        assert sent == [0, 1, 2]  # one is being handled, two wait
        follower.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert sent == follower.seen == list(range(10))


async def test_g25_a_plain_subscriber_has_bounded_room_too() -> None:
    class Subscriber(BusSubscriber):
        def __init__(self) -> None:
            self.gate = anyio.Event()
            self.seen = 0

        @property
        def name(self) -> str:
            return "subscriber"

        async def on_bus_message(self, message: BusMessage) -> None:
            await self.gate.wait()
            self.seen += 1

    subscriber = Subscriber()
    async with AsyncQueueBus() as bus, anyio.create_task_group() as task_group:
        await bus.subscribe(subscriber)
        sent = [0]

        async def send() -> None:
            for _ in range(10_050):
                await bus.send(Note(source="x", target="subscriber"))
                sent[0] += 1

        task_group.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        assert sent[0] in {10_000, 10_001}
        subscriber.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert subscriber.seen == 10_050


@pytest.mark.parametrize(("attribute", "value"), [("mailbox_size", 0), ("max_concurrency", 0), ("when_full", "drop")])
def test_g47_bounds_that_nobody_could_keep_are_refused_when_they_are_set(attribute: str, value: object) -> None:
    worker = BaseWorker("worker")
    with pytest.raises(ValueError, match=attribute):
        setattr(worker, attribute, value)
    assert getattr(worker, attribute) == getattr(BaseWorker, attribute)


@pytest.mark.parametrize(("attribute", "value"), [("mailbox_size", 0), ("max_concurrency", 0), ("when_full", "drop")])
async def test_g47_bounds_that_are_computed_and_that_nobody_could_keep_are_refused_when_the_worker_is_added(
    attribute: str, value: object
) -> None:
    worker = type("Computed", (BaseWorker,), {attribute: property(lambda _: value)})("worker")
    async with running(BaseWorker("other")) as runner:
        with pytest.raises(ValueError, match=attribute):
            await runner.add_workers(worker)
        assert runner.get_worker("worker") is None


# --- G47: bounds and statistics ---


async def test_g47_requests_for_a_name_that_nobody_serves_are_bounded_and_the_refused_ones_leave_nothing() -> None:
    async with running(producer := Producer(), client := BaseWorker("client")) as runner:
        for _ in range(10_000):
            await client.request_job("nobody")
        assert runner.bus.statistics().parked == 10_000
        with pytest.raises(MailboxFullError):
            await client.job("nobody")
        with pytest.raises(MailboxFullError):
            await client.job_group("producer", "nobody", name="stream", payload=10)
        await anyio.wait_all_tasks_blocked()
        assert not producer.active_jobs
        assert runner.statistics().groups == 10_000
        assert runner.statistics().deadlines == 10_000
        for job_id in tuple(client.job_groups):
            await client.cancel_job_group(job_id)
        assert runner.bus.statistics().parked == 0


async def test_g46_g47_statistics_of_a_worker_return_to_zero() -> None:
    async with running(busy := Busy(), producer := Producer(), client := BaseWorker("client")):
        before = [worker.statistics() for worker in (busy, producer, client)]
        groups = [await client.create_job_group_and_request_job(["busy"], name="work") for _ in range(4)]
        await client.send_bus_message(Note(source="client", target="busy"))
        async with client.job("producer", name="stream", payload=1000) as stream:
            await anyio.wait_all_tasks_blocked()
            assert client.statistics().groups == 5
            assert busy.statistics().running == 1
            assert busy.statistics().pending == 3
            async for _ in stream:
                pass
        busy.gate.set()
        for group in groups:
            await group.wait()
        await client.send_bus_message(BusEndWorkerMessage(source="client", target="nobody"))
        await anyio.wait_all_tasks_blocked()
        assert [worker.statistics() for worker in (busy, producer, client)] == before
