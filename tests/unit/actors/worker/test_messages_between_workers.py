"""What workers say to each other beside jobs: messages, broadcasts, errors, activation."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import BaseWorker, RunnerStateError, WorkerActivationArgs, job
from actors.worker.verbs import core_of
from bus import (
    AsyncQueueBus,
    BusAddWorkerMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
    EncodeError,
    MailboxFullError,
    WorkerErrorData,
)
from tests.support.messages import Alarm, Note
from tests.support.running import running
from tests.support.workers import Asker, Parent, Performer

pytestmark = pytest.mark.anyio


class Parcel(BusSystemMessage, BusLocalMessage, kw_only=True):
    thing: Any


class Listener(BaseWorker):
    """Keeps every message it hears; stops at the one that says so until it is let go."""

    def __init__(self, name: str, *, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.heard: list[Any] = []
        self.gate = anyio.Event()

    async def on_bus_message(self, message: BusMessage) -> None:
        text = getattr(message, "text", None)
        if text is not None:
            self.heard.append(text)
        if text == "stop":
            await self.gate.wait()
        if text == "raise":
            raise ValueError("no")


def note(text: str, target: str | None = "listener", **fields: Any) -> Note:
    return Note(source="talker", target=target, text=text, **fields)


# --- messages of one's own ---


async def test_messages_of_users_arrive_in_the_order_sent_system_ones_ahead() -> None:
    talker, listener = BaseWorker("talker"), Listener("listener")
    async with running(talker, listener):
        await talker.send_bus_message(note("stop"))
        await anyio.wait_all_tasks_blocked()
        for text in ("one", "two"):
            await talker.send_bus_message(note(text))
        await talker.send_bus_message(Alarm(source="talker", target="listener", text="fire"))
        await anyio.wait_all_tasks_blocked()
        assert listener.heard == ["stop", "fire"]
        listener.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert listener.heard == ["stop", "fire", "one", "two"]


async def test_a_hook_that_raises_is_reported_and_the_next_message_is_heard() -> None:
    talker, listener, errors = BaseWorker("talker"), Listener("listener"), []
    async with running(talker, listener) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        await talker.send_bus_message(note("raise"))
        await talker.send_bus_message(note("after"))
        await anyio.wait_all_tasks_blocked()
        assert listener.heard == ["raise", "after"]
        assert errors == [WorkerErrorData("listener", "hook on_bus_message failed: ValueError: no")]


async def test_a_broadcast_is_heard_by_every_worker_that_listens_on_every_runner_but_not_by_its_sender() -> None:
    talker, near, far, deaf = Listener("talker"), Listener("near"), Listener("far"), BaseWorker("deaf")
    async with AsyncQueueBus() as bus, running(talker, near, deaf, bus=bus), running(far, bus=bus):
        await talker.send_bus_message(note("all", None))
        await anyio.wait_all_tasks_blocked()
        assert (talker.heard, near.heard, far.heard) == ([], ["all"], ["all"])


async def test_an_event_handler_hears_messages_and_broadcasts_even_if_it_came_after_the_worker() -> None:
    talker, listener, heard = BaseWorker("talker"), BaseWorker("listener"), []
    async with running(talker, listener):

        @listener.event_handler("on_bus_message")
        async def hear(worker: BaseWorker, message: BusMessage) -> None:
            assert worker is listener
            heard.append(getattr(message, "text", None))

        await talker.send_bus_message(note("mine"))
        await talker.send_bus_message(note("all", None))
        await anyio.wait_all_tasks_blocked()
        assert heard == ["mine", "all"]


async def test_event_handlers_are_called_after_the_hook_in_order_and_each_despite_the_others() -> None:
    talker, listener = BaseWorker("talker"), Listener("listener")

    @listener.event_handler("on_bus_message")
    def first(worker: Listener, _message: BusMessage) -> None:
        worker.heard.append("first handler")
        raise ValueError("no")

    @listener.event_handler("on_bus_message")
    async def second(worker: Listener, _message: BusMessage) -> None:
        worker.heard.append("second handler")

    async with running(talker, listener):
        await talker.send_bus_message(note("hook"))
        await anyio.wait_all_tasks_blocked()
        assert listener.heard == ["hook", "first handler", "second handler"]


async def test_an_event_that_does_not_exist_is_refused_with_the_nearest_that_does() -> None:
    with pytest.raises(
        ValueError, match="no event 'on_job_updated' on <Listener listener new>: there is on_job_update"
    ):
        Listener("listener").add_event_handler("on_job_updated", print)


async def test_what_cannot_travel_is_refused_at_the_sender_with_its_path_and_local_messages_carry_anything() -> None:
    talker, thing, got = BaseWorker("talker"), object(), []

    class Keeper(BaseWorker):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Parcel):
                got.append(message.thing)

    async with running(talker, Keeper("listener")):
        with pytest.raises(EncodeError, match=r"items\[0\]"):
            await talker.send_bus_message(note("bad", items=[thing]))
        await talker.send_bus_message(Parcel(source="talker", target="listener", thing=thing))
        await anyio.wait_all_tasks_blocked()
        assert got == [thing]


async def test_a_worker_without_room_lets_senders_wait_or_refuses_them_as_it_declares() -> None:
    class Narrow(Listener):
        mailbox_size = 2

    class Strict(Narrow):
        when_full = "refuse"

    talker, narrow, strict, sent = BaseWorker("talker"), Narrow("narrow"), Strict("strict"), []

    async def send(target: str, text: str) -> None:
        await talker.send_bus_message(note(text, target))
        sent.append(text)

    async with running(talker, narrow, strict), anyio.create_task_group() as tasks:
        for target in ("narrow", "strict"):
            await send(target, "stop")
            await anyio.wait_all_tasks_blocked()
            for text in ("one", "two"):
                await send(target, text)
        with pytest.raises(MailboxFullError, match=r"mailbox of worker 'strict' is full \(2 waiting\)"):
            await send("strict", "three")
        sent.clear()
        tasks.start_soon(send, "narrow", "three")
        await anyio.wait_all_tasks_blocked()
        assert sent == []
        await talker.send_bus_message(Alarm(source="talker", target="narrow", text="fits"))
        await anyio.wait_all_tasks_blocked()
        narrow.gate.set()
        strict.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert sent == ["three"]
        assert narrow.heard == ["stop", "fits", "one", "two", "three"]


async def test_messages_that_a_stopped_worker_did_not_handle_are_counted() -> None:
    talker, listener = BaseWorker("talker"), Listener("listener")
    async with running(talker, listener) as runner:
        await talker.send_bus_message(note("stop"))
        await anyio.wait_all_tasks_blocked()
        for text in ("one", "two"):
            await talker.send_bus_message(note(text))
        before = runner.bus.statistics().undeliverable
        await listener.stop()
        assert runner.bus.statistics().undeliverable - before == 2
        await talker.send_bus_message(note("late"))
        assert runner.bus.statistics().undeliverable - before == 3
        assert listener.heard == ["stop"]


# --- workers by message, errors ---


async def test_a_message_adds_a_worker_to_the_senders_own_runner() -> None:
    talker = BaseWorker("talker")
    async with (
        AsyncQueueBus() as bus,
        running(BaseWorker("other"), bus=bus) as second,
        running(talker, bus=bus) as first,
    ):
        for name, target in (("a", None), ("b", first.name)):
            await talker.send_bus_message(BusAddWorkerMessage(source="talker", target=target, worker=Performer(name)))
            await anyio.wait_all_tasks_blocked()
            assert first.get_worker(name) is not None
            assert second.get_worker(name) is None
            assert await talker.job(name, name="echo", payload=1) == 1


async def test_an_error_of_a_child_reaches_its_parent_and_one_of_a_root_the_runner() -> None:
    parent, child, errors = Parent(), BaseWorker("child"), []
    async with running(parent) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        await parent.add_workers(child)
        await child.send_bus_error_message("the child is worried")
        await anyio.wait_all_tasks_blocked()
        assert parent.failed == [WorkerErrorData("child", "the child is worried")]
        assert errors == []
        await parent.send_bus_error_message("the parent too")
        await anyio.wait_all_tasks_blocked()
        assert errors == [WorkerErrorData("parent", "the parent too")]
        assert core_of(child).state.name == core_of(parent).state.name == "READY"


# --- activation ---


class Turn(WorkerActivationArgs):
    topic: str | None = None


class Taking(Listener):
    """Notes when it is its turn."""

    def __init__(self, name: str, turns: list[str], *, active: bool = False) -> None:
        super().__init__(name, active=active)
        self.turns = turns

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        self.turns.append(f"{self.name} active with {args}")

    async def on_deactivated(self) -> None:
        self.turns.append(f"{self.name} inactive")

    @job(name="echo")
    async def echo(self, payload: Any) -> Any:
        return payload


async def test_one_worker_hands_over_to_another_and_they_are_never_active_together() -> None:
    turns: list[str] = []
    first, second = Taking("first", turns, active=True), Taking("second", turns)
    async with running(first, second):
        await anyio.wait_all_tasks_blocked()
        assert turns == ["first active with None"]
        await first.activate_worker("second", args=Turn(topic="cats", metadata={"n": 1}), deactivate_self=True)
        assert not first.active
        await anyio.wait_all_tasks_blocked()
        assert sorted(turns[1:]) == ["first inactive", "second active with {'metadata': {'n': 1}, 'topic': 'cats'}"]
        assert (first.active, second.active) == (False, True)
        assert second.activation_args == {"metadata": {"n": 1}, "topic": "cats"}
        assert Turn.from_dict(second.activation_args) == Turn(topic="cats", metadata={"n": 1})
        await second.activate_worker("first", deactivate_self=True)
        await anyio.wait_all_tasks_blocked()
        assert (first.active, second.active) == (True, False)
        assert second.activation_args is None


async def test_a_worker_that_hands_over_inside_a_hook_is_given_no_job_from_then_on() -> None:
    done = anyio.Event()

    class Handing(Taking):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await self.activate_worker("second", deactivate_self=True)
                done.set()
                await self.gate.wait()

    first, second, asker = Handing("first", [], active=True), Taking("second", []), Asker("talker")
    async with running(first, second, asker), anyio.create_task_group() as tasks:
        await asker.job("first", name="echo")
        await asker.send_bus_message(note("hand over", "first"))
        await done.wait()
        for name in ("first", "second"):
            tasks.start_soon(asker.ask, name, "echo", name, name)
        await anyio.wait_all_tasks_blocked()
        assert asker.outcomes == {"second": "second"}
        first.gate.set()
        await asker.activate_worker("first")
        await anyio.wait_all_tasks_blocked()
        assert asker.outcomes == {"second": "second", "first": "first"}


async def test_jobs_and_messages_for_an_inactive_worker_wait_until_it_is_active() -> None:
    turns: list[str] = []
    worker, asker = Taking("worker", turns), Asker("talker")
    async with running(worker, asker), anyio.create_task_group() as tasks:
        tasks.start_soon(asker.ask, "worker", "echo", "j", 7)
        for text in ("one", "two"):
            await asker.send_bus_message(note(text, "worker"))
        await asker.send_bus_message(Alarm(source="talker", target="worker", text="fire"))
        await anyio.wait_all_tasks_blocked()
        assert asker.outcomes == {}
        assert worker.heard == ["fire"]
        await asker.activate_worker("worker")
        await anyio.wait_all_tasks_blocked()
        assert asker.outcomes == {"j": 7}
        assert worker.heard == ["fire", "one", "two"]


async def test_what_waits_for_an_inactive_worker_goes_on_to_its_successor_when_it_is_removed() -> None:
    worker, asker = Taking("worker", []), Asker()
    async with running(worker, asker) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(asker.ask, "worker", "echo", "j", 7)
        await anyio.wait_all_tasks_blocked()
        await runner.remove_worker("worker")
        await runner.add_workers(Performer("worker"))
        await anyio.wait_all_tasks_blocked()
        assert asker.outcomes == {"j": 7}


async def test_a_stopped_worker_says_that_it_is_stopped() -> None:
    worker = BaseWorker("worker")
    async with running(worker, BaseWorker("other")):
        await worker.stop()
        await worker.stop()
        await worker.wait()
        for adds in (worker.add_workers(BaseWorker("child")), worker.supervise(lambda: BaseWorker("child"))):
            with pytest.raises(RunnerStateError, match=r"'worker' cannot .*: it is stopped"):
                await adds
        with pytest.raises(RunnerStateError, match="it is stopped"):
            await worker.job("other")
