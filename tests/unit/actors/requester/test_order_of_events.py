"""The events of a job arrive in the order sent, none lost, all before its end, urgent or not: G14, G15."""

from __future__ import annotations

from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Job, JobEvent, JobGroupEvent, JobRecord, JobStateError, JobStatus, job
from actors.requester.flow import WINDOW
from actors.worker.dispatch import deliver
from actors.worker.verbs import core_of
from bus import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusMessage,
)
from tests.support.running import running

pytestmark = pytest.mark.anyio


class Sender(BaseWorker):
    """Sends events: `(seed, count)` decides which, and how many checkpoints come between."""

    def __init__(self, name: str = "sender") -> None:
        super().__init__(name)
        self.sent: dict[str, int] = {}
        self.gate = anyio.Event()

    @job
    async def mixed(self, job: Job[Any]) -> Any:
        rng = Random(job.payload["seed"])
        for number in range(job.payload["count"]):
            kind = rng.randrange(4)
            if kind == 0:
                await job.stream(number)
            else:
                await job.update(number, urgent=kind == 1)
            self.sent[job.id] = number + 1
            for _ in range(rng.randrange(3)):
                await anyio.lowlevel.checkpoint()
        await job.respond({"done": True}, urgent=rng.random() < 0.5)

    @job
    async def updates(self, job: Job[int]) -> Any:
        for number in range(job.payload):
            await job.update(number)
            self.sent[job.id] = number + 1
        return {"sent": job.payload}

    @job(name="stream")
    async def streams(self, job: Job[int]) -> Any:
        for number in range(job.payload):
            yield number

    @job
    async def urgent_after(self, job: Job[Any]) -> Any:
        await job.update("first")
        await job.update("second", urgent=True)
        await self.gate.wait()
        await job.update("third")
        await job.respond({"done": True}, urgent=True)


class Listener(BaseWorker):
    """Notes every event hook by job, each held up for a random while; jobs in `blocked` are held up for good."""

    def __init__(self, name: str = "listener", seed: int = 0) -> None:
        super().__init__(name)
        self.rng = Random(seed)
        self.notes: dict[str, list[Any]] = {}
        self.order: list[tuple[str, Any]] = []
        self.inside: dict[str, bool] = {}
        self.blocked: str | None = None
        self.let_go = anyio.Event()

    async def note(self, job_id: str, what: Any) -> None:
        assert not self.inside.get(job_id), "two hooks of one job at once"
        self.inside[job_id] = True
        if job_id == self.blocked:
            await self.let_go.wait()
        for _ in range(self.rng.randrange(3)):
            await anyio.lowlevel.checkpoint()
        self.inside[job_id] = False
        self.notes.setdefault(job_id, []).append(what)
        self.order.append((job_id, what))

    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        await self.note(message.job_id, message.update)

    async def on_job_stream_data(self, message: BusJobStreamDataMessage) -> None:
        await self.note(message.job_id, message.data)

    async def on_job_stream_start(self, message: BusJobStreamStartMessage) -> None:
        await self.note(message.job_id, "start")

    async def on_job_stream_end(self, message: BusJobStreamEndMessage) -> None:
        await self.note(message.job_id, "end")

    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        await self.note(message.job_id, "response")

    async def on_job_completed(self, result: Any) -> None:
        await self.note(result.job_id, "completed")


def numbers(notes: list[Any]) -> list[int]:
    return [note for note in notes if isinstance(note, int)]


# --- G14: order and completeness ---


@pytest.mark.parametrize("seed", range(10))
async def test_g14_an_iterator_sees_every_event_in_the_order_sent_and_then_the_answer(seed: int) -> None:
    async with running(sender := Sender(), client := BaseWorker("client")):
        async with client.job("sender", name="mixed", payload={"seed": seed, "count": 900}) as asked:
            seen = [event async for event in asked]
            assert sender.sent[asked.job_id] == 900
        assert numbers([event.data for event in seen if event.type != JobEvent.STREAM_START]) == list(range(900))
        starts = [index for index, event in enumerate(seen) if event.type == JobEvent.STREAM_START]
        chunks = [index for index, event in enumerate(seen) if event.type == JobEvent.STREAM_DATA]
        assert len(starts) == 1
        assert starts[0] < chunks[0]
        assert asked.response == {"done": True}


@pytest.mark.parametrize("seed", range(10))
async def test_g14_hooks_see_every_event_of_each_job_in_order_one_at_a_time_and_the_response_last(seed: int) -> None:
    async with running(Sender(), Sender("other"), listener := Listener(seed=seed)):
        groups = [
            await listener.create_job_group_and_request_job(
                [name], name="mixed", payload={"seed": seed * 100 + number, "count": 400}
            )
            for number in range(4)
            for name in ("sender", "other")
        ]
        for group in groups:
            await group.wait()
        await anyio.wait_all_tasks_blocked()
        for group in groups:
            notes = listener.notes[group.job_id]
            assert numbers(notes) == list(range(400))
            assert notes[-2:] == ["response", "completed"]


async def test_g14_the_events_of_each_member_of_a_group_come_in_order() -> None:
    senders = [Sender(f"sender-{number}") for number in range(5)]
    async with running(*senders, client := BaseWorker("client")):
        seen: dict[str, list[Any]] = {}
        names = [sender.name for sender in senders]
        async with client.job_group(*names, name="mixed", payload={"seed": 5, "count": 600}) as group:
            async for event in group:
                if event.type == JobGroupEvent.MEMBER_DONE:
                    seen[event.worker_name].append("done")
                elif event.type != JobGroupEvent.STREAM_START:
                    seen.setdefault(event.worker_name, []).append(event.data)
        assert seen == {name: [*range(600), "done"] for name in names}


@pytest.mark.parametrize("count", [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 5 * WINDOW + 3])
async def test_g14_an_iterator_that_starts_late_sees_everything_and_the_buffer_is_bounded(count: int) -> None:
    async with running(sender := Sender(), client := BaseWorker("client")):
        async with client.job("sender", name="updates", payload=count) as asked:
            await anyio.wait_all_tasks_blocked()
            assert sender.sent.get(asked.job_id, 0) == min(count, WINDOW)
            statistics = client.job_groups[asked.job_id].statistics() if asked.job_id in client.job_groups else None
            assert statistics is None or statistics.buffered == min(count, WINDOW)
            assert [event.data async for event in asked] == list(range(count))
        assert asked.response == {"sent": count}


async def test_g14_an_iterator_that_stops_in_the_middle_and_goes_on_misses_nothing() -> None:
    async with running(Sender(), client := BaseWorker("client")):
        async with client.job("sender", name="stream", payload=700) as asked:
            seen: list[Any] = []
            while True:
                async for event in asked:
                    seen.append(event.data if event.type == JobEvent.STREAM_DATA else event.type)
                    if len(seen) % 50 == 0:
                        await anyio.wait_all_tasks_blocked()
                        break
                else:
                    break
        assert seen == ["stream_start", *range(700), "stream_end"]


async def test_g14_a_body_that_never_iterates_does_not_hold_up_the_job() -> None:
    async with running(sender := Sender(), client := BaseWorker("client")):
        with anyio.fail_after(30):
            async with client.job("sender", name="updates", payload=2000) as asked:
                await anyio.wait_all_tasks_blocked()
            assert sender.sent[asked.job_id] == 2000
            assert await client.job("sender", name="updates", payload=2000) == {"sent": 2000}
            async with client.job("sender", name="stream", payload=2000) as chunks:
                async for _ in chunks:
                    break


async def test_g14_nothing_can_be_sent_after_the_answer() -> None:
    caught: list[str] = []

    class Worker(BaseWorker):
        @job
        async def talk(self, job: Job[Any]) -> None:
            await job.update(1)
            await job.respond({"done": True})
            for late in (job.update(2), job.stream(3), job.stream_end(4), job.respond(5)):
                try:
                    await late
                except JobStateError as error:
                    caught.append(type(error).__name__)

    async with running(Worker("worker"), client := BaseWorker("client")):
        async with client.job("worker", name="talk") as asked:
            assert [event.data async for event in asked] == [1]
        await anyio.wait_all_tasks_blocked()
        assert caught == ["JobStateError"] * 4


async def test_g14_concurrent_senders_of_one_job_lose_and_double_nothing_while_the_window_is_full() -> None:
    class Worker(BaseWorker):
        @job
        async def many(self, job: Job[Any]) -> Any:
            async def send(name: str) -> None:
                for number in range(300):
                    await job.update((name, number))

            async with anyio.create_task_group() as task_group:
                for name in "abcd":
                    task_group.start_soon(send, name)
            return {}

    async with running(Worker("worker"), client := BaseWorker("client")):
        async with client.job("worker", name="many") as asked:
            await anyio.wait_all_tasks_blocked()
            seen = [event.data async for event in asked]
        for name in "abcd":
            assert [number for sender, number in seen if sender == name] == list(range(300))


async def test_two_tasks_that_iterate_at_once_are_told_so_instead_of_waiting_for_ever() -> None:
    async with running(sender := Sender(), client := BaseWorker("client")):
        async with client.job("sender", name="urgent_after") as asked, anyio.create_task_group() as task_group:
            seen: list[Any] = []

            async def read() -> None:
                seen.extend([event.data async for event in asked])

            task_group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(JobStateError, match="two tasks"):
                await anext(asked)
            sender.gate.set()
        assert seen == ["first", "second", "third"]


# --- G15: urgency ---


async def test_g15_urgent_updates_and_responses_overtake_hooks_of_other_jobs() -> None:
    async with running(sender := Sender(), listener := Listener()):
        slow = await listener.create_job_group_and_request_job(["sender"], name="updates", payload=20)
        listener.blocked = slow.job_id
        await anyio.wait_all_tasks_blocked()
        quick = await listener.create_job_group_and_request_job(["sender"], name="urgent_after")
        await anyio.wait_all_tasks_blocked()
        assert listener.order == [(quick.job_id, "first"), (quick.job_id, "second")]
        sender.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert [what for _, what in listener.order] == ["first", "second", "third", "response", "completed"]
        listener.let_go.set()
        await slow.wait()
        await anyio.wait_all_tasks_blocked()
        assert numbers(listener.notes[slow.job_id]) == list(range(20))


async def test_g15_an_urgent_event_waits_for_its_own_jobs_earlier_hook_even_while_that_one_runs() -> None:
    async with running(sender := Sender(), listener := Listener()):
        listener.blocked = "mine"
        sender.gate.set()
        group = await listener.create_job_group_and_request_job(["sender"], name="urgent_after", job_id="mine")
        await anyio.wait_all_tasks_blocked()
        assert listener.order == []
        listener.let_go.set()
        await group.wait()
        await anyio.wait_all_tasks_blocked()
        assert listener.notes["mine"] == ["first", "second", "third", "response", "completed"]


async def test_g15_a_response_that_is_not_urgent_waits_for_an_urgent_update_of_its_own_job_that_is_held_up() -> None:
    class Worker(BaseWorker):
        @job
        async def talk(self, job: Job[Any]) -> Any:
            await job.update("urgent", urgent=True)
            await job.update("usual")
            return {}

    async with running(Worker("worker"), listener := Listener()):
        listener.blocked = "mine"
        group = await listener.create_job_group_and_request_job(["worker"], name="talk", job_id="mine")
        await group.wait()
        await anyio.wait_all_tasks_blocked()
        assert listener.order == []
        other = await listener.create_job_group_and_request_job(["worker"], name="talk", job_id="other")
        await other.wait()
        await anyio.wait_all_tasks_blocked()
        assert numbers(listener.notes.get("other", [])) == []
        listener.let_go.set()
        await anyio.wait_all_tasks_blocked()
        for job_id in ("mine", "other"):
            assert listener.notes[job_id] == ["urgent", "usual", "response", "completed"]


async def test_g15_a_plain_subscriber_gets_the_events_of_one_job_in_order_as_well() -> None:
    from bus import AsyncQueueBus, BusJobUpdateUrgentMessage, BusSubscriber  # noqa: PLC0415

    class Subscriber(BusSubscriber):
        name = "subscriber"
        gate: anyio.Event
        seen: list[Any]

        async def on_bus_message(self, message: BusMessage) -> None:
            assert isinstance(message, BusJobUpdateMessage)
            if message.update == "a1":
                await self.gate.wait()
            self.seen.append(message.update)

    subscriber = Subscriber()
    subscriber.gate, subscriber.seen = anyio.Event(), []
    async with AsyncQueueBus() as bus:
        await bus.subscribe(subscriber)
        for kind, job_id, update in (
            (BusJobUpdateMessage, "a", "a1"),
            (BusJobUpdateMessage, "b", "b1"),
            (BusJobUpdateMessage, "a", "a2"),
            (BusJobUpdateUrgentMessage, "a", "a3"),
            (BusJobUpdateUrgentMessage, "c", "c1"),
        ):
            await bus.send(kind(source="x", target="subscriber", job_id=job_id, update=update))
            await anyio.wait_all_tasks_blocked()
        assert subscriber.seen == ["c1"]
        subscriber.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert subscriber.seen == ["c1", "a1", "a2", "a3", "b1"]


# --- events that a network delays, doubles and reorders ---


def withdraw(client: BaseWorker, job_id: str) -> None:
    """Take back the request that waits for the ghost, as if it had taken it."""
    client.bus.post(BusJobCancelMessage(source="client", target="ghost", job_id=job_id))


def event(job_id: str, sequence: int, attempt: int = 1) -> BusJobUpdateMessage:
    return BusJobUpdateMessage(
        source="ghost", target="client", job_id=job_id, sequence=sequence, attempt=attempt, update=(attempt, sequence)
    )


def answer(job_id: str, sequence: int, attempt: int = 1) -> BusJobResponseMessage:
    return BusJobResponseMessage(
        source="ghost",
        target="client",
        job_id=job_id,
        sequence=sequence,
        attempt=attempt,
        status=JobStatus.COMPLETED,
        response={"attempt": attempt},
    )


@pytest.mark.parametrize("seed", range(30))
async def test_g14_g12_events_that_come_reordered_and_doubled_are_seen_once_in_order(seed: int) -> None:
    rng = Random(seed)
    async with running(client := BaseWorker("client")):
        async with client.job("ghost") as asked:
            job_id = asked.job_id
            withdraw(client, job_id)
            messages: list[BusMessage] = [event(job_id, number) for number in range(200)]
            messages.append(answer(job_id, 200))
            messages += [event(job_id, rng.randrange(200)) for _ in range(50)]
            messages.append(answer(job_id, 200))
            rng.shuffle(messages)
            group = client.job_groups[job_id]
            for message in messages:
                deliver(core_of(client), message)
                assert group.statistics().early <= 201
            assert group.is_done
            assert group.statistics().early == 0
            assert [each.data async for each in asked] == [(1, number) for number in range(200)]
        assert asked.response == {"attempt": 1}


async def test_g12_g47_an_event_that_comes_again_after_its_turn_is_not_kept() -> None:
    async with running(client := BaseWorker("client")) as runner:
        group = await client.create_job_group_and_request_job(["ghost"])
        withdraw(client, group.job_id)
        for number in (0, 1, 2, 1, 0, 2):
            deliver(core_of(client), event(group.job_id, number))
        assert group.statistics().early == 0
        assert runner.statistics().late_answers == 3
        group.cancel()


async def test_g14_an_answer_that_overtakes_events_waits_for_them() -> None:
    async with running(client := BaseWorker("client")):
        group = await client.create_job_group_and_request_job(["ghost"])
        withdraw(client, group.job_id)
        deliver(core_of(client), answer(group.job_id, 2))
        deliver(core_of(client), event(group.job_id, 1))
        assert not group.is_done
        deliver(core_of(client), event(group.job_id, 0))
        assert group.is_done


async def test_g12_a_newer_attempt_begins_again_and_what_comes_of_the_older_one_is_ignored() -> None:
    async with running(client := BaseWorker("client")) as runner:
        async with client.job("ghost") as asked:
            job_id = asked.job_id
            withdraw(client, job_id)
            deliver(core_of(client), event(job_id, 0))
            deliver(core_of(client), event(job_id, 2))
            deliver(core_of(client), event(job_id, 0, attempt=2))
            deliver(core_of(client), event(job_id, 1))
            deliver(core_of(client), answer(job_id, 3))
            deliver(core_of(client), answer(job_id, 1, attempt=2))
            deliver(core_of(client), answer(job_id, 1, attempt=2))
            seen = [(each.attempt, each.data) async for each in asked]
        assert seen == [(1, (1, 0)), (2, (2, 0))]
        assert asked.response == {"attempt": 2}
        assert runner.statistics().late_answers == 3


async def test_g12_events_of_strangers_are_ignored() -> None:
    async with running(client := BaseWorker("client"), Sender("stranger")) as runner:
        group = await client.create_job_group_and_request_job(["ghost"])
        withdraw(client, group.job_id)
        message = event(group.job_id, 0)
        message.source = "stranger"
        deliver(core_of(client), message)
        deliver(core_of(client), BusJobCancelMessage(source="stranger", target="client", job_id=group.job_id))
        assert not group.is_done
        assert runner.statistics().late_answers == 1
        group.cancel()


async def test_g15_the_on_job_request_event_of_a_job_comes_before_its_cancellation() -> None:
    seen: list[str] = []

    class Worker(BaseWorker):
        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep_forever()

        async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
            seen.append("cancelled")

    worker = Worker("worker")

    @worker.event_handler("on_job_request")
    async def requested(_worker: BaseWorker, message: BusJobRequestMessage) -> None:
        seen.append("requested")  # it begins before: it runs beside that
        await anyio.lowlevel.checkpoint()

    async with running(worker, client := BaseWorker("client")):
        job_id = await client.request_job("worker")
        await client.cancel_job_group(job_id)
        await anyio.wait_all_tasks_blocked()
        assert seen == ["requested", "cancelled"]


async def test_the_runner_tells_of_the_jobs_in_order_and_of_the_start_of_each_before_its_end() -> None:
    seen: list[tuple[str, str]] = []
    async with running(Sender(), client := BaseWorker("client")) as runner:

        @runner.event_handler("on_job_start")
        async def started(_runner: object, record: JobRecord) -> None:
            await anyio.lowlevel.checkpoint()
            seen.append(("start", record.job_id))

        @runner.event_handler("on_job_complete")
        def completed(_runner: object, record: JobRecord) -> None:
            seen.append(("complete", record.job_id))

        groups = [
            await client.create_job_group_and_request_job(["sender"], name="updates", payload=0) for _ in range(20)
        ]
        for group in groups:
            await group.wait()
        await anyio.wait_all_tasks_blocked()
        for group in groups:
            assert [what for what, job_id in seen if job_id == group.job_id] == ["start", "complete"]


async def test_a_second_runner_with_the_number_of_the_first_is_one_attempt_more_in_events_and_in_the_result() -> None:
    client = BaseWorker("client")
    async with running(client):
        async with client.job("ghost", job_id="j") as context:
            withdraw(client, "j")
            for origin in ("first#1", "second#1"):
                message = event("j", 0)
                message.origin = origin
                client.bus.post(message)
            client.bus.post(
                BusJobResponseMessage(
                    source="ghost",
                    target="client",
                    origin="second#1",
                    job_id="j",
                    sequence=1,
                    status=JobStatus.COMPLETED,
                )
            )
            attempts = [seen.attempt async for seen in context]
        assert attempts == [1, 2]
        assert context.results["ghost"].attempt == 2
