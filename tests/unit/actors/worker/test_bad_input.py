"""What a user gets wrong is refused where it is done, with a text that says what and names who."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, tzinfo
from typing import Any

import anyio
import msgspec
import pytest

from actors import (
    BaseWorker,
    Client,
    HandlerError,
    Job,
    JobError,
    JobGroupParams,
    JobParams,
    JobStateError,
    JobStatus,
    RunnerStateError,
    WorkerActivationArgs,
    WorkerRunner,
    function,
    job,
    subscribe,
    worker_ready,
)
from bus import (
    AsyncQueueBus,
    BusJobRequestMessage,
    BusNotStartedError,
    BusSubscriber,
    BusTopicMessage,
    DuplicateNameError,
    EncodeError,
    InvalidNameError,
    WorkerReadyData,
)
from tests.support.running import running

pytestmark = pytest.mark.anyio


class Plain(BaseWorker):
    pass


class Open(BaseWorker):
    """Leaves its jobs open."""

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        pass


class Server(BaseWorker):
    @job
    async def research(self, payload: Any) -> Any:
        return payload

    @job
    async def summarise(self) -> None: ...

    @job
    async def review(self) -> None: ...


# --- names ---

BAD_NAMES = ["", "a\tb", "a\u2028b", "x" * 129, "a\n", "\ud800", "a\x00", 5, b"a", ["a"]]
GOOD_NAMES = ["a", "A.b-c_9", "x" * 64, "0", "-", "."]
RULE = "is not a valid name: use 1 to 128 printable"


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
async def test_a_name_against_the_grammar_is_refused_with_the_rule(name: Any) -> None:
    def refused() -> Any:
        return pytest.raises(InvalidNameError, match=RULE)

    with refused():
        Plain(name)
    with refused():
        WorkerRunner(name)
    with refused():
        WorkerRunner(session=name)
    with refused():
        Client("memory://", name=name)
    with refused():
        worker_ready(name=name)
    with refused():
        subscribe(name)
    if name:
        with refused():
            job(name=name)(method_of_a_worker)
        with refused():
            function(name=name)(lambda: None)
    boss = Plain("boss")
    async with running(boss):
        with refused():
            await boss.watch_workers(name)
        with refused():
            await boss.publish(name)
        with refused():
            await boss.activate_worker(name)
        with refused():
            await boss.deactivate_worker(name)
        if isinstance(name, str):
            with refused():
                await boss.job("boss", name=name)
            with refused():
                await boss.job(name)
            with refused():
                await boss.request_job_group("boss", name)


@pytest.mark.parametrize("name", GOOD_NAMES)
async def test_a_name_within_the_grammar_is_taken_everywhere(name: str) -> None:
    async with running(Server(name), runner_name := Plain("boss")):
        with pytest.raises(JobError, match="no handler"):
            await runner_name.job(name, name=name)


async def method_of_a_worker(self: Any) -> None: ...


async def test_a_worker_without_a_name_is_given_one() -> None:
    one, two = Server(), Server()
    boss = Plain()
    async with running(one, two, boss):
        assert len({one.name, two.name, boss.name}) == 3
        assert await boss.job(two.name, name="research", payload=1) == 1


# --- duplicates ---


async def test_two_workers_of_one_name_are_refused_and_both_are_named() -> None:
    runner = WorkerRunner("r", handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(Server("same"))
    with pytest.raises(
        DuplicateNameError,
        match="worker name 'same' is already taken by <Server same attached> of runner 'r': "
        "choose another name for <Plain same new>",
    ):
        await runner.add_workers(Plain("other"), Plain("same"))
    assert isinstance(runner.get_worker("same"), Server)
    assert runner.get_worker("other") is not None
    async with runner:
        with pytest.raises(DuplicateNameError, match="<Server same ready>"):
            await runner.add_workers(Plain("same"))
        with pytest.raises(DuplicateNameError):
            await runner.get_worker("other").add_workers(Plain("same"))  # type: ignore[union-attr]
        assert await runner.get_worker("other").job("same", name="research", payload=1) == 1  # type: ignore[union-attr]


async def test_a_worker_is_added_once() -> None:
    async with running(worker := Server("w")) as runner:
        with pytest.raises(RunnerStateError, match=r"worker 'w' was added to runner '.*' before"):
            await runner.add_workers(worker)
    with pytest.raises(RunnerStateError, match="worker 'w' is stopped: add a new one"):
        await WorkerRunner().add_workers(worker)


@pytest.mark.parametrize("taken_by", ["runner", "worker of another runner", "subscriber"])
async def test_a_name_that_is_taken_on_the_bus_is_refused_when_the_runner_starts(taken_by: str) -> None:
    class Listener(BusSubscriber):
        name = "same"

    async with AsyncQueueBus() as bus, running(bus=bus) as first:
        if taken_by == "worker of another runner":
            await first.add_workers(Plain("same"))
        elif taken_by == "subscriber":
            await bus.subscribe(Listener())
        second = WorkerRunner(
            "same" if taken_by == "runner" else "second", bus, handle_sigint=False, handle_sigterm=False
        )
        await second.add_workers(Plain("same"))
        with pytest.raises(DuplicateNameError, match="'same' is already taken"):
            async with second:
                pytest.fail("a runner that cannot start was entered")
        assert first.running


async def test_two_handlers_of_one_job_name_are_refused_and_both_are_named() -> None:
    message = "Twice: job 'same' is served by two methods, 'one' and 'two'"
    with pytest.raises(HandlerError, match=message):

        class Twice(BaseWorker):
            @job(name="same")
            async def one(self) -> None: ...

            @job(name="same")
            async def two(self) -> None: ...

    class Base(BaseWorker):
        @job
        async def inherited(self) -> None: ...

    with pytest.raises(HandlerError, match=r"Derived: job 'inherited' is served by two methods, '(inherited|own)'"):

        class Derived(Base):
            @job(name="inherited")
            async def own(self) -> None: ...

    with pytest.raises(HandlerError, match="worker 'x' is served by two methods"):

        class TwiceReady(BaseWorker):
            @worker_ready(name="x")
            async def one(self, data: WorkerReadyData) -> None: ...

            @worker_ready(name="x")
            async def two(self, data: WorkerReadyData) -> None: ...

    with pytest.raises(HandlerError, match="topic 'x' is served by two methods"):

        class TwiceTopic(BaseWorker):
            @subscribe("x")
            async def one(self, data: Any) -> None: ...

            @subscribe("x")
            async def two(self, data: Any) -> None: ...


# --- whom and what to ask ---


async def test_an_unknown_job_name_is_answered_with_the_nearest_existing_names() -> None:
    async with running(boss := Plain("boss"), Server("server")):
        with pytest.raises(JobError, match=r"no handler for job 'resaerch' on worker 'server'; it serves 'research'$"):
            await boss.job("server", name="resaerch")
        with pytest.raises(JobError, match=r"it serves 'research', 'summarise', 'review'$"):
            await boss.job("server", name="xyz")
        with pytest.raises(JobError, match="no handler for job 'x' on worker 'boss'; it serves none"):
            await boss.job("boss", name="x")


@pytest.mark.parametrize("timeout", [0.02, None])
async def test_an_unknown_worker_is_answered_with_who_is_alive(timeout: float | None) -> None:
    async with running(boss := Plain("boss"), Server("server"), ready_timeout=0.05):
        with pytest.raises(JobError, match="did you mean 'server'") as caught:
            await boss.job("sever", timeout=timeout)
        assert caught.value.status is JobStatus.FAILED
        with pytest.raises(JobError, match="registered are 'boss', 'server'"):
            await boss.job("xyz", timeout=timeout)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (
            lambda boss: boss.job("w", timeout=-1),
            ValueError,
            "timeout must be a number of seconds, 0 or more, or None; got -1",
        ),
        (lambda boss: boss.job("w", timeout="5"), ValueError, "got '5'"),
        (lambda boss: boss.job("w", timeout=float("nan")), ValueError, "got nan"),
        (lambda boss: boss.job("w", timeout=True), ValueError, "got True"),
        (lambda boss: boss.job("w", job_id=""), ValueError, "job_id must have 1 to 128 characters, got 0"),
        (lambda boss: boss.job("w", job_id="x" * 129), ValueError, "got 129"),
        (lambda boss: boss.job("w", job_id=5), TypeError, "job_id must be a text, got 5"),
        (lambda boss: boss.job("w", delivery="twice"), ValueError, "delivery must be 'at_least_once'"),
        (lambda boss: boss.job("w", params=JobParams(), name="x"), TypeError, "give either params= or name=, not both"),
        (lambda boss: boss.job("w", params={"name": "x"}), TypeError, "params= takes a JobGroupParams, not"),
        (lambda boss: boss.job_group(["w"]), TypeError, "worker names are strings; got"),
        (lambda boss: boss.job_group("w", 5), TypeError, "worker names are strings; got 5"),
        (lambda boss: boss.job_group("w", params=JobGroupParams(), timeout=1), TypeError, "not both"),
        (lambda boss: boss.request_job("w", nmae="x"), TypeError, "nmae"),
        (lambda boss: boss.request_job_group("w", payloads={"v": 1}), ValueError, "not in the group: 'v'"),
        (lambda boss: boss.request_job_group("w", payloads=[1]), TypeError, "payloads= is a dict"),
        (lambda boss: boss.create_job_group_and_request_job("abc"), TypeError, "give a list of worker names"),
        (lambda boss: boss.send_bus_message("hello"), TypeError, "a BusMessage is needed"),
    ],
)
async def test_parameters_that_cannot_be_meant_are_refused_before_anything_is_sent(
    ask: Callable[[BaseWorker], Any], error: type[Exception], message: str
) -> None:
    async with running(boss := Plain("boss")) as runner:
        before = runner.bus.statistics().sent
        with pytest.raises(error, match=message):
            await ask(boss)
        assert runner.bus.statistics().sent == before


def test_an_event_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"no event 'on_jobs_update' on .*: there is on_job_update"):
        Plain("w").event_handler("on_jobs_update")(print)
    with pytest.raises(ValueError, match="no event 'on_start'"):
        WorkerRunner().add_event_handler("on_start", print)
    with pytest.raises(TypeError, match="the handler of 'on_job_update' cannot be called: 5"):
        Plain("w").add_event_handler("on_job_update", 5)  # type: ignore[arg-type]


# --- payloads that cannot travel ---


class NoOffset(tzinfo):
    """A zone that knows nothing."""

    utcoffset = dst = tzname = tzinfo.utcoffset  # type: ignore[assignment]


class Holder(msgspec.Struct):
    value: object = object()


BAD_VALUES: list[tuple[Any, str, str]] = [
    ({"items": [0, 1, 2, {"when": NoOffset()}]}, r"\.items\[3\]\.when", "NoOffset"),
    ({"items": [1, {"when": datetime(2026, 1, 1, tzinfo=NoOffset())}]}, r"\.items\[1\]\.when", "NoOffset"),
    (object(), "", "type 'object' is not among the types that travel"),
    ({"a": {"b": print}}, r"\.a\.b", "builtin_function_or_method"),
    ({"a b": object()}, r"\['a b'\]", "object"),
    ({1: [object()]}, r"\[1\]\[0\]", "object"),
    ({object(): 1}, r"\.keys\(\)", "object"),
    (({1, 2}, [Holder()]), r"\[1\]\[0\]\.value", "type 'object'"),
    ({"x": bytearray(b"x")}, r"\.x", "bytes"),
    ({"x": "\ud800"}, r"\.x", "surrogate"),
    ({"x": ValueError("x")}, r"\.x", "ValueError"),
]


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


BAD_VALUES.append((endless(), r"(\[0\])+", "contains itself"))


@pytest.mark.parametrize(("value", "path", "reason"), BAD_VALUES)
async def test_g13_a_value_that_cannot_travel_is_refused_at_its_sender_with_its_path(
    value: Any, path: str, reason: str
) -> None:
    boss, server = Plain("boss"), Open("server")
    sends: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
        ("payload", lambda: boss.job("server", payload=value)),
        ("payload", lambda: boss.request_job("server", payload=value)),
        (r"payloads\['server'\]", lambda: boss.job_group("boss", "server", payloads={"server": value})),
        ("data", lambda: boss.publish("topic", value)),
        (
            r"args\.metadata\.key",
            lambda: boss.activate_worker("server", args=WorkerActivationArgs(metadata={"key": value})),
        ),
        ("data", lambda: boss.send_bus_message(BusTopicMessage(source="boss", target="server", topic="t", data=value))),
    ]
    async with running(boss, server) as runner:
        before = runner.bus.statistics().sent
        for root, send in sends:
            with pytest.raises(EncodeError, match=f"^{root}{path}(\\.\\.\\.)? cannot travel: .*{reason}") as caught:
                await send()
            assert isinstance(caught.value, TypeError)
        assert runner.bus.statistics().sent == before


# --- too early, too late ---


async def test_sending_before_the_start_and_after_the_end_raises() -> None:
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    worker = Plain("w")
    asks: list[Callable[[], Awaitable[Any]]] = [
        lambda: worker.job("w"),
        lambda: worker.job_group("w"),
        lambda: worker.create_job_group_and_request_job(["w"]),
    ]
    begins: list[Callable[[], Awaitable[Any]]] = [
        lambda: worker.request_job("w"),
        lambda: worker.request_job_group("w"),
        lambda: worker.add_workers(Plain("c")),
        lambda: worker.supervise(lambda: Plain("c")),
    ]
    tells: list[Callable[[], Awaitable[Any]]] = [
        lambda: worker.request_job_update("x", "w"),
        lambda: worker.send_bus_message(BusTopicMessage(source="w", topic="t")),
        lambda: worker.send_bus_error_message("x"),
        lambda: worker.publish("t"),
        lambda: worker.activate_worker("w"),
        lambda: worker.deactivate_worker("w"),
        lambda: worker.watch_workers("w"),
        worker.end,
        worker.cancel,
    ]
    for send in (*asks, *begins, *tells, worker.wait):
        with pytest.raises(RunnerStateError, match=r"worker 'w' cannot .*: it is new; add it to a runner and run that"):
            await send()
    await runner.add_workers(worker)
    for send in (*asks, worker.wait):
        with pytest.raises(RunnerStateError, match=r"worker 'w' cannot .*: it is attached; .* run that"):
            await send()
    async with runner:
        pass
    for send in (*asks, *begins):
        with pytest.raises(RunnerStateError, match=r"worker 'w' cannot .*: it is stopped"):
            await send()
    await worker.wait()
    with pytest.raises(BusNotStartedError, match="cannot send BusTopicMessage: the bus is not started"):
        await AsyncQueueBus().send(BusTopicMessage(source="w", topic="t"))
    with pytest.raises(RunnerStateError, match="has been run before: make a new one"):
        await runner.run()


def test_a_worker_without_a_runner_has_no_bus() -> None:
    for name in ("bus", "registry", "worker_runner"):
        with pytest.raises(
            RuntimeError, match=r"worker 'w' has no runner yet: add it with runner.add_workers\(worker\)"
        ):
            getattr(Plain("w"), name)


async def test_a_background_task_of_a_worker_that_does_not_run_is_refused() -> None:
    async def work() -> None: ...

    with pytest.raises(RunnerStateError, match="cannot start a background task"):
        Plain("w").create_task(work())


async def test_a_context_is_entered_before_it_is_used_and_once() -> None:
    boss, server = Plain("boss"), Server("server")
    async with running(boss, server):
        for context in (boss.job("server", name="review"), boss.job_group("server", name="review")):
            for use in (lambda c: c.job_id, lambda c: c.results, aiter):
                with pytest.raises(JobStateError, match="of a job that has not been asked for: enter the context"):
                    use(context)
            with pytest.raises(JobStateError, match="has not been asked for"):
                await anext(context)
            with pytest.raises(JobStateError, match="has not been asked for"):
                await context.cancel()
            with pytest.raises(JobStateError, match="has not been asked for"):
                await context.__aexit__(None, None, None)
            async with context:
                pass
            with pytest.raises(JobStateError, match="this context was used before: call job"):
                await context.__aenter__()
            with pytest.raises(JobStateError, match="this context was used before"):
                await context
        with pytest.raises(JobStateError, match="response of a job that has not been asked for"):
            boss.job("server").response  # noqa: B018 - reading it is what is refused
        with pytest.raises(JobStateError, match="responses of a job that has not been asked for"):
            boss.job_group("server").responses  # noqa: B018 - as above


async def test_a_job_is_answered_once() -> None:
    boss, server = Plain("boss"), Open("server")
    async with running(boss, server):
        group = await boss.create_job_group_and_request_job(["server"], job_id="mine")
        await server.send_job_response("mine", 1)
        answers: list[Callable[[], Awaitable[Any]]] = [
            lambda: server.send_job_response("mine", 2),
            lambda: server.send_job_stream_end("mine"),
            lambda: server.send_job_update("mine"),
            lambda: server.send_job_stream_start("mine"),
            lambda: server.send_job_stream_data("mine"),
        ]
        for answer in answers:
            with pytest.raises(JobStateError, match=r"worker 'server' cannot .* job 'mine': it is not active here"):
                await answer()
        await group.wait()
        assert group.responses == {"server": 1}


async def test_a_job_object_is_answered_once() -> None:
    class Twice(BaseWorker):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.refused: list[str] = []

        @job
        async def twice(self, work: Job[Any]) -> None:
            await work.respond("first")
            for again in (work.respond, work.update, work.stream, work.stream_start, work.stream_end):
                with pytest.raises(JobStateError) as caught:
                    await again("second")
                self.refused.append(str(caught.value))

    boss, twice = Plain("boss"), Twice("t")
    async with running(boss, twice):
        assert await boss.job("t", name="twice", job_id="mine") == "first"
        assert len(twice.refused) == 5
        assert all(text.startswith("job 'mine' of worker 't' has ended") for text in twice.refused)


async def test_a_job_that_is_not_active_cannot_be_answered() -> None:
    boss, server = Plain("boss"), Open("server")
    async with running(boss, server):
        with pytest.raises(JobStateError, match="cannot answer job 'never'"):
            await server.send_job_response("never")
        job_id = await boss.request_job("server")
        with pytest.raises(JobStateError, match=f"worker 'boss' cannot answer job '{job_id}'"):
            await boss.send_job_response(job_id)
        with pytest.raises(ValueError, match="bogus"):
            await server.send_job_response(job_id, status="bogus")  # type: ignore[arg-type]
        await boss.cancel_job_group(job_id)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(JobStateError, match="it was answered or cancelled before"):
            await server.send_job_response(job_id)


async def test_a_runner_that_ends_takes_no_new_jobs_or_workers() -> None:
    boss, server = Plain("boss"), Open("server")
    async with running(boss, server, drain_timeout=50.0) as runner:
        job_id = await boss.request_job("server")
        await runner.end()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RunnerStateError, match="is ending: it takes no new jobs"):
            await boss.job("server")
        with pytest.raises(RunnerStateError, match="is ending: it takes no new"):
            await runner.add_workers(Plain("late"))
        await server.send_job_response(job_id)
