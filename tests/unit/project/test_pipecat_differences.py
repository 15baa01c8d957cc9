"""What differs from Pipecat on purpose: the rows of the table in docs/pipecat.md that are about behaviour here."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import BaseWorker, JobError, JobGroupError, JobParams, JobStatus, WorkerRunner, job
from actors.jobs.errors import HandlerError
from bus import (
    AsyncQueueBus,
    BusDataMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusNotStartedError,
    BusSubscriber,
    DuplicateNameError,
    EncodeError,
)
from tests.support.running import running
from tests.unit.project.pipecat import Answering, Parent, Waiting

pytestmark = pytest.mark.anyio


async def ask(worker: BaseWorker, name: str) -> JobStatus:
    """How a job ends."""
    try:
        async with worker.job(name):
            return JobStatus.COMPLETED
    except JobError as error:
        return error.status


class Raising(BaseWorker):
    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        raise ValueError("broken")


class ByHand(BaseWorker):
    """Answers with a message of its own making."""

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        await self.send_bus_message(
            BusJobResponseMessage(
                source=self.name,
                target=message.source,
                job_id=message.job_id,
                status=JobStatus.COMPLETED,
                response={"by": "hand"},
            )
        )


class Hurried(BaseWorker):
    """Says three things of a job, the second one urgently."""

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        for number in range(3):
            await self.send_job_update(message.job_id, {"number": number}, urgent=number == 1)
        await self.send_job_response(message.job_id, None)


async def test_a_job_whose_handler_raises_or_is_not_there_ends_at_once() -> None:
    parent = Parent()
    async with running(parent, Raising("raising"), BaseWorker("idle")):
        for worker, said in (("raising", "ValueError: broken"), ("idle", "no handler")):
            with pytest.raises(JobError, match=said) as caught:
                async with parent.job(worker):
                    pass
            assert caught.value.status is JobStatus.ERROR


async def test_a_job_whose_performer_is_stopped_raises() -> None:
    parent, waiting = Parent(), Waiting("waiting")
    async with running(parent, waiting):
        asking = parent.create_task(ask(parent, "waiting"))
        await anyio.wait_all_tasks_blocked()
        await waiting.stop()
        assert await asking is JobStatus.CANCELLED


async def test_a_payload_is_copied_and_what_cannot_travel_is_refused() -> None:
    parent, told = Parent(), {"words": ["one"]}
    worker = Answering("worker", response=told)
    async with running(parent, worker):
        async with parent.job("worker", payload=told) as context:
            pass
        assert context.response == told
        assert context.response is not told
        with pytest.raises(EncodeError):
            await parent.request_job("worker", payload={"lock": anyio.Lock()})


async def test_a_group_error_is_a_job_error() -> None:
    assert issubclass(JobGroupError, JobError)


async def test_request_job_returns_at_once_and_is_told_that_nobody_came() -> None:
    parent, failed = Parent(), anyio.Event()

    @parent.event_handler("on_job_error")
    def on_job_error(_worker: Parent, message: BusJobResponseMessage) -> None:
        assert message.status is JobStatus.FAILED
        failed.set()

    async with running(parent):
        await parent.request_job("nobody", params=JobParams(timeout=0.01))
        await failed.wait()
        with pytest.raises(JobError, match="timeout"):
            async with parent.job("nobody", params=JobParams(timeout=0.01)):
                pass


async def test_what_is_urgent_keeps_its_place_among_what_is_said_of_its_job() -> None:
    parent = Parent()
    async with running(parent, Hurried("hurried")):
        async with parent.job_group("hurried") as group:
            events = [(event.type, event.data) async for event in group]
        assert [data["number"] for kind, data in events if kind == "update"] == [0, 1, 2]
        assert events[-1][0] == "member_done"
        assert group.responses == {"hurried": None}


async def test_a_job_answered_by_hand_has_ended() -> None:
    parent, by_hand = Parent(), ByHand("by hand")
    async with running(parent, by_hand):
        async with parent.job("by hand") as context:
            pass
        assert context.response == {"by": "hand"}
        await anyio.wait_all_tasks_blocked()
        assert by_hand.active_jobs == {}


async def test_a_worker_hears_what_is_for_it_and_an_observer_everything() -> None:
    class Hearing(BaseWorker):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.heard: list[str] = []

        async def on_bus_message(self, message: BusMessage) -> None:
            await super().on_bus_message(message)
            self.heard.append(type(message).__name__)

    class Monitor(BusSubscriber):
        observes = True
        name = "monitor"

        def __init__(self) -> None:
            self.heard: list[str] = []

        async def on_bus_message(self, message: BusMessage) -> None:
            self.heard.append(type(message).__name__)

    parent, hearing, monitor = Parent(), Hearing("hearing"), Monitor()
    async with running(parent, hearing, Answering("worker")) as runner:
        await runner.bus.subscribe(monitor)
        async with parent.job("worker"):
            pass
        await parent.send_bus_message(BusDataMessage(source="parent"))
        await anyio.wait_all_tasks_blocked()
    assert hearing.heard == ["BusDataMessage"]
    assert {"BusJobRequestMessage", "BusJobResponseMessage", "BusDataMessage"} <= set(monitor.heard)


async def test_what_has_stopped_is_forgotten_and_what_is_wrong_is_refused() -> None:
    parent, runner = Parent(), WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(parent, Answering("worker"))
    with pytest.raises(DuplicateNameError):
        await runner.add_workers(Answering("worker"))
    with pytest.raises(ValueError, match="on_job_updated"):
        parent.add_event_handler("on_job_updated", print)
    with pytest.raises(BusNotStartedError):
        await AsyncQueueBus().send(BusDataMessage(source="nobody"))
    async with runner:
        assert await runner.remove_worker("worker")
        assert runner.get_worker("worker") is None
        await runner.add_workers(Answering("worker"))


def test_a_class_that_hides_a_verb_is_refused_and_later_verbs_may_be_hidden() -> None:
    with pytest.raises(HandlerError, match="send_job_update"):

        class Hides(BaseWorker):
            async def send_job_update(self, *_arguments: Any, **_keywords: Any) -> None:
                pass

    with pytest.raises(HandlerError):

        class Unservable(BaseWorker):
            @job(name="x")
            async def handler(self, one: int, /, two: int, *, three: BaseWorker) -> None:
                pass

    class Later(BaseWorker):
        request: Any = None
        call: Any = None
        gather: Any = None
        stream: Any = None

    assert Later("later").request is None


async def test_run_raises_the_cancellation_of_its_task() -> None:
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(Parent())
    ended: list[str] = []

    async def run() -> None:
        try:
            await runner.run()
        except anyio.get_cancelled_exc_class():
            ended.append("cancelled")
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert ended == ["cancelled"]
