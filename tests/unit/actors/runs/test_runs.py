"""Runs outlive who submits them and who does them, and end once."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import anyio.lowlevel
import msgspec
import pytest

from actors import Client, Job, JobRecord, WorkerRunner, job, tracing
from actors.runs import (
    InMemoryRunStore,
    Lease,
    MemoryLedger,
    Run,
    RunConflictError,
    RunEventType,
    RunFailedError,
    RunNotFoundError,
    RunOwner,
    RunRequest,
    RunState,
    RunValueError,
    Unreadable,
    owner,
)
from actors.runs.stores.ledger import too_large
from bus.wire.known import REGISTERED, own_type
from tests.support import workers

pytestmark = pytest.mark.anyio


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Desk(workers.Desk):
    @job
    async def shout(self, job: Job[str]) -> str:
        await job.update({"half": job.payload[: len(job.payload) // 2]})
        return job.payload.upper()

    @job
    async def tell(self, job: Job[None]) -> list[str | None]:
        assert job.trace is not None
        return [job.trace.parent, job.trace.state, job.trace.run]

    @job
    async def repeat(self, job: Job[int]) -> str:
        return "x" * job.payload


async def happens(event: anyio.Event) -> None:
    with anyio.fail_after(60):
        await event.wait()


async def ended(run: Run) -> RunState:
    with anyio.fail_after(60):
        async for _ in run.events():
            pass
    return (await run.status()).state


async def test_a_run_of_one_worker_has_its_answer_and_its_events_in_order() -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Desk("desk"))
        run = await client.submit("desk", name="shout", payload="hello")
        assert await run.result(60) == "HELLO"
        events = [event async for event in run.events()]
        assert [(event.offset, event.type, event.worker_name) for event in events] == [
            (0, RunEventType.AGENT_STARTED, "desk"),
            (1, RunEventType.UPDATE, "desk"),
            (2, RunEventType.AGENT_COMPLETED, "desk"),
            (3, RunEventType.GROUP_COMPLETED, None),
        ]
        assert [event.data for event in events] == [
            None,
            {"half": "he"},
            "HELLO",
            {"state": "completed", "error": None},
        ]
        for after in range(-1, 4):
            assert [event async for event in run.events(after)] == events[after + 1 :]
        status = await run.status()
        assert (status.state, status.attempts) == (RunState.COMPLETED, 1)
        assert (status.progress.total, status.progress.completed, status.progress.running) == (1, 1, 0)
        assert [each.run_id for each in await client.runs(state=RunState.COMPLETED)] == [run.run_id]
        assert await (await client.run(run.run_id)).result() == "HELLO"


async def test_chunks_of_a_stream_are_events() -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Desk("desk"))
        run = await client.submit("desk", name="count", payload=300)
        chunks = [event.data async for event in run.events() if event.type is RunEventType.STREAM]
        assert chunks == list(range(300))


async def test_a_group_has_the_answers_of_all_and_says_how_far_it_is() -> None:
    a, b = Desk("a"), Desk("b")
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(a, b)
        run = await client.submit("a", "b", name="hold")
        await happens(a.begun)
        await happens(b.begun)
        a.open.set()
        await progress_is(run, completed=1, running=1)
        b.open.set()
        assert await run.result(60) == {"a": "held", "b": "held"}


async def progress_is(run: Run, *, completed: int, running: int) -> None:
    with anyio.fail_after(60):
        progress = (await run.status()).progress
        while (progress.completed, progress.running) != (completed, running):
            await anyio.lowlevel.checkpoint()
            progress = (await run.status()).progress


@pytest.mark.parametrize(("cancel_on_error", "state"), [(True, RunState.FAILED), (False, RunState.COMPLETED)])
async def test_a_member_that_fails_fails_the_run_if_that_is_wanted(cancel_on_error: bool, state: RunState) -> None:
    class Refusing(Desk):
        @job
        async def hold(self) -> str:
            raise ValueError("I will not")

    a = Desk("a")
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(a, Refusing("b"))
        run = await client.submit("a", "b", name="hold", cancel_on_error=cancel_on_error)
        if not cancel_on_error:
            a.open.set()
        assert await ended(run) is state
        status = await run.status()
        assert status.progress.failed >= 1
        if state is RunState.FAILED:
            assert status.error is not None
            assert status.error.message == "b: I will not"
            assert not a.begun.is_set() or a.stopped.is_set()
            with pytest.raises(RunFailedError, match="is failed: b: I will not"):
                await run.result()
        else:
            assert await run.result() == {"a": "held"}


async def test_a_cancelled_run_says_when_its_work_has_stopped_and_stays_cancelled() -> None:
    class Slow(Desk):
        @job
        async def hold(self) -> str:
            self.begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await self.open.wait()
                self.stopped.set()
            return ""

    desk = Slow("desk")
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(desk)
        run = await client.submit("desk", name="hold")
        await happens(desk.begun)
        status = await run.cancel("enough")
        assert status.cancel_requested_at is not None
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert (await run.status()).state is RunState.RUNNING
        desk.open.set()
        assert await ended(run) is RunState.CANCELLED
        assert desk.stopped.is_set()
        assert (await run.cancel()).state is RunState.CANCELLED
        status = await run.status()
        assert status.error is not None
        assert status.error.message == "enough"
        assert status.finished_at is not None
        with pytest.raises(RunFailedError, match="is cancelled: enough"):
            await run.result()


async def test_a_run_that_is_cancelled_while_its_job_is_asked_for_stops_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Asked(InMemoryRunStore):
        async def push_event(
            self, lease: Lease, kind: RunEventType, worker_name: str | None = None, data: object = None
        ) -> int:
            if kind is RunEventType.AGENT_STARTED:
                await (await client.run(lease.run_id)).cancel()
                await happens(learnt)
            return await super().push_event(lease, kind, worker_name, data)

        async def renew(self, lease: Lease) -> Lease:
            lease = await super().renew(lease)
            if lease.cancelled:
                learnt.set()
            return lease

    monkeypatch.setattr(owner, "STOP_PATIENCE", 1e9)
    learnt = anyio.Event()
    async with WorkerRunner() as runner, Client(runner, run_store=Asked()) as client:
        await runner.add_workers(Desk("desk"))
        run = await client.submit("desk", name="hold")
        assert await ended(run) is RunState.CANCELLED


async def test_a_run_that_nobody_does_waits_and_can_be_cancelled_at_once() -> None:
    async with WorkerRunner() as runner, Client(runner, own_runs=False) as client:
        run = await client.submit("desk", name="shout", payload="x")
        assert (await run.status()).state is RunState.PENDING
        assert (await run.cancel()).state is RunState.CANCELLED
        assert [event.type async for event in run.events()] == [RunEventType.RUN_CANCELLED]


async def test_a_run_survives_its_submitter_and_its_owner() -> None:
    store = InMemoryRunStore()
    desk = Desk("desk")
    async with WorkerRunner() as runner:
        await runner.add_workers(desk)
        async with Client(runner, run_store=store) as client:
            run_id = (await client.submit("desk", name="hold")).run_id
            await happens(desk.begun)
        assert (await store.get(run_id)).state is RunState.PENDING
        await happens(desk.stopped)
        desk.open.set()
        async with Client(runner, run_store=store) as client:
            run = await client.run(run_id)
            assert await run.result(60) == "held"
            assert (await run.status()).attempts == 2


async def test_a_run_whose_owner_died_is_taken_over_and_what_the_dead_one_says_is_refused() -> None:
    store = InMemoryRunStore()
    async with WorkerRunner() as runner, Client(runner, run_store=store, own_runs=False) as client:
        await runner.add_workers(Desk("desk"))
        run = await client.submit("desk", name="shout", payload="x")
        (lease,) = await store.leases()
        dead = await store.take(lease, "dead")
        assert dead is not None
        await store.push_event(dead, RunEventType.AGENT_STARTED, "desk")
        await runner.add_workers(RunOwner(store, heartbeat=0.05, lease=1.0))
        assert await run.result(60) == "X"
        assert [event.attempt async for event in run.events()] == [1, 2, 2, 2, 2]


async def test_a_run_that_costs_every_owner_is_failed() -> None:
    store = InMemoryRunStore()
    async with WorkerRunner() as runner, Client(runner, run_store=store, own_runs=False) as client:
        run = await client.submit("desk", name="shout", payload="x")
        for _ in range(2):
            (lease,) = await store.leases()
            assert await store.take(lease, "dead") is not None
        await runner.add_workers(RunOwner(store, heartbeat=0.05, lease=1.0, max_attempts=2))
        assert await ended(run) is RunState.FAILED
        error = (await run.status()).error
        assert error is not None
        assert error.type == "RunLost"


async def test_a_worker_that_nobody_serves_fails_the_run_in_time() -> None:
    async with WorkerRunner(ready_timeout=1) as runner, Client(runner) as client:
        run = await client.submit("nobody")
        with pytest.raises(RunFailedError, match="nobody"):
            await run.result(60)


class Narrow(MemoryLedger):
    async def put(self, key: str, value: bytes, version: int) -> bool:
        if len(value) > 3000:
            raise too_large(key, len(value), 3000, "this one")
        return await super().put(key, value, version)


@pytest.mark.parametrize(("length", "what"), [(5000, "[ab]: event"), (2000, "result")])
async def test_an_answer_that_the_store_does_not_take_fails_the_run_at_once(length: int, what: str) -> None:
    """One answer alone, or all together."""
    store = InMemoryRunStore(Narrow())
    async with WorkerRunner() as runner, Client(runner, run_store=store) as client:
        await runner.add_workers(Desk("a"), Desk("b"))
        run = await client.submit("a", "b", name="repeat", payload=length)
        with pytest.raises(RunFailedError, match=f"is failed: {what} cannot travel: it has"):
            await run.result(60)
        assert (await run.status()).attempts == 1


async def test_an_owner_forgets_runs_whose_time_is_over() -> None:
    store = InMemoryRunStore()
    async with WorkerRunner() as runner, Client(runner, run_store=store, own_runs=False) as client:
        await runner.add_workers(Desk("desk"), RunOwner(store, sweep=0.05))
        kept, over = [await client.submit("desk", name="shout", payload="x", ttl=ttl) for ttl in (None, 0.0)]
        assert await kept.result(60) == "X"
        with anyio.fail_after(60):
            while len(await store.find()) > 1:
                await anyio.lowlevel.checkpoint()
        with pytest.raises(RunNotFoundError):
            await over.status()
        assert [each.run_id for each in await store.find()] == [kept.run_id]


@dataclass
class Parcel:
    weight: int


class Unfit(msgspec.Struct):
    x: int = "text"  # type: ignore[assignment]  # it is refused when it is read


class Post(Desk):
    @job
    async def pack(self, weight: int) -> Parcel:
        return Parcel(weight)

    @job
    async def spoil(self) -> Unfit:
        return Unfit()


@pytest.fixture
def unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A type of the library itself, which is validated when it is read."""
    own_type(Unfit, "Unfit")


async def test_g49_what_is_of_an_unknown_type_is_plain_data(monkeypatch: pytest.MonkeyPatch) -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Post("post"))
        run = await client.submit("post", name="pack", payload=2, idempotency_key="k")
        assert await run.result(60) == Parcel(2)
        monkeypatch.delitem(REGISTERED.by_tag, REGISTERED.by_class[Parcel].tag)
        assert await run.result(60) == {"weight": 2}
        assert [event.data for event in [event async for event in run.events()]][1] == {"weight": 2}


@pytest.mark.usefixtures("unfit")
async def test_what_cannot_be_read_is_named() -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Post("post"))
        run = await client.submit("post", name="spoil", idempotency_key="k")
        with pytest.raises(RunValueError, match=r"the result of run .* tagged 'Unfit' does not fit"):
            await run.result(60)
        events = [event async for event in run.events()]
        assert [isinstance(event.data, Unreadable) for event in events] == [False, True, False]
        other = await client.submit("post", name="pack", payload=Unfit(), idempotency_key="unfit", ttl=None)
        assert await ended(other) is RunState.FAILED
        with pytest.raises(RunConflictError):
            await client.submit("post", name="pack", payload=2, idempotency_key="unfit")


@pytest.mark.usefixtures("unfit")
async def test_a_request_that_no_owner_can_read_fails_its_run() -> None:
    store = InMemoryRunStore()
    async with WorkerRunner(ready_timeout=1) as runner, Client(runner, run_store=store, own_runs=False) as client:
        run = await client.submit("desk", name="shout", payload=Unfit())
        await runner.add_workers(RunOwner(store, heartbeat=0.05))
        with pytest.raises(RunFailedError, match=r"the request of run .* tagged 'Unfit' does not fit"):
            await run.result(60)
        assert (await run.status()).attempts == 2


async def test_a_request_that_cannot_be_asked_for_fails_its_run_with_the_reason() -> None:
    async with InMemoryRunStore() as store, WorkerRunner() as runner, Client(runner, run_store=store) as client:
        await runner.add_workers(Desk("desk"))
        created = await store.create(RunRequest(worker_names=("desk",), name="shout", payload="hello", timeout=-1.0))
        run = await client.run(created.run_id)
        assert await ended(run) is RunState.FAILED
        status = await run.status()
        assert status.attempts == 1
        assert status.error is not None
        assert (status.error.type, "timeout must be" in status.error.message) == ("ValueError", True)


async def test_a_trace_that_is_none_does_not_keep_a_run_from_being_done() -> None:
    async with InMemoryRunStore() as store, WorkerRunner() as runner, Client(runner, run_store=store) as client:
        await runner.add_workers(Desk("desk"))
        created = await store.create(RunRequest(worker_names=("desk",), name="tell", traceparent="of somebody"))
        run = await client.run(created.run_id)
        assert await run.result(60) == [None, None, run.run_id]


async def test_what_one_owner_cannot_read_another_does() -> None:
    class Blind(InMemoryRunStore):
        looks_after = 0
        left = False

        async def request(self, run_id: str) -> RunRequest:
            raise RunValueError(run_id, "the request", "it is of another program")

        async def release(self, lease: Lease) -> None:
            await super().release(lease)
            self.left = True

        async def leases(self) -> list[Lease]:
            self.looks_after += self.left
            return await super().leases()

    ledger = MemoryLedger()
    store = InMemoryRunStore(ledger)
    async with WorkerRunner() as runner, Client(runner, run_store=store, own_runs=False) as client:
        await runner.add_workers(Desk("desk"), RunOwner(blind := Blind(ledger), heartbeat=0.05))
        run = await client.submit("desk", name="shout", payload="x")
        with anyio.fail_after(60):
            while blind.looks_after < 5:
                await anyio.lowlevel.checkpoint()
        status = await run.status()
        assert (status.state, status.attempts) == (RunState.PENDING, 1)
        await runner.add_workers(RunOwner(store))
        assert await run.result(60) == "X"


async def test_one_key_is_one_run() -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Desk("desk"))
        one, two = [await client.submit("desk", name="shout", payload="x", idempotency_key="k") for _ in range(2)]
        assert one.run_id == two.run_id
        assert await one.result(60) == "X"


async def test_a_client_that_submits_several_at_once_opens_its_store_once() -> None:
    runs: list[Run] = []
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Desk("desk"))

        async def submit() -> None:
            runs.append(await client.submit("desk", name="shout", payload="x"))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(submit)
        assert [await run.result(60) for run in runs] == ["X"] * 5
        assert sum(isinstance(worker, RunOwner) for worker in runner.workers) == 1


async def test_what_is_wrong_with_a_submission_is_said() -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        with pytest.raises(ValueError, match="at least one worker name"):
            await client.submit()
        with pytest.raises(TypeError, match="idempotency_key"):
            await client.submit("desk", job_id="x")  # type: ignore[call-arg]
        with pytest.raises(RunNotFoundError, match="there is no run 'x'"):
            await client.run("x")
        with pytest.raises(ValueError, match="timeout"):
            await client.submit("desk", timeout=-1)


async def test_the_jobs_of_a_run_carry_its_id_and_the_trace_of_who_submitted_it() -> None:
    records: list[JobRecord] = []
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Desk("ann"), Desk("bob"))
        runner.add_event_handler("on_job_complete", lambda _, record: records.append(record))
        with tracing(PARENT, "vendor=1", run="outer"):
            traced = await client.submit("ann", "bob", name="tell", idempotency_key="once")
        assert await traced.result(60) == {name: [PARENT, "vendor=1", traced.run_id] for name in ("ann", "bob")}
        plain = await client.submit("ann", name="tell")
        assert await plain.result(60) == [None, None, plain.run_id]
        again = await client.submit("ann", "bob", name="tell", idempotency_key="once")
        assert again.run_id == traced.run_id, "in which trace it is submitted does not make it another"
    assert [each.run for each in records] == [traced.run_id] * 2 + [plain.run_id]
