"""The client for scripts: its methods block, and leave nothing behind."""

from __future__ import annotations

import inspect
import os
import re
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from actors import (
    BaseWorker,
    Client,
    Job,
    JobContext,
    JobError,
    JobEvent,
    JobGroupContext,
    JobGroupError,
    JobStateError,
    JobStatus,
    JobTimeoutError,
    RunnerStateError,
    SyncClient,
    WorkerRunner,
    WorkerUnavailableError,
    job,
)
from actors.client.sync import SyncDeadLetters, SyncRun
from actors.jobs import params
from actors.jobs.params import GroupKeywords, JobKeywords, PayloadKeywords, RunKeywords
from actors.requester.blocking import SyncJobContext, SyncJobGroupContext
from actors.runs import InMemoryRunStore, Run, RunEventType, RunFailedError, RunState, RunStore, RunStoreError
from actors.runs.store import RunFilters
from bus import AsyncQueueBus, BusError, DeadLetters, EncodeError, open_bus
from tests.support.processes import run
from tests.support.running import LONGEST_WAIT
from tests.support.workers import Clerk

FILES = Path("/proc/self/fd")


class Desk(Clerk):
    """Does what the tests ask for; its events are those of threads."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.began = threading.Event()
        self.stopped = threading.Event()

    @job
    async def lineage(self, job: Job[Any]) -> Any:
        """The jobs it was asked for inside of."""
        return job.request.lineage

    @job
    async def hang(self) -> None:
        self.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.stopped.set()

    @job
    async def report(self, job: Job[Any]) -> None:
        await job.update("at it")
        await self.hang()


@contextmanager
def hosted(client: SyncClient, name: str, *workers: BaseWorker) -> Iterator[WorkerRunner]:
    """Workers at `memory://` and a name, in the event loop of a client: other threads do not meet there."""
    runner = WorkerRunner(bus=f"memory://{name}", handle_sigint=False, handle_sigterm=False, ready_timeout=0.1)
    portal = client._thread.require_open()
    with portal.wrap_async_context_manager(runner):
        client._thread.call(runner.add_workers, *workers)
        yield runner


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A network of its own for each test."""
    return f"sync-{abs(hash(request.node.nodeid))}"


@contextmanager
def asking(name: str, *workers: BaseWorker, **options: Any) -> Iterator[SyncClient]:
    with Client.sync(f"memory://{name}", **options) as client, hosted(client, name, *workers):
        yield client


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fail if the body leaves a thread or a file behind."""
    threads, files = set(threading.enumerate()), len([*FILES.iterdir()])
    yield
    for thread in set(threading.enumerate()) - threads:
        assert thread.name == "AnyIO worker thread"  # told to end
        thread.join(LONGEST_WAIT)
        assert not thread.is_alive()
    assert len([*FILES.iterdir()]) == files


def interrupted(begun: threading.Event, function: Callable[[], object]) -> None:
    """Call it, and have Ctrl-C come once a job has begun."""

    def interrupt() -> None:
        assert begun.wait(LONGEST_WAIT)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def call() -> None:
        thread.start()
        function()

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        call()
    thread.join()


# --- it works ---


def test_a_script_asks_for_jobs_groups_and_many_at_once(name: str) -> None:
    with nothing_left(), asking(name, Desk("desk"), Desk("other")) as client:
        assert client.request("desk", "hello", name="echo", timeout=LONGEST_WAIT) == "hello"
        assert client.job("desk", name="echo", payload=2).result() == 2
        assert client.job_group("desk", "other", name="echo", payload=3).result().responses == {"desk": 3, "other": 3}
        assert client.gather("desk", (number for number in range(50)), name="echo", max_concurrency=7) == [*range(50)]
        assert [each.worker_name for each in client.workers()] == ["desk", "other"]
        assert client.dead_letters.oldest() == []


def test_the_events_of_a_job_are_a_plain_iterator(name: str) -> None:
    with asking(name, Desk("desk"), Desk("other")) as client:
        with client.job("desk", name="count", payload=300) as job:
            events = list(job)
        assert [event.data for event in events] == [None, *range(300), None]
        assert events[1].type == JobEvent.STREAM_DATA
        assert job.response is None
        assert job.results["desk"].status is JobStatus.COMPLETED
        with client.job_group("desk", "other", name="count", payload=2) as group:
            seen = [(event.worker_name, event.data) for event in group if event.type == JobEvent.STREAM_DATA]
        assert sorted(seen) == [("desk", 0), ("desk", 1), ("other", 0), ("other", 1)]
        assert set(group.responses) == {"desk", "other"}
        assert group.job_id != job.job_id


def test_a_job_is_cancelled_by_who_asked_and_by_leaving_its_context_with_an_error(name: str) -> None:
    desk, other = Desk("desk"), Desk("other")
    with asking(name, desk, other) as client:
        with pytest.raises(JobError, match="enough") as caught, client.job("desk", name="report") as job:  # noqa: PT012
            assert next(job).data == "at it"
            job.cancel("enough")
        assert caught.value.status is JobStatus.CANCELLED
        assert desk.stopped.wait(LONGEST_WAIT)
        with pytest.raises(KeyError), client.job("other", name="report") as job:  # noqa: PT012
            next(job)
            raise KeyError
        assert other.stopped.wait(LONGEST_WAIT)


def test_errors_are_those_of_the_client(name: str) -> None:
    with asking(name, Desk("desk"), Desk("other")) as client:
        with pytest.raises(JobError, match="ValueError: no"):
            client.request("desk", "no", name="refuse")
        with pytest.raises(JobGroupError):
            client.job_group("desk", "other", name="refuse", payload="no").result()
        with pytest.raises(JobTimeoutError):
            client.request("desk", name="hang", timeout=0.05)
        with pytest.raises(EncodeError):
            client.request("desk", object(), name="echo")
        with pytest.raises(TypeError, match="nmae"):
            client.request("desk", nmae="echo")  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="max_concurrency must be 1 or more"):
            client.gather("desk", [1], max_concurrency=0)
        answers = client.gather("desk", [1, object(), 3], name="echo")
        assert (answers[0], type(answers[1]), answers[2]) == (1, EncodeError, 3)
        job = client.job("desk", name="echo")
        with pytest.raises(JobStateError, match=r"with 'with' or '.result\(\)' in a script"):
            next(job)
        assert job.result() is None
        with pytest.raises(JobStateError, match="was used before"):
            job.result()
    with pytest.raises(WorkerUnavailableError), Client.sync("memory://", ready_timeout=0.05) as client:
        client.request("nobody")


def test_payloads_are_taken_in_the_thread_of_who_gathers(name: str) -> None:
    with asking(name, Desk("desk")) as client, sqlite3.connect(":memory:") as database:
        rows = (row[0] for row in database.execute("values (1), (2), (3)"))
        assert client.gather("desk", rows, name="echo") == [1, 2, 3]
        nested = (client.request("desk", number, name="echo") for number in range(3))
        assert client.gather("desk", nested, name="echo") == [0, 1, 2]
    database.close()


def test_a_run_of_a_script_has_its_result_and_events_and_is_found_again(name: str, tmp_path: Path) -> None:
    desk = Desk("desk")
    with nothing_left(), asking(name, desk, run_store=f"sqlite:///{tmp_path / 'runs.db'}") as client:
        run = client.submit("desk", name="count", payload=3, idempotency_key="once")
        types = [event.type for event in run.events()]
        ended = [RunEventType.AGENT_COMPLETED, RunEventType.GROUP_COMPLETED]
        assert types == [RunEventType.AGENT_STARTED, *[RunEventType.STREAM] * 3, *ended]
        assert [event.type for event in run.events(after=3)] == ended
        assert client.submit("desk", name="count", payload=3, idempotency_key="once").run_id == run.run_id
        assert client.run(run.run_id).result(LONGEST_WAIT) is None
        assert [each.run_id for each in client.runs(state=RunState.COMPLETED)] == [run.run_id]
        held = client.submit("desk", name="hang")
        assert desk.began.wait(LONGEST_WAIT)
        with pytest.raises(TimeoutError):
            held.result(0.05)
        held.cancel("enough")
        with pytest.raises(RunFailedError):
            held.result(LONGEST_WAIT)
        assert held.status().state is RunState.CANCELLED
        assert desk.stopped.is_set()


def test_threads_share_a_client(name: str) -> None:
    answers: dict[int, list[Any]] = {}
    with nothing_left(), asking(name, Desk("desk")) as client:

        def ask(number: int) -> None:
            answers[number] = [client.request("desk", (number, step), name="echo") for step in range(20)]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {number: [(number, step) for step in range(20)] for number in range(8)}


# --- where it may be used ---


@pytest.mark.anyio
async def test_inside_an_event_loop_a_sync_client_is_refused() -> None:
    way_out = r"would block the event loop that runs in this thread: use 'async with Client\(...\) as client' here"
    client = Client.sync("memory://")
    with pytest.raises(RunnerStateError, match=way_out), client:
        pass
    opened = await anyio.to_thread.run_sync(client.__enter__)  # in a thread without an event loop it may be used
    try:
        assert await anyio.to_thread.run_sync(opened.workers) == []
        uses: list[Callable[[], object]] = [
            opened.workers,
            opened.runs,
            lambda: opened.dead_letters,
            lambda: opened.request("desk"),
            lambda: opened.job("desk"),
            lambda: opened.job_group("desk"),
            lambda: opened.gather("desk", []),
            lambda: opened.submit("desk"),
            lambda: opened.run("run"),
            lambda: opened.requeue("letter"),
        ]
        for use in uses:
            with pytest.raises(RunnerStateError, match=way_out):
                use()
    finally:
        await anyio.to_thread.run_sync(opened.__exit__, None, None, None)


def test_a_client_is_used_between_its_opening_and_its_end_only(name: str) -> None:
    client = Client.sync(f"memory://{name}")
    for use in (client.workers, lambda: client.request("desk"), lambda: client.job("desk"), lambda: client.submit("a")):
        with pytest.raises(
            RunnerStateError, match=r"is not connected: use it inside 'with Client.sync\(...\) as client'"
        ):
            use()
    with client, hosted(client, name, Desk("desk")):
        job = client.job("desk", name="echo")
        run = client.submit("desk", name="echo", payload=1)
        events = run.events()
        with pytest.raises(RunnerStateError, match="lives once"):
            client.__enter__()
        assert client.request("desk", 1, name="echo") == 1
    for use in (client.workers, client.runs, job.result, job.__enter__, run.status, run.result, lambda: next(events)):
        with pytest.raises(RunnerStateError, match=r"is closed: make a new one and use it inside 'with Client.sync"):
            use()
    client.__exit__(None, None, None)


@pytest.mark.anyio
async def test_what_lives_in_an_event_loop_is_refused() -> None:
    async with WorkerRunner() as runner, AsyncQueueBus() as bus, InMemoryRunStore() as store:
        for to in runner, bus:
            with pytest.raises(TypeError, match=r"lives in an event loop: use 'async with Client\(...\)' in that"):
                Client.sync(to)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="lives in an event loop"):
            Client.sync("memory://", run_store=store)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_threads_do_not_meet_in_memory_and_are_told(name: str) -> None:
    def ask() -> None:
        with Client.sync(f"memory://{name}"):
            pass

    async with WorkerRunner(bus=open_bus(f"memory://{name}")):
        with pytest.raises(BusError, match="let threads meet at Redis or NATS"):
            await anyio.to_thread.run_sync(ask)


def test_a_sync_handler_may_use_one_and_its_jobs_are_not_those_of_the_other_event_loop(name: str) -> None:
    class Asker(BaseWorker):
        @job
        def ask(self) -> Any:
            with asking(f"{name}-inner", Desk("desk")) as client:
                return client.request("desk", name="lineage")

    with nothing_left(), asking(name, Asker("asker")) as client:
        assert client.request("asker", name="ask") == ()


FORK = """
import os, sys
from actors import Client, RunnerStateError
with Client.sync("memory://") as client:
    child = os.fork()
    if not child:
        try:
            client.workers()
        except RunnerStateError as error:
            print(error, flush=True)
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), client.workers())
"""


def test_a_fork_of_the_process_is_told_to_make_its_own_and_ends() -> None:
    done = run("-c", FORK)
    assert done.stdout == "this client was made before the process forked: make a new one in each process\n3 []\n"
    assert done.returncode == 0


# --- the end ---


def test_an_error_of_the_body_comes_out_and_leaves_nothing(name: str) -> None:
    with nothing_left(), pytest.raises(KeyError), asking(name, Desk("desk")) as client:  # noqa: PT012
        assert client.request("desk", 1, name="echo") == 1
        client.submit("desk", name="echo")
        raise KeyError


def test_who_waits_in_another_thread_is_told_when_the_client_is_closed(tmp_path: Path) -> None:
    told: dict[str, BaseException] = {}

    def waits(what: str, function: Callable[[], object]) -> threading.Thread:
        def wait() -> None:
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - looked at below
                told[what] = error

        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    with nothing_left():
        with Client.sync("memory://", own_runs=False, run_store=f"sqlite:///{tmp_path / 'runs.db'}") as client:
            threads = [
                waits("job", lambda: client.request("nobody")),
                waits("run", client.submit("nobody").result),
                waits("call", lambda: client._thread.call(anyio.sleep_forever)),
            ]
            while len(client._thread._calls) < len(threads):
                os.sched_yield()
            client._thread.call(anyio.wait_all_tasks_blocked)
        for thread in threads:
            thread.join(LONGEST_WAIT)
    assert isinstance(told["job"], JobError)
    assert told["job"].status is JobStatus.CANCELLED
    assert isinstance(told["run"], RunStoreError | RunnerStateError)
    assert isinstance(told["call"], RunnerStateError)
    assert str(told["call"]) == "the client was closed while this waited"


def test_ctrl_c_cancels_what_waits_and_the_client_goes_on(name: str) -> None:
    desk, other = Desk("desk"), Desk("other")

    def follow() -> None:
        with client.job("other", name="report") as job:
            for event in job:
                assert event.data == "at it"

    with nothing_left(), asking(name, desk, other) as client:
        interrupted(desk.began, lambda: client.request("desk", name="hang"))
        assert desk.stopped.wait(LONGEST_WAIT)
        interrupted(other.began, follow)
        assert other.stopped.wait(LONGEST_WAIT)
        assert client.request("desk", 1, name="echo") == 1


def test_ctrl_c_between_asking_for_a_job_and_entering_its_block_cancels_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk("desk")
    with nothing_left(), asking(name, desk) as client:
        call = client._thread.call

        def interrupted_after(function: Any, *arguments: Any, **keywords: Any) -> Any:
            answer = call(function, *arguments, **keywords)
            if function.__name__ == "__aenter__":
                assert desk.began.wait(LONGEST_WAIT)
                raise KeyboardInterrupt
            return answer

        monkeypatch.setattr(client._thread, "call", interrupted_after)
        with pytest.raises(KeyboardInterrupt), client.job("desk", name="hang"):
            pass
        assert desk.stopped.wait(LONGEST_WAIT)


def test_ctrl_c_while_many_are_gathered_and_while_a_run_is_awaited(name: str) -> None:
    desk, other = Desk("desk"), Desk("other")
    with nothing_left(), asking(name, desk, other) as client:
        interrupted(desk.began, lambda: client.gather("desk", range(9), name="hang", max_concurrency=3))
        assert desk.stopped.wait(LONGEST_WAIT)
        run = client.submit("other", name="hang")
        interrupted(other.began, run.result)
        assert run.status().state is RunState.RUNNING
        run.cancel()


def test_whatever_a_signal_raises_at_any_moment_cancels_what_was_called(name: str) -> None:
    """The interruption may come before the caller knows that its call has begun."""
    stopped: list[int] = []

    async def hang() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append(1)

    with nothing_left(), asking(name, Desk("desk")) as client:
        for number in range(1, 51):
            begun = threading.Event()
            interrupted(begun, lambda: client._thread.call(hang))
            client._thread.call(anyio.wait_all_tasks_blocked)
            assert len(stopped) == number


def test_a_signal_handler_may_use_the_client_that_it_interrupts(name: str) -> None:
    answers: list[Any] = []

    def handler(_number: int, _frame: object) -> None:
        answers.append(client.request("desk", len(answers), name="echo"))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with asking(name, Desk("desk")) as client:
            with client._thread._lock:
                signal.raise_signal(signal.SIGUSR1)
            client.request("desk", name="echo")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert answers == [0]


# --- the twins ---

TWINS: list[tuple[type, type]] = [
    (Client, SyncClient),
    (JobContext, SyncJobContext),
    (JobGroupContext, SyncJobGroupContext),
    (Run, SyncRun),
    (DeadLetters, SyncDeadLetters),
]
NOTHING: set[str] = set()
ONLY: dict[type, set[str]] = {SyncJobContext: {"result"}, SyncJobGroupContext: {"result"}}  # in place of `await`


KEYWORDS: dict[str, Any] = {name: kind for name, kind in vars(params).items() if name.endswith("Keywords")}


def signature(function: Any, twin: bool) -> tuple[set[str], str]:
    """The names that it takes, `**keywords` by each of theirs, and what comes of it, in the words of the sync side."""
    told = inspect.signature(function)
    names: set[str] = set()
    for parameter in told.parameters.values():
        taken = re.fullmatch(r"'?Unpack\[(\w+)\]'?", str(parameter.annotation))
        names |= set(KEYWORDS[taken[1]].__annotations__) if taken and taken[1] in KEYWORDS else {parameter.name}
    returned = str(told.return_annotation)
    if not twin:
        for each in TWINS:
            returned = re.sub(rf"\b{each[0].__name__}\b", each[1].__name__, returned)
        returned = returned.replace("AsyncGenerator[Any, None]", "Iterator[Any]").replace("AsyncIterator", "Iterator")
    return names, returned


def public(kind: type) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("kind", "twin"), TWINS, ids=lambda kind: kind.__name__)
def test_a_twin_has_the_methods_and_signatures_of_the_other(kind: type, twin: type) -> None:
    ours, theirs = public(twin), public(kind)
    assert set(ours) - ONLY.get(twin, NOTHING) == set(theirs) - {"sync"}
    assert theirs
    for name, member in theirs.items():
        if name == "sync":
            continue
        if isinstance(member, property):
            assert isinstance(ours[name], property)
            member, ours[name] = member.fget, ours[name].fget  # noqa: PLW2901 - what is behind it
        assert signature(ours[name], twin=True) == signature(member, twin=False), name
        assert not inspect.iscoroutinefunction(ours[name])


def test_all_that_makes_a_client_makes_a_sync_one() -> None:
    def shape(function: Any) -> list[Any]:
        return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]

    assert shape(Client) == shape(SyncClient) == shape(Client.sync)


@pytest.mark.parametrize(
    ("keywords", "function", "others"),
    [
        (JobKeywords, BaseWorker.job, {"payload", "result"}),
        (PayloadKeywords, BaseWorker.job, {"result"}),
        (GroupKeywords, BaseWorker.job_group, {"result"}),
        (RunKeywords, BaseWorker.job_group, {"params", "job_id", "cancellable", "result"}),
        (RunFilters, RunStore.find, set()),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_keywords_that_are_typed_are_those_that_are_taken(keywords: Any, function: Any, others: set[str]) -> None:
    taken = {
        each.name: str(each.annotation).replace("Delivery", "Literal['at_least_once', 'at_most_once']")
        for each in inspect.signature(function).parameters.values()
        if each.kind is each.KEYWORD_ONLY and each.name not in others
    }
    typed = {name: value.__forward_arg__ for name, value in keywords.__annotations__.items()}
    assert typed == taken
