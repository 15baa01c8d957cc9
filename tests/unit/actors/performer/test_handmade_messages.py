"""Messages about jobs that a performer makes by hand say the same as its verbs do, in the same order."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import BaseWorker, JobError, JobStatus, job
from bus import (
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusMessage,
    EncodeError,
    ErrorInfo,
)
from tests.support.running import running

pytestmark = pytest.mark.anyio


class ByHand(BaseWorker):
    """It says by hand what its `script` holds: a type of message and its fields."""

    def __init__(self, *script: tuple[Any, dict[str, Any]]) -> None:
        super().__init__("hand")
        self.script = script

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        await self.send_job_update(message.job_id, "by a verb")
        for kind, fields in self.script:
            said: BusMessage = kind(source=self.name, target=message.source, job_id=message.job_id, **fields)
            if isinstance(said, BusJobStreamDataMessage):
                await self.bus.send(said)
            else:
                await self.send_bus_message(said)


async def heard(worker: ByHand) -> tuple[list[tuple[str, Any]], Any]:
    """The events and the answer of one job."""
    asker = BaseWorker("asker")
    async with running(worker, asker):
        async with asker.job("hand", timeout=30) as asked:
            events: list[tuple[str, Any]] = [(event.type, event.data) async for event in asked]
        assert worker.active_jobs == {}
        assert worker.statistics().running == 0
        return events, asked.response


async def test_updates_chunks_and_the_answer_arrive_in_the_order_sent() -> None:
    events, response = await heard(
        ByHand(
            *[(BusJobUpdateMessage, {"update": number}) for number in range(300)],
            (BusJobStreamStartMessage, {"data": "open"}),
            (BusJobStreamDataMessage, {"data": {"n": 1}}),
            (BusJobResponseMessage, {"response": ["done"], "status": JobStatus.COMPLETED}),
        )
    )
    assert events == [
        ("update", "by a verb"),
        *[("update", number) for number in range(300)],
        ("stream_start", "open"),
        ("stream_data", {"n": 1}),
    ]
    assert response == ["done"]


async def test_the_end_of_a_stream_is_the_answer() -> None:
    events, response = await heard(
        ByHand(
            (BusJobStreamStartMessage, {}),
            (BusJobStreamDataMessage, {"data": 1}),
            (BusJobStreamEndMessage, {"data": 2}),
        )
    )
    assert [kind for kind, _ in events] == ["update", "stream_start", "stream_data", "stream_end"]
    assert response == 2


@pytest.mark.parametrize("kind", [BusJobResponseMessage, BusJobResponseUrgentMessage])
async def test_a_failure_by_hand_keeps_its_status_and_its_error(kind: type[BusJobResponseMessage]) -> None:
    error = ErrorInfo(type="Odd", message="it is odd")
    with pytest.raises(JobError) as raised:
        await heard(ByHand((kind, {"status": JobStatus.FAILED, "response": {"part": 1}, "error": error})))
    assert (raised.value.status, raised.value.response, raised.value.error) == (JobStatus.FAILED, {"part": 1}, error)


async def test_a_second_answer_by_hand_changes_nothing() -> None:
    answer = {"status": JobStatus.COMPLETED}
    _, response = await heard(
        ByHand((BusJobResponseMessage, {**answer, "response": 1}), (BusJobResponseMessage, {**answer, "response": 2}))
    )
    assert response == 1


async def test_what_cannot_travel_is_refused_where_it_is_sent() -> None:
    refused = []

    class Refused(ByHand):
        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            try:
                await super().on_job_request(message)
            except EncodeError as error:
                refused.append(str(error))
            await self.send_job_response(message.job_id, "all the same")

    _, response = await heard(Refused((BusJobUpdateMessage, {"update": {"deep": [object()]}})))
    assert response == "all the same"
    assert refused == [refused[0]]
    assert "update.deep[0]" in refused[0] or "update['deep'][0]" in refused[0]


async def test_events_of_a_handler_that_is_given_the_message_are_exactly_those_it_sent() -> None:
    class Speaker(BaseWorker):
        @job(name="speak")
        async def speak(self, message: BusJobRequestMessage) -> str:
            await self.send_job_stream_start(message.job_id, "open")
            await self.send_job_stream_data(message.job_id, 1)
            return "answer"

        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            await self.send_job_stream_data(message.job_id, 1)
            await self.send_job_response(message.job_id, "answer")

    asker = BaseWorker("asker")
    async with running(Speaker("speaker"), asker):
        for name, expected in (("speak", ["stream_start", "stream_data"]), (None, ["stream_start", "stream_data"])):
            async with asker.job("speaker", name=name, timeout=30) as asked:
                events = [event.type async for event in asked]
            assert (events, asked.response) == (expected, "answer")


async def test_a_request_by_hand_is_done_under_the_id_it_names_and_its_answer_ends_it() -> None:
    class Plain(BaseWorker):
        ids: list[str] = []  # noqa: RUF012 - the test reads it

        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            self.ids.append(message.job_id)
            await self.send_job_response(message.job_id, {"ok": 1})

    asker, plain = BaseWorker("asker"), Plain("plain")
    async with running(asker, plain):
        for job_id in ("chosen", "other"):
            await asker.send_bus_message(BusJobRequestMessage(source="asker", target="plain", job_id=job_id))
        await anyio.wait_all_tasks_blocked()
        assert sorted(plain.ids) == ["chosen", "other"]
        assert plain.active_jobs == {}


class Coordinator(BaseWorker):
    """It notes the hooks that are called for its jobs."""

    def __init__(self) -> None:
        super().__init__("coordinator")
        self.told: list[tuple[str, str, Any]] = []

    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        self.told.append(("update", message.source, message.update))

    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        self.told.append((message.status.value, message.source, message.response))

    async def on_job_completed(self, response: Any) -> None:
        self.told.append(("end", "", response))

    async def on_job_error(self, message: Any) -> None:
        self.told.append(("end", "", message))


class Helper(BaseWorker):
    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        await self.send_job_update(message.job_id, "at it")
        if message.payload == "fail":
            raise ValueError("no")
        await self.send_job_response(message.job_id, message.payload)


async def test_answers_to_requests_by_hand_come_to_hooks_also_of_several_workers_under_one_id() -> None:
    coordinator = Coordinator()
    async with running(coordinator, Helper("a"), Helper("b"), Helper("c"), ready_timeout=0.05):
        for name, payload in (("a", 1), ("b", "fail"), ("c", 3), ("nobody", 4)):
            await coordinator.send_bus_message(
                BusJobRequestMessage(source="coordinator", target=name, job_id="together", payload=payload)
            )
        assert list(coordinator.job_groups) == ["together"]
        await coordinator.job_groups["together"].wait()
        await anyio.wait_all_tasks_blocked()
    assert sorted(coordinator.told, key=str) == [
        ("completed", "a", 1),
        ("completed", "c", 3),
        ("error", "b", None),
        ("failed", "nobody", None),
        ("update", "a", "at it"),
        ("update", "b", "at it"),
        ("update", "c", "at it"),
    ]


async def test_a_request_by_hand_is_cancelled_like_any_other() -> None:
    class Slow(BaseWorker):
        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep_forever()

    coordinator, slow = Coordinator(), Slow("slow")
    async with running(coordinator, slow):
        await coordinator.bus.send(BusJobRequestMessage(source="coordinator", target="slow", job_id="j"))
        await coordinator.cancel_job_group("j")
        await anyio.wait_all_tasks_blocked()
        assert slow.active_jobs == {}
    assert [kind for kind, _, _ in coordinator.told] == ["cancelled"]
