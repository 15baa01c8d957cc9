"""Run stores interrupted at each of their steps: by a database that fails, by a death, by another process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import count, product
from typing import TypeVar

import pytest

from actors.runs import (
    InMemoryRunStore,
    Lease,
    MemoryLedger,
    RunEventType,
    RunLostError,
    RunNotFoundError,
    RunRequest,
    RunState,
    RunStatus,
    RunStore,
    RunStoreError,
)
from actors.runs.stores.entrance import ORPHAN_AGE
from tests.support.ledgers import Interrupted, fail

pytestmark = pytest.mark.anyio

T = TypeVar("T")

REQUEST = RunRequest(worker_names=("a",), payload={"n": 1})
START = 1_000_000.0

before_and_after = pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])


class DeathError(Exception):
    pass


async def die() -> None:
    raise DeathError


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


async def again(operation: Callable[[], Awaitable[T]]) -> T:
    """As an owner does."""
    while True:
        try:
            return await operation()
        except RunStoreError:
            continue


async def a_life(store: RunStore) -> str:
    """All that happens to a run, each step done again when the store fails."""
    status = await again(lambda: store.create(REQUEST, idempotency_key="k", ttl=0.0))
    run_id = status.run_id
    lease = None
    while lease is None:
        (seen,) = await again(store.leases)
        lease = await again(lambda seen=seen: store.take(seen, "owner"))  # type: ignore[misc]
    for n in (1, 1, 2):
        await again(lambda n=n: store.push_event(lease, RunEventType.UPDATE, "a", n))  # type: ignore[misc]
    await again(lambda: store.set_result(lease, "result"))
    assert await again(lambda: store.set_state(run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease))
    return run_id


@before_and_after
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_whatever_steps_fail_what_is_done_again_counts_once(after: bool, times: int) -> None:
    for step in count():
        ledger, clock = Interrupted(), Clock()
        store = InMemoryRunStore(ledger, clock=clock)
        ledger.arm(step, fail, after=after, times=times)
        run_id = await a_life(store)
        failed = ledger.happened
        ledger.arm(-1, fail)
        assert [event.data async for event in store.stream(run_id)][:-1] == [1, 1, 2]
        assert await store.result(run_id) == "result"
        assert [status.run_id for status in await store.find()] == [run_id]
        assert list(await store.leases()) == []
        assert await store.sweep() == 1
        clock.now += 2 * ORPHAN_AGE
        assert await store.sweep() == 0
        assert ledger._folders == {}
        if not failed:
            assert step > 20
            return


@before_and_after
async def test_who_dies_at_any_step_leaves_a_run_that_ends_or_none(after: bool) -> None:
    for step in count():
        ledger, clock = Interrupted(), Clock()
        ledger.arm(step, die, after=after)
        died = False
        try:
            await a_life(InMemoryRunStore(ledger, clock=clock))
        except DeathError:
            died = True
        store = InMemoryRunStore(Interrupted(ledger), clock=clock)
        # Who submitted it does not know, and submits again under the key.
        status = await store.create(REQUEST, idempotency_key="k", ttl=0.0)
        assert [each.run_id for each in await store.find()] == [status.run_id]
        for lease in await store.leases():
            taken = await store.take(lease, "next")
            assert taken is not None
            await store.push_event(taken, RunEventType.UPDATE, "a", "next")
            assert (await store.request(taken.run_id)).payload == {"n": 1}
            assert await store.set_state(taken.run_id, RunState.RUNNING, RunState.COMPLETED, lease=taken)
        events = [event async for event in store.stream(status.run_id)]
        assert [event.type.terminal for event in events] == [False] * (len(events) - 1) + [True]
        assert await store.sweep() == 1
        clock.now += 2 * ORPHAN_AGE
        await store.sweep()
        assert store._ledger._folders == {}  # type: ignore[attr-defined]
        if not died:
            assert step > 20
            return


@before_and_after
async def test_a_run_whose_creator_died_is_swept(after: bool) -> None:
    for step in count():
        ledger, clock = Interrupted(), Clock()
        ledger.arm(step, die, after=after)
        died = False
        try:
            await InMemoryRunStore(ledger, clock=clock).create(REQUEST, idempotency_key="k")
        except DeathError:
            died = True
        store = InMemoryRunStore(Interrupted(ledger), clock=clock)
        if await store.find():
            return
        assert died
        clock.now += 2 * ORPHAN_AGE
        status = await store.create(REQUEST, idempotency_key="k")
        await store.sweep()
        assert [each.run_id for each in await store.leases()] == [status.run_id]
        assert (await store.request(status.run_id)).payload == {"n": 1}
        await store.cancel(status.run_id)
        await store.delete(status.run_id)
        clock.now += 2 * ORPHAN_AGE
        await store.sweep()
        assert store._ledger._folders == {}  # type: ignore[attr-defined]


async def whole(store: RunStore, status: RunStatus) -> bool:
    """Whether all of a pending run is there; if not, nothing of it may be."""
    try:
        assert (await store.get(status.run_id)).state is RunState.PENDING
    except RunNotFoundError:
        return False
    assert (await store.request(status.run_id)).payload == {"n": 1}
    assert [lease.run_id for lease in await store.leases()] == [status.run_id]
    return True


async def test_a_run_that_is_entered_while_its_namesake_is_deleted_is_whole() -> None:
    """At whatever step of the one the other comes."""
    for step in count():
        ledger = Interrupted()
        deleting, creating = InMemoryRunStore(ledger), InMemoryRunStore(Interrupted(ledger))
        old = await deleting.create(REQUEST, idempotency_key="k")
        await deleting.cancel(old.run_id)
        found: list[RunStatus] = []

        async def create(found: list[RunStatus] = found, creating: RunStore = creating) -> None:
            found.append(await creating.create(REQUEST, idempotency_key="k"))

        ledger.arm(step, create)
        await deleting.delete(old.run_id)
        if not found:
            assert step > 5
            return
        if found[0].state is RunState.PENDING:
            assert found[0].run_id != old.run_id
            assert await whole(creating, found[0])
        else:
            assert found[0].run_id == old.run_id
            assert await creating.find() == []


async def test_a_run_that_is_deleted_while_its_namesake_is_entered_leaves_a_whole_one() -> None:
    for step in count():
        ledger = Interrupted()
        creating, deleting = InMemoryRunStore(ledger), InMemoryRunStore(Interrupted(ledger))
        old = await deleting.create(REQUEST, idempotency_key="k")
        await deleting.cancel(old.run_id)

        async def delete(deleting: RunStore = deleting, old: RunStatus = old) -> None:
            await deleting.delete(old.run_id)

        ledger.arm(step, delete)
        status = await creating.create(REQUEST, idempotency_key="k")
        if not ledger.happened:
            assert step >= 5
            return
        ledger.arm(-1, fail)
        if status.state is RunState.PENDING:
            assert status.run_id != old.run_id
            assert await whole(creating, status)
        else:
            assert await creating.find() == []


async def test_a_run_that_is_entered_while_what_a_dead_creator_left_is_swept_is_whole() -> None:
    """At whatever step of the one the other comes."""
    for sweeps_meanwhile in (True, False):
        for step in count():
            ledger, clock = Interrupted(), Clock()
            sweeping, creating = (InMemoryRunStore(each, clock=clock) for each in (Interrupted(ledger), ledger))
            ledger.arm(2, die)  # the mark of an open run, its claim, and then
            with pytest.raises(DeathError):
                await creating.create(REQUEST, idempotency_key="k")
            clock.now += 2 * ORPHAN_AGE
            found: list[RunStatus] = []

            async def create(found: list[RunStatus] = found, store: RunStore = creating) -> None:
                found.append(await store.create(REQUEST, idempotency_key="k"))

            if sweeps_meanwhile:
                ledger.arm(step, sweeping.sweep)
                await create()
            else:
                sweeping, creating = creating, sweeping
                ledger.arm(step, partial(create, found, creating))
                await sweeping.sweep()
            if not ledger.happened:
                assert step > 3
                break
            ledger.arm(-1, fail)
            assert await whole(creating, found[0])
            await sweeping.sweep()
            assert await whole(creating, found[0])
            assert (await creating.create(REQUEST, idempotency_key="k")) == found[0]


async def test_two_who_enter_one_key_enter_one_run_at_whatever_step_they_meet() -> None:
    for step in count():
        ledger = Interrupted()
        one, two = InMemoryRunStore(ledger), InMemoryRunStore(Interrupted(ledger))
        found: list[RunStatus] = []

        async def create(found: list[RunStatus] = found, two: RunStore = two) -> None:
            found.append(await two.create(REQUEST, idempotency_key="k"))

        ledger.arm(step, create)
        found.append(await one.create(REQUEST, idempotency_key="k"))
        if len(found) == 1:
            assert step > 3
            return
        ledger.arm(-1, fail)
        assert found[0] == found[1]
        assert await whole(one, found[0])
        assert len(await one.find()) == 1
        assert len(ledger._folders["request"]) == 1


async def test_a_run_that_is_cancelled_at_any_step_of_its_completion_ends_once() -> None:
    for step in count():
        ledger = Interrupted()
        store, other = InMemoryRunStore(ledger), InMemoryRunStore(Interrupted(ledger))
        lease = await begun(store)

        async def cancel(other: RunStore = other, lease: Lease = lease) -> None:
            await other.cancel(lease.run_id)

        ledger.arm(step, cancel)
        completed = await store.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
        happened = ledger.happened
        ledger.arm(-1, fail)
        status = await other.get(lease.run_id)
        assert completed == (status.state is RunState.COMPLETED) == (status.cancel_requested_at is None)
        if not completed:
            await store.release(lease)
        kind = RunEventType.GROUP_COMPLETED if completed else RunEventType.RUN_CANCELLED
        assert [event.type async for event in store.stream(lease.run_id)] == [kind]
        if not happened:
            assert step > 3
            return


async def begun(store: RunStore) -> Lease:
    status = await store.create(REQUEST)
    (lease,) = [lease for lease in await store.leases() if lease.run_id == status.run_id]
    taken = await store.take(lease, "owner")
    assert taken is not None
    return taken


async def test_an_event_that_a_lost_owner_adds_at_any_step_is_heard_by_all_or_by_none() -> None:
    """Between its look at the record and its write another takes the run, says something, and may end it."""
    for ends in (False, True):
        for step in count():
            ledger = Interrupted()
            stale, store = InMemoryRunStore(ledger), InMemoryRunStore(Interrupted(ledger))
            first = await begun(stale)
            await stale.push_event(first, RunEventType.UPDATE, "a", "first")
            live = store.stream(first.run_id)
            heard = [await anext(live)]

            async def lose(store: InMemoryRunStore = store, ends: bool = ends) -> None:
                (lease,) = await store.leases()
                second = await store.take(lease, "other")
                assert second is not None
                await store.push_event(second, RunEventType.UPDATE, "a", "second")
                if ends:
                    await store.set_state(second.run_id, RunState.RUNNING, RunState.FAILED, lease=second)

            ledger.arm(step, lose)
            with suppress(RunLostError):  # it may be refused: what is heard counts
                await stale.push_event(first, RunEventType.UPDATE, "a", "stale")
            happened = ledger.happened
            ledger.arm(-1, fail)
            if not happened:
                assert step >= 2
                break
            if not ends:
                await store.cancel(first.run_id)
                (lease,) = await store.leases()
                await store.release(lease)
            heard += [event async for event in live]
            assert [event.data for event in heard][:2] == ["first", "second"]
            assert len(heard) == 3
            for after in range(-1, 5):
                expected = [event for event in heard if event.offset > after]
                assert [event async for event in InMemoryRunStore(ledger).stream(first.run_id, after)] == expected
                assert await InMemoryRunStore(ledger).events(first.run_id, after) == expected


async def test_an_event_is_there_once_however_late_the_database_carries_out_the_first_try() -> None:
    """It had not answered; and does it at whatever step of the second try."""

    class Late(Interrupted):
        late: tuple[str, bytes] | None = None

        async def put(self, key: str, value: bytes, version: int) -> bool:
            if key.startswith("event/") and self.late is None:
                self.late = key, value
                raise RunStoreError("no answer")
            return await super().put(key, value, version)

    for step in count():
        ledger = Late()
        store = InMemoryRunStore(ledger)
        lease = await begun(store)
        with pytest.raises(RunStoreError):
            await store.push_event(lease, RunEventType.UPDATE, "a", 1)

        async def carry_out(ledger: Late = ledger) -> None:
            assert ledger.late is not None
            await MemoryLedger.put(ledger, *ledger.late, 0)

        ledger.arm(step, carry_out)
        assert await store.push_event(lease, RunEventType.UPDATE, "a", 1) == 0
        assert await store.push_event(lease, RunEventType.UPDATE, "a", 1) == 1
        happened = ledger.happened
        ledger.arm(-1, fail)
        assert [event.data for event in await store.events(lease.run_id)] == [1, 1]
        if not happened:
            assert step > 3
            return


async def test_an_event_that_is_added_while_the_run_ends_is_heard_by_all_or_by_none() -> None:
    for step in count():
        ledger = Interrupted()
        store, other = InMemoryRunStore(ledger), InMemoryRunStore(Interrupted(ledger))
        lease = await begun(store)
        live = other.stream(lease.run_id)

        async def say(other: RunStore = other, lease: Lease = lease) -> None:
            with suppress(RunLostError):
                await other.push_event(lease, RunEventType.UPDATE, "a", "late")

        ledger.arm(step, say)
        await store.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
        happened = ledger.happened
        ledger.arm(-1, fail)
        heard = [event async for event in live]
        assert [event.type.terminal for event in heard] == [False] * (len(heard) - 1) + [True]
        for after in range(-1, 3):
            expected = [event for event in heard if event.offset > after]
            assert [event async for event in store.stream(lease.run_id, after)] == expected
        if not happened:
            assert step > 3
            return


async def test_a_terminal_event_that_was_not_written_is_written_by_who_reads() -> None:
    """The owner died between the state and its event."""
    ledger = Interrupted()
    lease = await begun(InMemoryRunStore(ledger))
    ledger.arm(2, die)  # read, put, and then
    with pytest.raises(DeathError):
        await InMemoryRunStore(ledger).set_state(lease.run_id, RunState.RUNNING, RunState.FAILED, lease=lease)
    ledger.arm(-1, die)
    assert f"event/{lease.run_id}" not in ledger._folders
    stores = [InMemoryRunStore(ledger) for _ in range(2)]
    for store in stores:
        (event,) = [event async for event in store.stream(lease.run_id)]
        assert event.type is RunEventType.GROUP_COMPLETED
    assert list(await stores[0].leases()) == []
    assert "open" not in ledger._folders


async def test_a_run_that_is_deleted_while_it_is_read_is_heard_whole_or_is_not_there() -> None:
    """At whatever step of the one the other comes; and nothing of it is left."""
    for deletes_at_once, ended_in_death in product((True, False), repeat=2):
        for step in count():
            ledger, clock = Interrupted(), Clock()
            first, second = (InMemoryRunStore(each, clock=clock) for each in (ledger, Interrupted(ledger)))
            lease = await begun(first)
            for n in range(10):
                await first.push_event(lease, RunEventType.UPDATE, "a", n)
            if ended_in_death:  # after the state, and before the terminal event
                ledger.arm(2, fail, times=100)
            await first.set_state(lease.run_id, RunState.RUNNING, RunState.FAILED, lease=lease)
            heard: list[int] = []
            gone: list[bool] = []

            async def read(
                store: RunStore, run_id: str = lease.run_id, heard: list[int] = heard, gone: list[bool] = gone
            ) -> None:
                try:
                    heard += [event.offset async for event in store.stream(run_id)]
                except RunNotFoundError:
                    gone.append(True)

            if deletes_at_once:
                ledger.arm(step, partial(second.delete, lease.run_id))
                await read(first)
            else:
                ledger.arm(step, partial(read, second))
                await first.delete(lease.run_id)
            if not ledger.happened:
                assert step > 3
                break
            ledger.arm(-1, fail)
            assert gone or heard == list(range(11))
            await first.leases()
            clock.now += 2 * ORPHAN_AGE
            await first.sweep()
            assert ledger._folders == {}


async def test_nothing_is_remembered_of_runs_that_are_over() -> None:
    ledger = MemoryLedger()
    store, other = InMemoryRunStore(ledger), InMemoryRunStore(ledger)
    for how in ("ends", "is lost", "is left"):
        lease = await begun(store)
        await store.push_event(lease, RunEventType.UPDATE, "a", 1)
        if how == "ends":
            await store.set_state(lease.run_id, RunState.RUNNING, RunState.FAILED, lease=lease)
        elif how == "is left":
            await store.release(lease)
        else:
            (seen,) = await other.leases()
            assert await other.take(seen, "other") is not None
            with pytest.raises(RunLostError):
                await store.renew(lease)
        assert store._log._adding == {}
        await anext(aiter(store.stream(lease.run_id)))
        for each in await other.leases():
            await other.cancel(each.run_id)
            if each.owner:
                await other.release(each)
    assert len(store._readers._feeds) == 0
    assert len(ledger.changes._events) == 0


async def test_what_a_lost_owner_writes_into_a_run_that_is_deleted_at_any_step_is_gone_in_the_end() -> None:
    """Between its look at the record and its write another ends the run, and deletes it, or lets its time be over."""
    for writes, swept in product(("an event", "a result"), (False, True)):
        for step in count():
            ledger, clock = Interrupted(), Clock()
            stale, store = (InMemoryRunStore(each, clock=clock) for each in (ledger, Interrupted(ledger)))
            status = await store.create(REQUEST, ttl=0.0)
            (lease,) = await stale.leases()
            taken = await stale.take(lease, "stale")
            assert taken is not None

            async def delete(store: RunStore = store, run_id: str = status.run_id, swept: bool = swept) -> None:
                (lease,) = await store.leases()
                second = await store.take(lease, "other")
                assert second is not None
                await store.set_state(run_id, RunState.RUNNING, RunState.FAILED, lease=second)
                if swept:
                    assert await store.sweep() == 1
                else:
                    await store.delete(run_id)

            ledger.arm(step, delete)
            with suppress(RunLostError, RunNotFoundError):
                if writes == "an event":
                    await stale.push_event(taken, RunEventType.UPDATE, "a", "stale")
                else:
                    await stale.set_result(taken, "stale")
            if not ledger.happened:
                assert step >= 3
                break
            clock.now += 2 * ORPHAN_AGE
            assert await store.sweep() == 0
            assert ledger._folders == {}


async def test_a_record_that_cannot_be_read_is_forgotten_with_the_others_when_its_time_is_over() -> None:
    ledger, now = MemoryLedger(), [START]
    async with InMemoryRunStore(ledger, clock=lambda: now[0]) as store:
        for key in ("first", "broken", "last"):
            status = await store.create(REQUEST, idempotency_key=key, ttl=1)
            await store.cancel(status.run_id)
            if key == "broken":
                (entry,) = await ledger.read([f"run/{status.run_id}"])
                assert entry is not None
                await ledger.put(f"run/{status.run_id}", b"of a later version", entry.version)
            now[0] += 1
        now[0] += 2 * ORPHAN_AGE
        assert await store.sweep() == 3
        assert await store.find() == []
        again = await store.create(REQUEST, idempotency_key="broken")
        assert again.state is RunState.PENDING
