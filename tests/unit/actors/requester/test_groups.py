"""Groups: several jobs that end together, G8 to G12."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import (
    BaseWorker,
    JobError,
    JobGroupError,
    JobGroupParams,
    JobGroupResponse,
    JobParams,
    JobResult,
    JobStateError,
    JobStatus,
    job,
)
from actors.worker.verbs import core_of
from bus import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobStreamEndMessage,
    BusJobUpdateMessage,
    MailboxFullError,
)
from tests.support.running import running

pytestmark = pytest.mark.anyio


class Member(BaseWorker):
    """Does what the payload says."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.began = anyio.Event()
        self.told: list[BusJobCancelMessage] = []
        self.payloads: list[Any] = []

    @job
    async def act(self, message: BusJobRequestMessage) -> Any:
        self.payloads.append(message.payload)
        self.began.set()
        what = message.payload
        if what == "hang":
            await anyio.sleep_forever()
        if what == "raise":
            raise ValueError(f"{self.name} says no")
        if what == "fail":
            await self.send_job_response(message.job_id, {"partly": 1}, status=JobStatus.FAILED)
        return {"by": self.name, "got": what}

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        """Left open, to be answered from outside."""

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        self.told.append(message)


class Boss(BaseWorker):
    """Keeps what its hooks are told, in order."""

    def __init__(self, name: str = "boss") -> None:
        super().__init__(name)
        self.heard: list[tuple[str, Any]] = []

    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        self.heard.append(("response", (message.source, message.status)))

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        self.heard.append(("completed", result))

    async def on_job_error(self, message: BusJobResponseMessage) -> None:
        self.heard.append(("error", (message.source, message.status)))

    def told(self, hook: str) -> list[Any]:
        return [value for name, value in self.heard if name == hook]


def team() -> tuple[Boss, Member, Member, Member]:
    return Boss(), Member("a"), Member("b"), Member("c")


async def test_a_group_collects_the_answers_of_all_members() -> None:
    boss, *members = team()
    async with running(boss, *members):
        answers = await boss.job_group("a", "b", "c", name="act", payload=1)
        assert answers.responses == {name: {"by": name, "got": 1} for name in "abc"}
        assert all(result.status is JobStatus.COMPLETED for result in answers.results.values())
        async with boss.job_group("c", "a", name="act", payload=2) as group:
            pass
        assert group.responses == {name: {"by": name, "got": 2} for name in "ac"}
        assert group.results["a"] == JobResult(JobStatus.COMPLETED, {"by": "a", "got": 2}, None, 1)
        await anyio.wait_all_tasks_blocked()
        assert boss.told("completed")[0] == answers
        assert boss.told("error") == []


async def test_each_member_may_get_a_payload_of_its_own() -> None:
    boss, *members = team()
    async with running(boss, *members):
        answers = await boss.job_group("a", "b", "c", name="act", payload="all", payloads={"b": "own", "c": None})
        assert {name: answer["got"] for name, answer in answers.responses.items()} == {
            "a": "all",
            "b": "own",
            "c": None,
        }


# --- G8 ---


@pytest.mark.parametrize(
    ("what", "status", "response"), [("raise", JobStatus.ERROR, {}), ("fail", JobStatus.FAILED, {"partly": 1})]
)
async def test_g8_a_member_that_fails_ends_the_group_and_the_others_are_told_to_stop(
    what: str, status: JobStatus, response: Any
) -> None:
    boss, a, b, c = team()
    async with running(boss, a, b, c):
        beside = await boss.request_job("c", name="act", payload="hang")
        await c.began.wait()
        with pytest.raises(JobGroupError) as caught:
            await boss.job_group("a", "b", name="act", payloads={"a": what, "b": "hang"}, job_id="mine")
        error = caught.value
        assert (error.worker_name, error.status, error.response, error.job_id) == ("a", status, response, "mine")
        assert {name: result.status for name, result in error.results.items()} == {"a": status, "b": "cancelled"}
        await anyio.wait_all_tasks_blocked()
        assert [message.job_id for message in b.told] == ["mine"]
        assert "'a'" in (b.told[0].reason or "")
        assert c.told == []
        assert boss.told("error") == [("a", status)]
        assert boss.told("completed") == []
        await group_ends(boss, beside)


async def test_g8_the_error_holds_the_answers_that_had_come_in() -> None:
    boss, a, b, c = team()
    async with running(boss, a, b, c):
        group = await boss.create_job_group_and_request_job(["a", "b"], name="act", payloads={"a": 1, "b": "hang"})
        await anyio.wait_all_tasks_blocked()
        await boss.cancel_job_group(group.job_id, reason="enough")
        with pytest.raises(JobGroupError, match="enough") as caught:
            await group.wait()
        assert caught.value.responses == {"a": {"by": "a", "got": 1}}
        assert caught.value.results["a"].status is JobStatus.COMPLETED
        assert caught.value.results["b"].status is JobStatus.CANCELLED
        assert caught.value.status is JobStatus.CANCELLED
        assert isinstance(caught.value, JobError)


async def test_g8_a_group_that_reaches_its_deadline_says_who_had_not_answered() -> None:
    boss, a, b, c = team()
    async with running(boss, a, b, c):
        with pytest.raises(JobGroupError, match="no answer from 'b', 'c' before the deadline") as caught:
            await boss.job_group("a", "b", "c", name="act", payloads={"a": 1, "b": "hang", "c": "hang"}, timeout=0.05)
        statuses = {name: result.status for name, result in caught.value.results.items()}
        assert statuses == {"a": "completed", "b": "failed", "c": "failed"}
        await anyio.wait_all_tasks_blocked()
        assert len(b.told) == len(c.told) == 1
        assert [status for _, status in boss.told("error")] == [JobStatus.FAILED]


async def test_g8_a_member_that_nobody_serves_ends_the_group() -> None:
    boss, a, b, _ = team()
    async with running(boss, a, b, ready_timeout=0.02) as runner:
        with pytest.raises(JobGroupError, match="nobody served 'ghost'") as caught:
            await boss.job_group("a", "ghost", "b", name="act", payload="hang")
        assert caught.value.worker_name == "ghost"
        assert runner.bus.statistics().parked == 0


async def test_g8_every_member_that_had_not_answered_is_reported_to_on_job_response_too() -> None:
    boss, a, b, c = team()
    async with running(boss, a, b, c):
        job_id = await boss.request_job_group("a", "b", name="act", payloads={"a": 1, "b": "hang"})
        await anyio.wait_all_tasks_blocked()
        await boss.cancel_job_group(job_id)
        await anyio.wait_all_tasks_blocked()
        assert boss.told("response") == [("a", "completed"), ("b", "cancelled")]


# --- G9 ---


async def test_g9_without_cancel_on_error_the_group_completes_and_shows_each_status() -> None:
    boss, *members = team()
    async with running(boss, *members, ready_timeout=0.02):
        payloads = {"a": 1, "b": "raise", "c": "fail", "ghost": 0}
        answers = await boss.job_group(*payloads, name="act", payloads=payloads, cancel_on_error=False)
        assert {name: result.status for name, result in answers.results.items()} == {
            "a": "completed",
            "b": "error",
            "c": "failed",
            "ghost": "failed",
        }
        assert answers.responses == {"a": {"by": "a", "got": 1}, "c": {"partly": 1}}
        failure = answers.results["b"].error
        assert failure is not None
        assert (failure.type, failure.message) == ("ValueError", "b says no")
        await anyio.wait_all_tasks_blocked()
        assert [result.job_id for result in boss.told("completed")] == [answers.job_id]
        assert boss.told("error") == []


async def test_g9_the_deadline_ends_such_a_group_all_the_same() -> None:
    boss, a, *_ = team()
    async with running(boss, a):
        with pytest.raises(JobGroupError):
            await boss.job_group("a", name="act", payload="hang", timeout=0.02, cancel_on_error=False)
        await anyio.wait_all_tasks_blocked()
        assert len(a.told) == 1


# --- G10 and G11 ---


async def test_g10_an_empty_group_completes_at_once_with_no_responses() -> None:
    boss = Boss()
    async with running(boss):
        assert (await boss.job_group()).responses == {}
        async with boss.job_group(timeout=50) as group:
            assert [event async for event in group] == []
        assert group.responses == group.results == {}
        made = await boss.create_job_group_and_request_job([])
        assert made.is_done
        await made.wait()
        await boss.request_job_group()
        await anyio.wait_all_tasks_blocked()
        assert len(boss.told("completed")) == 4


async def test_g11_the_same_worker_twice_is_refused_before_anything_is_sent() -> None:
    boss, a, b, _ = team()
    async with running(boss, a, b) as runner:
        before = runner.bus.statistics().sent
        with pytest.raises(ValueError, match="named twice: 'a'"):
            boss.job_group("a", "b", "a", name="act")
        with pytest.raises(ValueError, match="named twice: 'a', 'b'"):
            await boss.request_job_group("a", "b", "b", "a", name="act")
        with pytest.raises(ValueError, match="named twice: 'b'"):
            await boss.create_job_group_and_request_job(["b", "b"], name="act")
        await anyio.wait_all_tasks_blocked()
        assert runner.bus.statistics().sent == before
        assert a.payloads == b.payloads == []


# --- G12 ---


async def test_g12_a_second_answer_is_ignored_and_counted() -> None:
    boss, a, b, _ = team()
    async with running(boss, a, b) as runner:
        group = await boss.create_job_group_and_request_job(["a", "b"])
        await a.send_job_response(group.job_id, "first")
        for status in (JobStatus.COMPLETED, JobStatus.ERROR):
            await runner.bus.send(
                BusJobResponseMessage(
                    source="a", target="boss", job_id=group.job_id, status=status, response="second", sequence=1
                )
            )
        await runner.bus.send(BusJobStreamEndMessage(source="a", target="boss", job_id=group.job_id, sequence=0))
        await anyio.wait_all_tasks_blocked()
        assert not group.is_done
        assert group.responses == {"a": "first"}
        assert runner.statistics().late_answers == 3
        await b.send_job_response(group.job_id, "other")
        await group.wait()
        assert group.responses == {"a": "first", "b": "other"}
        await anyio.wait_all_tasks_blocked()
        assert boss.told("response") == [("a", "completed"), ("b", "completed")]


async def test_g12_an_answer_of_somebody_who_was_not_asked_is_ignored_and_counted() -> None:
    boss, a, b, _ = team()
    async with running(boss, a, b) as runner:
        group = await boss.create_job_group_and_request_job(["a"], name="act", payload="hang")
        for kind in ("b", "a.", "nobody"):
            await runner.bus.send(
                BusJobResponseMessage(source=kind, target="boss", job_id=group.job_id, status=JobStatus.ERROR)
            )
            await runner.bus.send(BusJobUpdateMessage(source=kind, target="boss", job_id=group.job_id, update=1))
        await anyio.wait_all_tasks_blocked()
        assert not group.is_done
        assert runner.statistics().late_answers == 6
        await group_ends(boss, group.job_id)


async def test_g12_an_answer_to_a_job_that_nobody_asked_for_is_ignored_and_counted() -> None:
    boss, a, *_ = team()
    async with running(boss, a) as runner:
        await runner.bus.send(
            BusJobResponseMessage(source="a", target="boss", job_id="never", status=JobStatus.COMPLETED)
        )
        await anyio.wait_all_tasks_blocked()
        assert runner.statistics().late_answers == 1
        assert boss.heard == []


async def test_g12_the_newest_attempt_wins_and_older_ones_are_ignored() -> None:
    boss = Boss()
    async with running(boss) as runner:
        group = await boss.create_job_group_and_request_job(["far"], name="act")
        listened: list[Any] = []

        def from_far(attempt: int, sequence: int, update: Any = None, response: Any = None) -> Any:
            fields: dict[str, Any] = {"source": "far", "target": "boss", "job_id": group.job_id}
            if response is None:
                return BusJobUpdateMessage(**fields, attempt=attempt, sequence=sequence, update=update)
            return BusJobResponseMessage(
                **fields, attempt=attempt, sequence=sequence, status=JobStatus.COMPLETED, response=response
            )

        asked = core_of(boss).groups[group.job_id]
        asked.listening = True
        for message in (
            from_far(1, 0, update="first attempt"),
            from_far(2, 0, update="second attempt"),
            from_far(1, 1, update="a zombie's"),
            from_far(1, 1, response="a zombie's"),
            from_far(2, 1, response="the owner's"),
        ):
            await runner.bus.send(message)
        while (event := await asked.next_event()) is not None:
            listened.append((event.attempt, event.data))
        await group.wait()
        assert listened == [(1, "first attempt"), (2, "second attempt")]
        assert group.results["far"] == JobResult(JobStatus.COMPLETED, "the owner's", None, 2)
        assert runner.statistics().late_answers == 2
        assert runner.bus.statistics().parked == 1
        await runner.bus.send(BusJobCancelMessage(source="boss", target="far", job_id=group.job_id))


async def test_g12_a_request_that_comes_twice_while_it_runs_runs_once() -> None:
    boss, a, *_ = team()
    async with running(boss, a) as runner:
        job_id = await boss.request_job("a", name="act", payload="hang")
        await a.began.wait()
        for _ in range(3):
            await runner.bus.send(
                BusJobRequestMessage(source="boss", target="a", job_id=job_id, job_name="act", payload="hang")
            )
        await anyio.wait_all_tasks_blocked()
        assert a.payloads == ["hang"]
        await group_ends(boss, job_id)


async def test_two_requesters_may_not_share_an_id_at_one_worker() -> None:
    boss, other, a = Boss(), Boss("other"), Member("a")
    async with running(boss, other, a):
        await boss.request_job("a", name="act", payload="hang", job_id="same")
        await a.began.wait()
        with pytest.raises(JobError, match="job id 'same' is in use by 'boss'") as caught:
            await other.job("a", name="act", payload=1, job_id="same")
        assert caught.value.status is JobStatus.FAILED
        assert list(a.active_jobs) == ["same"]
        await group_ends(boss, "same")


async def test_g39_an_id_in_use_names_no_other_jobs() -> None:
    boss, a, b, _ = team()
    async with running(boss, a, b):
        await boss.request_job("a", name="act", payload="hang", job_id="mine")
        for names, handler in ((("a",), "other"), (("b",), "act"), (("a", "b"), "act")):
            with pytest.raises(JobStateError, match="job id 'mine' is in use"):
                await boss.job_group(*names, name=handler, payload=1, job_id="mine")
        await group_ends(boss, "mine")


# --- contexts ---


async def test_leaving_a_context_by_an_exception_cancels_its_jobs_and_lets_the_exception_go_on() -> None:
    boss, a, b, _ = team()
    async with running(boss, a, b):
        with pytest.raises(KeyError, match="mine"):  # noqa: PT012 - what it raises is the point
            async with boss.job_group("a", "b", name="act", payload="hang"):
                await a.began.wait()
                raise KeyError("mine")
        await anyio.wait_all_tasks_blocked()
        assert len(a.told) == len(b.told) == 1
        assert "KeyError" in (a.told[0].reason or "")
        assert boss.told("error") == []


async def test_two_tasks_may_not_iterate_over_one_context_at_once() -> None:
    boss, a, *_ = team()
    async with running(boss, a):
        context = boss.job("a")
        async with context, anyio.create_task_group() as tasks:

            async def iterate() -> None:
                assert [event.data async for event in context] == ["news"]

            tasks.start_soon(iterate)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(JobStateError, match="two tasks iterate"):
                await anext(context)
            await a.send_job_update(context.job_id, "news")
            await a.send_job_response(context.job_id, "end")
        assert context.response == "end"


async def test_an_iteration_that_was_cancelled_may_be_taken_up_again() -> None:
    boss, a, *_ = team()
    async with running(boss, a):
        async with boss.job("a") as context:
            with anyio.move_on_after(0.01):
                await anext(context)
            await a.send_job_update(context.job_id, "news")
            await a.send_job_response(context.job_id, "end")
            assert [event.data async for event in context] == ["news"]
        assert context.response == "end"


async def test_a_request_that_cannot_be_parked_any_more_leaves_nothing_behind() -> None:
    boss = Boss()
    async with running(boss) as runner:
        runner.bus.park = refuse  # type: ignore[method-assign]
        with pytest.raises(MailboxFullError):
            await boss.job("nobody", name="act", timeout=50)
        with pytest.raises(MailboxFullError):
            await boss.request_job_group("nobody", "no-one")


def refuse(request: BusJobRequestMessage) -> None:
    raise MailboxFullError(request.target or "", 1)


async def test_a_job_may_be_made_uncancellable_for_those_outside() -> None:
    boss, a, *_ = team()
    async with running(boss, a):
        firm = await boss.request_job("a", params=JobParams(name="act", payload="hang", cancellable=False))
        soft = await boss.request_job("a", params=JobParams(name="act", payload="hang"))
        assert not await boss.request_cancel_job_group(firm)
        assert await boss.request_cancel_job_group(soft, reason="asked to")
        assert not await boss.request_cancel_job_group(soft)
        assert list(boss.job_groups) == [firm]
        await group_ends(boss, firm)


async def test_both_spellings_of_the_parameters_mean_the_same() -> None:
    boss, *members = team()
    async with running(boss, *members):
        params = JobGroupParams(name="act", payload=1, timeout=50.0, label="x", cancel_on_error=False)
        one = await boss.job_group("a", "b", params=params)
        two = await boss.job_group("a", "b", name="act", payload=1, timeout=50.0, label="x", cancel_on_error=False)
        assert one.responses == two.responses
        three = await boss.job_group("a", params=JobParams(name="act", payload=1))  # works too
        assert three.responses == {"a": one.responses["a"]}
        group = await boss.create_job_group_and_request_job(["c"], params=params)
        assert (group.label, group.name, group.cancel_on_error, group.cancellable) == ("x", "act", False, True)
        await group.wait()


async def group_ends(boss: BaseWorker, job_id: str) -> None:
    await boss.cancel_job_group(job_id)
    await anyio.wait_all_tasks_blocked()
