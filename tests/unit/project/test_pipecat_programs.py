"""Programs in the style of Pipecat's worker framework run here after a change of their imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from actors import (
    BaseWorker,
    JobError,
    JobEvent,
    JobGroupError,
    JobGroupEvent,
    JobGroupParams,
    JobGroupResponse,
    JobParams,
    JobStatus,
    WorkerActivationArgs,
    WorkerParams,
    WorkerRunner,
    job,
    worker_ready,
)
from actors.worker.verbs import core_of
from bus import (
    AsyncQueueBus,
    BusActivateWorkerMessage,
    BusDataMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusJobRequestMessage,
    BusMessage,
    BusSystemMessage,
    WorkerErrorData,
    WorkerReadyData,
)
from tests.support.running import running
from tests.unit.project.pipecat import Answering, Parent, Queueing, Streaming, Waiting

pytestmark = pytest.mark.anyio


async def test_a_worker_that_answers_explicitly_is_asked_with_a_params_object() -> None:
    parent = Parent()
    async with running(parent, Answering("worker", response={"answer": 42})):
        async with parent.job("worker", params=JobParams(payload={"question": "?"}, timeout=30)) as context:
            assert isinstance(context.job_id, str)
            events = [event async for event in context]
        assert events == [JobEvent(JobEvent.UPDATE, {"progress": 50})]
        assert context.response == {"answer": 42}
        await anyio.wait_all_tasks_blocked()
        assert parent.heard == [
            ("activated", None),
            ("update", ("worker", {"progress": 50})),
            ("response", ("worker", {"answer": 42}, "completed")),
            ("completed", {"worker": {"answer": 42}}),
        ]


async def test_a_worker_with_a_queue_and_a_task_of_its_own() -> None:
    parent, queueing = Parent(), Queueing("worker")
    async with running(parent, queueing):
        for question in ("why", "how long"):
            async with parent.job("worker", payload={"question": question}) as context:
                pass
            assert context.response == {"length": len(question)}
        with pytest.raises(JobError) as caught:
            async with parent.job("worker", payload={"no": "question"}):
                pass
        assert caught.value.response == {"error": "'question'"}
        assert queueing.active_jobs == {}
    assert queueing.closed == 1


async def test_a_stream_is_read_by_events_and_by_hooks() -> None:
    parent = Parent()
    async with running(parent, Streaming("worker")):
        async with parent.job("worker", params=JobParams(payload={"text": "to be or"})) as context:
            events = [(event.type, event.data) async for event in context]
        assert events == [
            (JobEvent.STREAM_START, {"content_type": "text"}),
            *((JobEvent.STREAM_DATA, {"word": word}) for word in ("to", "be", "or")),
            (JobEvent.STREAM_END, {"done": True}),
        ]
        assert context.response == {"done": True}
        await anyio.wait_all_tasks_blocked()
        assert parent.told("start") == [{"content_type": "text"}]
        assert parent.told("data") == [{"word": word} for word in ("to", "be", "or")]
        assert parent.told("end") == [{"done": True}]
        assert parent.told("completed") == [{"worker": {"done": True}}]


async def test_a_group_is_asked_iterated_and_collected() -> None:
    parent = Parent()
    workers = [Answering(name, response={"by": name}) for name in ("w1", "w2")]
    async with running(parent, *workers):
        async with parent.job_group("w1", "w2", params=JobGroupParams(payload={"q": 1}, timeout=30)) as group:
            seen = [(event.worker_name, event.type, event.data) async for event in group]
        updates = [each for each in seen if each[1] != JobGroupEvent.MEMBER_DONE]
        assert sorted(updates) == [(name, JobGroupEvent.UPDATE, {"progress": 50}) for name in ("w1", "w2")]
        assert dict(group.responses.items()) == {"w1": {"by": "w1"}, "w2": {"by": "w2"}}
        made = await parent.create_job_group_and_request_job(["w1", "w2"], params=JobGroupParams(label="both"))
        assert (made.label, made.cancellable, sorted(made.worker_names)) == ("both", True, ["w1", "w2"])
        await made.wait()
        assert made.is_done
        assert made.terminated == {"w1", "w2"}
        assert parent.job_groups == {}


async def test_requests_without_waiting_are_answered_to_the_hooks() -> None:
    parent = Parent()
    good, bad = Answering("good", response={"ok": True}), Answering("bad", status=JobStatus.ERROR)
    async with running(parent, good, bad):
        job_id = await parent.request_job("good", params=JobParams(payload={}, timeout=30))
        assert list(parent.job_groups) == [job_id]
        await anyio.wait_all_tasks_blocked()
        assert parent.told("completed") == [{"good": {"ok": True}}]
        await parent.request_job_group("good", "bad", payload={}, timeout=30, cancel_on_error=True)
        await anyio.wait_all_tasks_blocked()
        assert parent.told("error") == [("bad", JobStatus.ERROR)]
        assert len(parent.told("completed")) == 1
        await parent.request_job_group("good", "bad", params=JobGroupParams(cancel_on_error=False))
        await anyio.wait_all_tasks_blocked()
        assert parent.told("completed")[1] == {"good": {"ok": True}, "bad": {}}


async def test_a_failed_status_raises_in_both_contexts() -> None:
    parent = Parent()
    async with running(parent, Answering("worker", response={"error": "no"}, status=JobStatus.FAILED)):
        with pytest.raises(JobError):
            async with parent.job("worker"):
                pass
        with pytest.raises(JobGroupError):
            async with parent.job_group("worker"):
                pass


def test_a_job_status_compares_with_plain_strings() -> None:
    plain: dict[str, JobStatus] = {"completed": JobStatus.COMPLETED}
    assert all(status == name for name, status in plain.items())
    assert JobStatus("error") is JobStatus.ERROR
    assert f"{JobStatus.CANCELLED}" == "cancelled"
    assert {"failed": 1}[JobStatus.FAILED] == 1
    assert [str(status) for status in JobStatus] == ["completed", "cancelled", "failed", "error"]


async def test_cancelling_a_job_reaches_the_handler_and_the_hook_and_comes_back_as_cancelled() -> None:
    parent, waiting = Parent(), Waiting("worker")
    async with running(parent, waiting):
        job_id = await parent.request_job("worker")
        await anyio.wait_all_tasks_blocked()
        assert list(waiting.active_jobs) == [job_id]
        await parent.request_job_update(job_id, "worker")
        await anyio.wait_all_tasks_blocked()
        assert parent.told("update") == [("worker", {"still": "working"})]
        await parent.cancel_job_group(job_id, reason="no longer needed")
        await anyio.wait_all_tasks_blocked()
        assert sorted(waiting.cancelled) == ["handler", "no longer needed"]
        assert waiting.active_jobs == {}
        assert [status for _, _, status in parent.told("response")] == ["cancelled"]


async def test_decorated_handlers_may_answer_explicitly_too() -> None:
    class Decorated(BaseWorker):
        order: list[str]

        @job(name="research")
        async def on_research(self, message: BusJobRequestMessage) -> None:
            await self.send_job_response(message.job_id, {"research": message.payload["topic"]})

        @job(name="write", sequential=True)
        async def on_write(self, message):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            self.order.append(f"begin {message.payload}")
            await anyio.wait_all_tasks_blocked()
            self.order.append(f"end {message.payload}")
            await self.send_job_response(message.job_id)

        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            await self.send_job_response(message.job_id, {"other": message.job_name})

    parent, decorated = Parent(), Decorated("worker")
    decorated.order = []
    async with running(parent, decorated):
        assert await parent.job("worker", name="research", payload={"topic": "bees"}) == {"research": "bees"}
        assert await parent.job("worker", params=JobParams(name="unknown")) == {"other": "unknown"}
        assert await parent.job("worker") == {"other": None}
        jobs = [
            await parent.create_job_group_and_request_job(
                ["worker"], params=JobGroupParams(name="write", payload=number)
            )
            for number in (1, 2)
        ]
        for each in jobs:
            await each.wait()
        assert decorated.order == ["begin 1", "end 1", "begin 2", "end 2"]


async def test_every_hook_is_an_event_whose_handlers_get_the_worker_first() -> None:
    parent, waiting = Parent(active=False), Waiting("waiting")
    answering = Answering("answering", response={"a": 1})
    heard: list[tuple[str, Any, Any]] = []
    for worker in (parent, waiting, answering):
        for name in worker.event_names:

            @worker.event_handler(name)
            async def handler(worker: BaseWorker, *arguments: Any, name: str = name) -> None:
                heard.append((name, worker.name, arguments))

    @parent.event_handler("on_job_completed")
    def plain_function(worker: BaseWorker, result: JobGroupResponse) -> None:
        heard.append(("second handler", worker.name, result))

    async with running(parent, waiting, answering) as runner:
        async with parent.job("answering"):
            pass
        async with parent.job_group("answering"):
            pass
        waits = await parent.request_job("waiting")
        await anyio.wait_all_tasks_blocked()
        await parent.request_job_update(waits, "waiting")
        await parent.cancel_job_group(waits)
        await waiting.activate_worker("parent", args=WorkerActivationArgs(metadata={"m": 1}))
        await waiting.deactivate_worker("parent")
        child = Answering("child")
        await parent.add_workers(child)
        await anyio.wait_all_tasks_blocked()
        await child.send_bus_error_message("it hurts")
        await anyio.wait_all_tasks_blocked()
        assert await runner.remove_worker("child")
        await anyio.wait_all_tasks_blocked()
    names = {(name, worker) for name, worker, _ in heard}
    assert {
        ("on_activated", "answering"),
        ("on_activated", "parent"),
        ("on_deactivated", "parent"),
        ("on_worker_ready", "parent"),
        ("on_worker_failed", "parent"),
        ("on_worker_lost", "parent"),
        ("on_job_request", "answering"),
        ("on_job_response", "parent"),
        ("on_job_update", "parent"),
        ("on_job_completed", "parent"),
        ("second handler", "parent"),
        ("on_job_update_requested", "waiting"),
        ("on_job_cancelled", "waiting"),
        ("on_bus_message", "answering"),
        ("on_bus_message", "parent"),
    } <= names
    arguments = {name: given for name, worker, given in heard if worker == "parent"}
    assert arguments["on_deactivated"] == ()
    assert arguments["on_activated"] == ({"metadata": {"m": 1}},)
    assert arguments["on_worker_failed"][0].error == "it hurts"


# --- messages of one's own ---


@dataclass
class Greeting(BusDataMessage):
    text: str = ""
    tags: list[str] = field(default_factory=list)


@dataclass
class Alarm(BusSystemMessage):
    level: int = 0


@dataclass
class Needed(BusDataMessage):
    value: int


class Listening(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.messages: list[BusMessage] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        await super().on_bus_message(message)
        if isinstance(message, Greeting | Alarm | Needed):
            self.messages.append(message)


async def test_messages_defined_as_dataclasses_travel_to_one_or_to_all() -> None:
    parent, one, two = Parent(), Listening("one"), Listening("two")
    async with running(parent, one, two):
        greeting = Greeting(source=parent.name, target="one", text="hello", tags=["a"])
        assert (greeting.text, greeting.source, greeting.target) == ("hello", "parent", "one")
        assert greeting == Greeting(source="parent", target="one", text="hello", tags=["a"])
        await parent.send_bus_message(greeting)
        await parent.send_bus_message(Greeting(source=parent.name, text="everybody"))
        await parent.send_bus_message(Alarm(source=parent.name, target="two", level=3))
        await parent.send_bus_message(Needed(source=parent.name, target="two", value=5))
        await anyio.wait_all_tasks_blocked()
        assert [message.text for message in one.messages if isinstance(message, Greeting)] == ["hello", "everybody"]
        assert {type(message).__name__ for message in two.messages} == {"Greeting", "Alarm", "Needed"}
    with pytest.raises(TypeError):
        Needed(source="parent")  # type: ignore[call-arg]


# --- hand-over ---


@dataclass
class HandOver(WorkerActivationArgs):
    messages: list[str] | None = None
    greeting: str = "hi"


def test_activation_arguments_are_made_of_and_become_dicts() -> None:
    args = HandOver(messages=["hello"], metadata={"k": 1})
    assert args.to_dict() == {"metadata": {"k": 1}, "messages": ["hello"], "greeting": "hi"}
    again = HandOver.from_dict({**args.to_dict(), "unknown": 1})
    assert (again.messages, again.greeting, again.metadata) == (["hello"], "hi", {"k": 1})
    assert again == args
    assert WorkerActivationArgs().to_dict() == {}


async def test_a_worker_hands_over_to_another() -> None:
    first, second = Parent("first"), Parent("second", active=False)
    async with running(first, second):
        await anyio.wait_all_tasks_blocked()
        assert (first.active, second.active, second.activation_args) == (True, False, None)
        await first.activate_worker("second", args=HandOver(messages=["hello"]), deactivate_self=True)
        assert not first.active
        await anyio.wait_all_tasks_blocked()
        assert (first.active, second.active) == (False, True)
        assert second.activation_args == {"messages": ["hello"], "greeting": "hi"}
        assert second.told("activated") == [{"messages": ["hello"], "greeting": "hi"}]
        assert first.told("deactivated") == [None]
        await first.send_bus_message(BusDeactivateWorkerMessage(source="first", target="second"))
        await first.send_bus_message(BusActivateWorkerMessage(source="first", target="first", args={"back": True}))
        await anyio.wait_all_tasks_blocked()
        assert [first.active, second.active, second.activation_args] == [True, False, None]
        assert first.told("activated") == [None, {"back": True}]


# --- life ---


async def test_a_program_runs_until_a_worker_ends_the_session() -> None:
    class Main(Parent):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await super().on_activated(args)
            async with self.job("worker", payload={}) as context:
                pass
            self.answer = context.response
            await self.end(reason="done")

    bus = AsyncQueueBus()
    runner = WorkerRunner(bus=bus, handle_sigint=False, handle_sigterm=False)
    main = Main("main")
    await runner.add_workers(Answering("worker", response={"a": 1}), main)
    assert runner.get_worker("main") is main
    assert runner.get_worker("nobody") is None
    with anyio.fail_after(60):
        await runner.run()
    assert main.answer == {"a": 1}
    assert main.worker_runner is runner


async def test_a_message_may_end_the_session_too() -> None:
    parent = Parent()
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(parent)

    @runner.event_handler("on_ready")
    async def ready(runner: WorkerRunner) -> None:
        await parent.send_bus_message(BusEndMessage(source=parent.name, reason="enough"))

    with anyio.fail_after(60):
        await runner.run()
    assert parent.started_at is not None


async def test_an_overridden_run_starts_waits_and_cleans_up() -> None:
    class Running(Parent):
        async def run(self, params: WorkerParams) -> None:
            self.heard.append(("run", isinstance(params, WorkerParams)))
            await self.start()
            try:
                await self.wait()
            finally:
                await self.stop()
                self.heard.append(("stopped", None))

    running_worker, parent = Running("w"), Parent()
    async with running(running_worker, parent, Answering("answering", response={"a": 1})):
        assert await parent.job("answering") == {"a": 1}
        assert running_worker.started_at is not None
    assert running_worker.told("run") == [True]
    assert running_worker.told("stopped") == [None]


async def test_children_belong_to_their_parent_and_are_watched() -> None:
    parent = Parent()
    async with running(parent) as runner:
        children = [Answering("c1", response={}), Answering("c2", response={})]
        await parent.add_workers(*children)
        await parent.add_workers(Answering("unwatched"), watch=False)
        await anyio.wait_all_tasks_blocked()
        assert [child.name for child in parent.children] == ["c1", "c2", "unwatched"]
        assert parent.told("ready") == ["c1", "c2"]
        assert all(child.parent == "parent" for child in children)
        await children[0].send_bus_error_message("broken")
        await anyio.wait_all_tasks_blocked()
        assert parent.told("failed") == [("c1", "broken")]
        assert (await parent.job_group("c1", "c2")).responses == {"c1": {}, "c2": {}}
        assert await runner.remove_worker("parent")
        assert all(core_of(child).state.name == "STOPPED" for child in children)


async def test_a_decorated_method_is_told_when_a_worker_is_ready() -> None:
    class Watching(Parent):
        @worker_ready(name="late")
        async def on_late(self, data: WorkerReadyData) -> None:
            self.heard.append(("decorated", (data.worker_name, data.runner)))
            async with self.job("late") as context:
                pass
            self.heard.append(("answer", context.response))

    watching = Watching("watching")
    async with running(watching) as runner:
        await runner.add_workers(Answering("other"), Answering("late", response={"a": 1}))
        await anyio.wait_all_tasks_blocked()
        assert watching.told("decorated") == [("late", runner.name)]
        assert watching.told("answer") == [{"a": 1}]
        await watching.watch_workers("other", "later")
        await runner.add_workers(Answering("later"))
        await anyio.wait_all_tasks_blocked()
        assert watching.told("ready") == ["late", "other", "later"]


async def test_background_tasks_are_made_cancelled_and_end_with_their_worker() -> None:
    parent, other, third = Parent(), Parent("other"), Parent("breaks")
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(name)

    async def breaks() -> None:
        raise ValueError("in the background")

    errors: list[str] = []
    async with running(parent, other, third, drain_timeout=0.02) as runner:

        @runner.event_handler("on_error")
        def failed(_runner: WorkerRunner, data: WorkerErrorData) -> None:
            errors.append(data.error)

        first = parent.create_task(work("first"), "first")
        parent.create_task(work("second"))
        other.create_task(work("third"))
        broken = third.create_task(breaks(), "broken")
        await anyio.wait_all_tasks_blocked()
        assert broken.done()
        assert [error for error in errors if "ValueError: in the background" in error]
        assert first.get_name() == "parent::first"
        await parent.cancel_task(first)
        assert ended == ["first"]
        assert await runner.remove_worker("other")
        assert ended == ["first", "third"]
    assert ended == ["first", "third", "second"]
