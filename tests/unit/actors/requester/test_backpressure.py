"""Whoever is faster than the reader of its stream waits, within bounds, and nobody waits for himself: G22, G24, G25."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Job, JobError, JobStatus, job
from actors.requester.flow import WINDOW
from bus import BusJobRequestMessage, BusJobStreamDataMessage, BusJobUpdateMessage, BusMessage, MailboxFullError
from tests.support.messages import Alarm, Note
from tests.support.running import execution_of, running
from tests.support.workers import Producer

pytestmark = pytest.mark.anyio


# --- G24: streams ---


async def test_g24_a_producer_waits_once_the_window_is_full_and_goes_on_as_events_are_taken() -> None:
    async with running(producer := Producer(), client := BaseWorker("client")):
        async with client.job("producer", name="stream", payload=5000) as stream:
            taken = 0
            async for _ in stream:
                taken += 1
                if taken % 100 == 0:
                    await anyio.wait_all_tasks_blocked()
                    assert producer.sent + 1 <= taken + WINDOW
                    group = client.job_groups.get(stream.job_id)
                    assert group is None or group.statistics().buffered <= WINDOW
        assert taken == 5002


async def test_g24_hooks_that_are_slower_than_the_stream_hold_it_up_and_the_queue_of_hooks_is_bounded() -> None:
    class Client(BaseWorker):
        gate = anyio.Event()
        seen = 0

        async def on_job_stream_data(self, message: BusJobStreamDataMessage) -> None:
            if self.seen == 10:
                await self.gate.wait()
            self.seen += 1

    client = Client("client")
    client.gate = anyio.Event()
    async with running(producer := Producer(), client):
        group = await client.create_job_group_and_request_job(["producer"], name="stream", payload=3000)
        await anyio.wait_all_tasks_blocked()
        assert WINDOW // 2 <= producer.sent <= WINDOW + WINDOW // 2
        assert client.statistics().hooks <= WINDOW
        client.gate.set()
        await group.wait()
        await anyio.wait_all_tasks_blocked()
        assert client.seen == 3000


async def test_g24_on_bus_message_holds_up_a_stream_like_any_other_hook() -> None:
    class Client(BaseWorker):
        gate: anyio.Event
        seen = 0

        async def on_bus_message(self, message: BusMessage) -> None:
            await self.gate.wait()
            self.seen += isinstance(message, BusJobStreamDataMessage)

    client = Client("client")
    client.gate = anyio.Event()
    async with running(producer := Producer(), client):
        group = await client.create_job_group_and_request_job(["producer"], name="stream", payload=3000)
        await anyio.wait_all_tasks_blocked()
        assert producer.sent <= WINDOW
        client.gate.set()
        await group.wait()
        await anyio.wait_all_tasks_blocked()
        assert client.seen == 3000


async def test_g24_iterator_and_hooks_together_get_everything_and_the_slower_one_counts() -> None:
    class Client(BaseWorker):
        seen = 0

        async def on_job_stream_data(self, message: BusJobStreamDataMessage) -> None:
            await anyio.lowlevel.checkpoint()
            self.seen += 1

    async with running(producer := Producer(), client := Client("client")):
        async with client.job("producer", name="stream", payload=2000) as stream:
            await anyio.wait_all_tasks_blocked()
            assert producer.sent <= WINDOW
            assert client.seen <= WINDOW
            assert len([event async for event in stream]) == 2002
        await anyio.wait_all_tasks_blocked()
        assert client.seen == 2000


async def test_g24_leaving_the_context_of_a_stream_that_is_held_up_lets_it_end() -> None:
    async with running(producer := Producer(), client := BaseWorker("client")):
        with anyio.fail_after(30):
            async with client.job("producer", name="stream", payload=2000):
                await anyio.wait_all_tasks_blocked()
                assert producer.sent < 2000
            with pytest.raises(ValueError, match="enough"):  # noqa: PT012 - leaving is what is tested
                async with client.job("producer", name="stream", payload=2000):
                    await anyio.wait_all_tasks_blocked()
                    raise ValueError("enough")
        await anyio.wait_all_tasks_blocked()
        assert len(producer.stopped) == 2
        assert not producer.active_jobs


async def test_g24_cancelling_a_job_frees_its_producer_that_waits_for_room() -> None:
    async with running(producer := Producer(), client := BaseWorker("client")):
        with pytest.raises(JobError) as raised:  # noqa: PT012 - leaving is what is tested
            async with client.job("producer", name="stream", payload=2000) as stream:
                await anyio.wait_all_tasks_blocked()
                await stream.cancel("enough")
                await anyio.wait_all_tasks_blocked()
                assert producer.stopped == [stream.job_id]
        assert raised.value.status is JobStatus.CANCELLED


async def test_g24_senders_that_give_up_waiting_for_room_leave_nothing_behind() -> None:
    left: list[int] = []
    done = anyio.Event()

    class Worker(BaseWorker):
        @job
        async def impatient(self, job: Job[Any]) -> Any:
            for number in range(WINDOW):
                await job.update(number)
            for _ in range(50):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await job.update("never sent")
            left.append(len(execution_of(self, job.id)._waiters or ()))
            done.set()
            return {}

    async with (
        running(Worker("worker"), client := BaseWorker("client")),
        client.job("worker", name="impatient") as asked,
    ):
        with anyio.fail_after(30):
            await done.wait()
        assert left == [0]
        assert len([event async for event in asked]) == WINDOW


# --- nobody waits for himself ---


@pytest.mark.parametrize("urgent", [False, True])
@pytest.mark.parametrize("how", ["job", "iterate", "group.wait", "itself", "inside a handler"])
async def test_g22_g24_a_hook_may_wait_for_a_job_whose_many_events_go_to_its_own_hooks(how: str, urgent: bool) -> None:
    class Client(Producer):
        answer: Any = None
        updates_seen: list[int]

        async def on_bus_message(self, message: BusMessage) -> None:
            if not isinstance(message, (Note, Alarm)):
                return
            target = "client" if how == "itself" else "producer"
            if how == "iterate":
                async with self.job(target, name="updates", payload=2000) as asked:
                    self.answer = len([event async for event in asked])
            elif how == "group.wait":
                group = await self.create_job_group_and_request_job([target], name="updates", payload=2000)
                await group.wait()
                self.answer = 2000
            elif how == "inside a handler":
                self.answer = await self.job("client", name="ask", payload=2000)
            else:
                self.answer = (await self.job(target, name="updates", payload=2000))["sent"]

        async def on_job_update(self, message: BusJobUpdateMessage) -> None:
            await anyio.lowlevel.checkpoint()
            self.updates_seen.append(message.update)

        @job
        async def ask(self, job: Job[int]) -> Any:
            return (await self.job("producer", name="updates", payload=job.payload))["sent"]

    client = Client("client")
    client.updates_seen = []
    async with running(Producer(), client):
        kind = Alarm if urgent else Note
        await client.send_bus_message(kind(source="client", target="client"))
        await anyio.wait_all_tasks_blocked()
        assert client.answer == 2000
        assert client.updates_seen == list(range(2000))
        assert client.statistics().hooks == 0


async def test_g25_a_hook_may_wait_for_a_job_of_its_own_worker_while_messages_fill_its_mailbox() -> None:
    class Worker(BaseWorker):
        mailbox_size = 2
        max_concurrency = 1
        gate: anyio.Event
        answer: Any = None

        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note) and message.text == "ask":
                self.answer = await self.job("worker", name="echo", payload="me")

        @job
        async def echo(self, message: BusJobRequestMessage) -> Any:
            if message.payload != "me":
                await self.gate.wait()
            return {"echo": message.payload}

    worker = Worker("worker")
    worker.gate = anyio.Event()
    async with running(worker, client := BaseWorker("client")):
        async with anyio.create_task_group() as task_group:
            running_job = await client.create_job_group_and_request_job(["worker"], name="echo")
            await client.send_bus_message(Note(source="client", target="worker", text="ask"))
            await anyio.wait_all_tasks_blocked()
            for _ in range(4):  # two find room, two senders wait
                task_group.start_soon(client.send_bus_message, Note(source="client", target="worker"))
            await anyio.wait_all_tasks_blocked()
            assert worker.answer is None
            worker.gate.set()
            with anyio.fail_after(30):
                await running_job.wait()
        await anyio.wait_all_tasks_blocked()
        assert worker.answer == {"echo": "me"}


async def test_g25_who_would_wait_for_room_in_his_own_mailbox_is_refused_at_once() -> None:
    class Worker(BaseWorker):
        mailbox_size = 2
        refused: list[str]

        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note) and message.text == "start":
                for number in range(3):
                    try:
                        await self.send_bus_message(Note(source="worker", target="worker", text=str(number)))
                    except MailboxFullError as error:
                        self.refused.append(error.worker_name)
                # what needs no room still gets through
                await self.send_bus_message(Alarm(source="worker", target="worker"))
                await self.deactivate_worker("worker")
                await self.activate_worker("worker")

    worker = Worker("worker")
    worker.refused = []
    async with running(worker, client := BaseWorker("client")):
        await client.send_bus_message(Note(source="client", target="worker", text="start"))
        await anyio.wait_all_tasks_blocked()
        assert worker.refused == ["worker"]
        assert worker.active
