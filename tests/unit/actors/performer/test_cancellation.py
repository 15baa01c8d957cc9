"""A job cancelled before it began never runs; a handler that will not be cancelled holds up nobody: G18, G19."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Job, JobError, JobStateError, JobStatus, JobTimeoutError, job
from actors.runner.runner import core_of_runner
from actors.worker.verbs import core_of
from bus import BusJobRequestMessage, BusMessage
from tests.support.messages import Note
from tests.support.running import execution_of, running, settled
from tests.support.virtual_time import virtual_time
from tests.support.workers import Patient

pytestmark = pytest.mark.anyio


# --- G18: the cancel comes before the job has begun ---


@pytest.mark.parametrize("where", ["just sent", "waiting for a slot", "waiting for room", "nobody there", "inactive"])
async def test_g18_a_job_cancelled_before_it_began_never_runs_and_its_requester_is_told(where: str) -> None:
    async with running(patient := Patient(), client := BaseWorker("client")) as runner:
        fillers = []
        target = "nobody" if where == "nobody there" else "patient"
        if where.startswith("waiting"):
            count = 3 if where == "waiting for a slot" else 4
            fillers = [await client.create_job_group_and_request_job(["patient"], name="hold") for _ in range(count)]
        if where == "inactive":
            await client.deactivate_worker("patient")
        async with anyio.create_task_group() as task_group:
            told: list[JobStatus] = []

            async def ask() -> None:
                with pytest.raises(JobError) as raised:
                    await client.job(target, name="hold", job_id="mine")
                told.append(raised.value.status)

            task_group.start_soon(ask)
            while "mine" not in client.job_groups:
                await anyio.lowlevel.checkpoint()
            if where != "just sent":
                await anyio.wait_all_tasks_blocked()
            await client.cancel_job_group("mine")
        assert told == [JobStatus.CANCELLED]
        await anyio.wait_all_tasks_blocked()
        if where != "just sent":
            assert "mine" not in patient.begun
        assert runner.bus.statistics().parked == 0
        for group in fillers:
            group.cancel()


async def test_g18_a_handler_is_not_called_when_its_job_is_cancelled_in_the_step_that_asked_for_it() -> None:
    async with running(patient := Patient(), client := BaseWorker("client")):
        for _ in range(5):  # in a new task first, then in reused ones
            group = await client.create_job_group_and_request_job(["patient"], name="hold")
            group.cancel()
            await anyio.wait_all_tasks_blocked()
        assert patient.begun == []


# --- G19: handlers that swallow their cancellation ---


class Stubborn(BaseWorker):
    """Its handlers swallow every cancellation until they are released."""

    max_concurrency = 1

    def __init__(self, name: str = "stubborn") -> None:
        super().__init__(name)
        self.released = anyio.Event()
        self.swallowed = 0
        self.ended: list[str] = []
        self.notes = 0
        self.answered = 0

    @job(sequential=True)
    async def swallow(self, job: Job[Any]) -> Any:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except anyio.get_cancelled_exc_class():
                self.swallowed += 1
        try:
            await job.update("too late")
        except JobStateError:
            self.ended.append("update refused")
        self.ended.append(job.id)
        return {"never": "seen"}

    @job(name="goes-on")
    async def goes_on(self, job: Job[Any]) -> None:
        await job.respond("an answer")
        while not self.released.is_set():
            try:
                await self.released.wait()
            except anyio.get_cancelled_exc_class():
                self.swallowed += 1

    @job(name="last-words")
    async def last_words(self, job: Job[Any]) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            await job.respond("partial")
            self.answered += 1
        with anyio.CancelScope(shield=True):
            await self.released.wait()

    @job(sequential=True)
    async def shield(self, job: Job[Any]) -> Any:
        with anyio.CancelScope(shield=True):
            await self.released.wait()
        self.ended.append(job.id)

    @job
    async def once(self, job: Job[Any]) -> Any:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.swallowed += 1
        with anyio.CancelScope(shield=True):
            await self.released.wait()
        await anyio.sleep_forever()

    @job
    async def echo(self, message: BusJobRequestMessage) -> Any:
        return {"echo": message.payload}

    async def on_bus_message(self, message: BusMessage) -> None:
        self.notes += isinstance(message, Note)


async def test_g19_a_handler_that_swallows_its_cancellation_is_answered_after_the_grace_and_spins_no_longer() -> None:
    stubborn, client = Stubborn(), BaseWorker("client")
    async with running(stubborn, client, cancel_grace=0.05) as runner:
        group = await client.create_job_group_and_request_job(["stubborn"], name="swallow", job_id="mine")
        await anyio.wait_all_tasks_blocked()
        execution = execution_of(stubborn, "mine")
        group.cancel()
        with anyio.fail_after(30):
            while not execution.answered:
                await anyio.lowlevel.checkpoint()
        before = stubborn.swallowed
        assert before > 0
        assert stubborn.statistics().quarantined == 1
        assert stubborn.statistics().running == 0
        assert await client.job("stubborn", name="echo", payload=1) == {"echo": 1}
        await anyio.wait_all_tasks_blocked()
        assert stubborn.swallowed <= before + 1
        assert runner.statistics().jobs == 0
        stubborn.released.set()
        await anyio.wait_all_tasks_blocked()
        assert stubborn.ended == ["update refused", "mine"]
        assert stubborn.statistics().quarantined == 0


@virtual_time()
async def test_g19_the_slot_of_a_handler_that_answers_once_it_was_told_to_stop_is_free_after_the_grace() -> None:
    stubborn, client = Stubborn(), BaseWorker("client")
    async with running(stubborn, client, cancel_grace=5.0) as runner:
        start = anyio.current_time()
        group = await client.create_job_group_and_request_job(["stubborn"], name="last-words")
        await anyio.wait_all_tasks_blocked()
        group.cancel()
        await anyio.wait_all_tasks_blocked()
        assert stubborn.answered == 1
        assert stubborn.statistics().running == 1
        assert await client.job("stubborn", name="echo", payload=1) == {"echo": 1}
        assert anyio.current_time() - start == pytest.approx(5.0)
        assert stubborn.statistics().quarantined == 1
        stubborn.released.set()
        await anyio.wait_all_tasks_blocked()
        assert stubborn.statistics().quarantined == 0
        assert core_of_runner(runner).deadlines.statistics().armed == 0


async def test_g19_a_handler_that_answers_when_told_to_stop_and_then_ends_leaves_no_deadline() -> None:
    stubborn, client = Stubborn(), BaseWorker("client")
    stubborn.released.set()
    async with running(stubborn, client) as runner:
        group = await client.create_job_group_and_request_job(["stubborn"], name="last-words")
        while stubborn.statistics().running == 0:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        group.cancel()
        await anyio.wait_all_tasks_blocked()
        assert stubborn.answered == 1
        assert stubborn.statistics().running == 0
        assert core_of_runner(runner).deadlines.statistics().armed == 0


@pytest.mark.parametrize("answers", ["before", "once told to stop"])
async def test_g19_a_handler_that_has_answered_and_swallows_the_end_of_its_worker_spins_no_longer(answers: str) -> None:
    stubborn, client = Stubborn(), BaseWorker("client")
    async with running(stubborn, client, cancel_grace=0.05, drain_timeout=0.0) as runner:
        group = await client.create_job_group_and_request_job(
            ["stubborn"], name="goes-on" if answers == "before" else "swallow"
        )
        await anyio.wait_all_tasks_blocked()
        assert group.is_done is (answers == "before")
        await runner.remove_worker("stubborn")
        before = stubborn.swallowed
        assert before > 0
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert stubborn.swallowed <= before + 1
        stubborn.released.set()


@virtual_time()
@pytest.mark.parametrize("how", ["cancelled by the requester", "deadline"])
async def test_g19_the_requester_is_told_at_once_and_the_slot_is_free_after_the_grace(how: str) -> None:
    stubborn, client = Stubborn(), BaseWorker("client")
    async with running(stubborn, client, cancel_grace=5.0):
        start = anyio.current_time()
        if how == "cancelled by the requester":
            with anyio.move_on_after(2.0):
                await client.job("stubborn", name="shield")
        else:
            with pytest.raises(JobTimeoutError):
                await client.job("stubborn", name="shield", timeout=2.0)
        assert anyio.current_time() - start == pytest.approx(2.0)
        assert stubborn.statistics().running == 1
        await client.send_bus_message(Note(source="client", target="stubborn"))
        group = await client.create_job_group_and_request_job(["stubborn"], name="echo")
        await anyio.wait_all_tasks_blocked()
        assert stubborn.notes == 1
        await group.wait()
        assert anyio.current_time() - start == pytest.approx(7.0)
        assert stubborn.statistics().quarantined == 1
        stubborn.released.set()
        await anyio.wait_all_tasks_blocked()
        assert len(stubborn.ended) == 1


@virtual_time()
async def test_g19_the_performer_answers_cancelled_after_the_grace_and_not_before() -> None:
    answers: list[tuple[float, JobStatus | None]] = []
    stubborn, client = Stubborn(), BaseWorker("client")
    async with running(stubborn, client, cancel_grace=5.0) as runner:
        runner.add_event_handler(
            "on_job_error", lambda _runner, record: answers.append((anyio.current_time(), record.status))
        )
        start = anyio.current_time()
        group = await client.create_job_group_and_request_job(["stubborn"], name="shield")
        await anyio.wait_all_tasks_blocked()
        group.cancel()
        await anyio.sleep(4)
        assert answers == []
        await anyio.sleep(2)
        assert [(round(when - start, 6), status) for when, status in answers] == [(5.0, JobStatus.CANCELLED)]
        stubborn.released.set()
        await anyio.wait_all_tasks_blocked()


@virtual_time()
@pytest.mark.parametrize("quarantined", [False, True])
async def test_g19_g30_a_runner_ends_although_a_handler_has_swallowed_its_cancellation_once(
    quarantined: bool,
) -> None:
    stubborn, client = Stubborn(), BaseWorker("client")
    with anyio.fail_after(50):
        async with running(stubborn, client, cancel_grace=5.0, drain_timeout=1.0):
            group = await client.create_job_group_and_request_job(["stubborn"], name="once")
            await anyio.wait_all_tasks_blocked()
            group.cancel()
            if quarantined:
                await anyio.sleep(6)
            stubborn.released.set()
            await anyio.wait_all_tasks_blocked()
            if quarantined:
                assert stubborn.statistics().quarantined == 1
                core_of(stubborn).admission._quarantined = 0  # type: ignore[union-attr] # for the check of what is left behind


@virtual_time()
async def test_g19_the_same_job_id_may_be_asked_again_while_the_old_handler_still_runs() -> None:
    stubborn, client = Stubborn(), BaseWorker("client")
    async with running(stubborn, client, cancel_grace=5.0):
        for _ in range(3):
            group = await client.create_job_group_and_request_job(["stubborn"], name="shield", job_id="mine")
            await anyio.wait_all_tasks_blocked()
            group.cancel()
            await anyio.sleep(6)
        assert stubborn.statistics().quarantined == 3
        assert stubborn.statistics().running == 0
        stubborn.released.set()
        await anyio.wait_all_tasks_blocked()
        assert stubborn.statistics().quarantined == 0
        assert stubborn.ended == ["mine"] * 3
        assert await client.job("stubborn", name="echo", job_id="mine", payload=1) == {"echo": 1}


async def test_g19_a_job_that_answered_early_and_one_of_another_with_its_id_free_both_slots() -> None:
    class Worker(BaseWorker):
        max_concurrency = 2
        gate: anyio.Event

        @job
        async def early(self, job: Job[Any]) -> None:
            await job.respond({})
            await self.gate.wait()

    worker, clients = Worker("worker"), (BaseWorker("client"), BaseWorker("other"))
    worker.gate = anyio.Event()
    async with running(worker, *clients):
        for client in clients:
            await client.job("worker", name="early", job_id="mine")
        await anyio.wait_all_tasks_blocked()
        assert worker.statistics().running == 2
        worker.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert worker.statistics().running == 0
        assert worker.statistics().quarantined == 0


async def test_g19_a_handler_in_a_thread_cannot_be_stopped_and_holds_up_nobody_but_its_slot() -> None:
    release = threading.Event()
    began = threading.Event()

    class Worker(BaseWorker):
        max_concurrency = 2

        @job
        def block(self, message: BusJobRequestMessage) -> Any:
            began.set()
            assert release.wait(60)

        @job
        async def echo(self, message: BusJobRequestMessage) -> Any:
            return {"echo": message.payload}

    async with running(Worker("worker"), client := BaseWorker("client")) as runner:
        try:
            group = await client.create_job_group_and_request_job(["worker"], name="block")
            with anyio.fail_after(30):
                while not began.is_set():
                    await anyio.lowlevel.checkpoint()
                group.cancel()
                assert await client.job("worker", name="echo", payload=1) == {"echo": 1}
        finally:
            release.set()
        await settled(runner)


async def test_g19_a_handler_cleans_up_with_jobs_of_its_own_within_the_grace() -> None:
    class Worker(BaseWorker):
        answer: Any = None

        @job
        async def tidy(self, job: Job[Any]) -> Any:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    self.answer = await self.job("worker", name="echo", payload="tidy")

        @job
        async def echo(self, message: BusJobRequestMessage) -> Any:
            return {"echo": message.payload}

    async with running(worker := Worker("worker"), client := BaseWorker("client")):
        group = await client.create_job_group_and_request_job(["worker"], name="tidy")
        await anyio.wait_all_tasks_blocked()
        group.cancel()
        await anyio.wait_all_tasks_blocked()
        assert worker.answer == {"echo": "tidy"}
