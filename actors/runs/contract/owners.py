"""Who does a run, and who does not any more."""

from __future__ import annotations

from functools import partial

from actors.runs.contract.stored import (
    REQUEST,
    MakeStores,
    RunStoreCheck,
    begun,
    complete,
    heard,
    lease_of,
    raises,
    say,
    taken,
    together,
)
from actors.runs.errors import RunLostError, RunStateError
from actors.runs.run import STEPS, Lease, RunEventType, RunProgress, RunState
from actors.runs.store import RunStore
from bus import ErrorInfo
from bus.testing import equal, require


async def one_of_those_who_take_a_run_has_it(make_stores: MakeStores) -> None:
    """However many come at once, in however many processes; at the first attempt and at the next."""
    async with make_stores(2) as stores:
        run_id = (await stores[0].create(REQUEST)).run_id
        for attempt in (1, 2):
            lease = await lease_of(stores[0], run_id)
            names = [f"owner{n}" for n in range(8)]
            leases = await together(*(partial(stores[n % 2].take, lease, name) for n, name in enumerate(names)))
            winners = [(name, taken) for name, taken in zip(names, leases, strict=True) if taken is not None]
            equal(len(winners), 1)
            ((name, got),) = winners
            status = await stores[1].get(run_id)
            equal((status.state, status.owner, status.attempts), (RunState.RUNNING, name, attempt))
            equal((got.owner, got.attempt), (name, attempt))
            equal(await lease_of(stores[1], run_id), got)
            require(status.started_at is not None, "nobody wrote down when it was started")


async def an_owner_that_gives_signs_of_life_keeps_its_run(make_stores: MakeStores) -> None:
    """What changes the lease under an old one that somebody watched."""
    async with make_stores(2) as (a, b):
        lease = await begun(a)
        for sign in (partial(a.renew, lease), partial(a.set_progress, lease, RunProgress(1, 0, 0, 1))):
            watched = await lease_of(b, lease.run_id)
            await sign()
            equal(await b.take(watched, "other"), None)
            require(await lease_of(b, lease.run_id) != watched, "a sign of life cannot be seen")
        equal((await b.get(lease.run_id)).attempts, 1)


async def _refused(store: RunStore, run_id: str, attempt: int) -> None:
    """An attempt that is over writes nothing any more."""
    lost = Lease(run_id, "owner", attempt)
    before = await store.get(run_id)
    await raises(RunLostError, store.renew(lost), "a sign of life under a lost lease")
    await raises(RunLostError, store.set_progress(lost, RunProgress(9, 9, 9, 9)), "progress under a lost lease")
    await raises(RunLostError, store.set_result(lost, "stale"), "a result under a lost lease")
    await raises(RunLostError, say(store, lost, "stale"), "an event under a lost lease")
    await raises(RunLostError, store.release(lost), "leaving a run under a lost lease")
    end = store.set_state(run_id, RunState.RUNNING, RunState.FAILED, lease=lost)
    await raises(RunLostError, end, "failing a run under a lost lease")
    equal(await store.get(run_id), before)


async def an_owner_that_has_lost_its_run_is_refused(make_stores: MakeStores) -> None:
    """In all it writes: after it left the run, after another took it, and after it ended."""
    async with make_stores(2) as (a, b):
        first = await begun(a)
        await say(a, first, "first")
        await a.release(first)
        status = await b.get(first.run_id)
        equal((status.state, (await lease_of(b, first.run_id)).owner), (RunState.PENDING, ""))
        await _refused(a, first.run_id, 1)
        second = await taken(b, status, "other")
        equal(second.attempt, 2)
        await _refused(a, first.run_id, 1)
        await say(b, second, "second")
        third = await taken(a, status)
        await _refused(b, first.run_id, 2)
        await complete(a, third, "third")
        for attempt in (1, 2):
            await _refused(b, first.run_id, attempt)
        equal(await b.result(first.run_id), "third")
        equal([event.data for event in await b.events(first.run_id)][:-1], ["first", "second"])


async def a_state_that_is_terminal_never_changes(make_stores: MakeStores) -> None:
    """Whoever wants it, however."""
    async with make_stores(2) as (a, b):
        for terminal in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED):
            lease = await begun(a)
            error = ErrorInfo(type="X", message="m") if terminal is not RunState.COMPLETED else None
            done = await a.set_state(lease.run_id, RunState.RUNNING, terminal, lease=lease, error=error)
            equal(done, expected=True)
            before = await b.get(lease.run_id)
            equal((before.state, before.error), (terminal, error))
            require(before.finished_at is not None, "nobody wrote down when it ended")
            for expected, steps in STEPS.items():
                for state in steps:
                    if state is not RunState.RUNNING:
                        equal(await b.set_state(lease.run_id, expected, state), expected=False)
            equal(await b.take(lease, "other"), None)
            equal(await b.cancel(lease.run_id), before)
            await raises(RunLostError, a.renew(lease), "a sign of life in a run that has ended")
            await raises(RunLostError, say(a, lease, "late"), "an event of a run that has ended")
            equal(await a.get(lease.run_id), before)
            equal([each for each in await b.leases() if each.run_id == lease.run_id], [])


async def a_state_changes_only_from_the_expected_one_to_one_that_follows(make_stores: MakeStores) -> None:
    """And nobody becomes an owner by it."""
    async with make_stores(1) as (a,):
        run_id = (await a.create(REQUEST)).run_id
        equal(await a.set_state(run_id, RunState.RUNNING, RunState.FAILED), expected=False)
        for expected in RunState:
            for state in RunState:
                if state not in STEPS[expected] or state is RunState.RUNNING:
                    what = f"a step from {expected.value} to {state.value}"
                    await raises(RunStateError, a.set_state(run_id, expected, state), what)
        equal((await a.get(run_id)).state, RunState.PENDING)
        equal(await a.set_state(run_id, RunState.PENDING, RunState.FAILED), expected=True)


async def what_was_done_may_be_done_again_by_who_did_not_hear(make_stores: MakeStores) -> None:
    """An owner whose store did not answer asks again, and is told that it is so."""
    async with make_stores(1) as (a,):
        lease = await begun(a)
        for _ in range(2):
            await a.set_result(lease, "x")
        for _ in range(2):
            equal(
                await a.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease),
                expected=True,
            )
        again = a.set_state(lease.run_id, RunState.RUNNING, RunState.FAILED, lease=lease)
        await raises(RunLostError, again, "failing a run that this owner completed")
        equal((await a.result(lease.run_id), len(await heard(a, lease.run_id))), ("x", 1))


async def a_cancelled_run_does_not_complete(make_stores: MakeStores) -> None:
    """Its owner learns of it, stops, and says so; what nobody does is cancelled at once."""
    async with make_stores(2) as (a, b):
        pending = await a.create(REQUEST)
        status = await b.cancel(pending.run_id, "why not")
        equal((status.state, status.error and status.error.message), (RunState.CANCELLED, "why not"))
        require(status.finished_at is not None, "nobody wrote down when it ended")
        lease = await begun(a)
        status = await b.cancel(lease.run_id, "enough \ud800" + "." * 100_000)
        equal((status.state, status.finished_at), (RunState.RUNNING, None))
        require(status.cancel_requested_at is not None, "nobody wrote down that it is to be cancelled")
        equal((await b.cancel(lease.run_id, "too late")).error, status.error)
        require((await a.renew(lease)).cancelled, "its owner does not learn that it is to be cancelled")
        require((await lease_of(b, lease.run_id)).cancelled, "others do not learn that it is to be cancelled")
        await say(a, lease, "last words")
        for state in (RunState.COMPLETED, RunState.PENDING):
            equal(await a.set_state(lease.run_id, RunState.RUNNING, state, lease=lease), expected=False)
        equal(await a.set_state(lease.run_id, RunState.RUNNING, RunState.CANCELLED, lease=lease), expected=True)
        status = await b.get(lease.run_id)
        require(status.error is not None and status.error.message.startswith("enough"), "its reason is lost")
        equal([event.type for event in await heard(b, lease.run_id)][1:], [RunEventType.RUN_CANCELLED])


async def a_run_that_is_to_be_cancelled_ends_when_its_owner_leaves_it(make_stores: MakeStores) -> None:
    """Nobody need take it for that; but if its owner dies, somebody may."""
    async with make_stores(2) as (a, b):
        lease = await begun(a)
        await b.cancel(lease.run_id)
        await a.release(lease)
        equal((await b.get(lease.run_id)).state, RunState.CANCELLED)
        status = await b.create(REQUEST)
        await taken(a, status)
        await b.cancel(status.run_id)
        require((await taken(b, status)).cancelled, "the next owner does not learn that it is to be cancelled")


async def a_run_completes_or_is_cancelled(make_stores: MakeStores) -> None:
    """Never both, also if both are asked for at once, and everybody is told the same."""
    async with make_stores(2) as (a, b):
        for _ in range(10):
            lease = await begun(a)
            await a.set_result(lease, "x")
            end = partial(a.set_state, lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
            completed, told = await together(end, partial(b.cancel, lease.run_id))
            status = await b.get(lease.run_id)
            if completed:
                equal((status.state, told.state), (RunState.COMPLETED, RunState.COMPLETED))
            else:
                require(status.cancel_requested_at is not None, "it neither completed nor is it to be cancelled")
                equal(await a.set_state(lease.run_id, RunState.RUNNING, RunState.CANCELLED, lease=lease), expected=True)
            kind = RunEventType.GROUP_COMPLETED if completed else RunEventType.RUN_CANCELLED
            equal([event.type for event in await heard(b, lease.run_id)], [kind])


async def leases_are_those_of_runs_that_have_not_ended(make_stores: MakeStores) -> None:
    """The oldest run first, however many have ended."""
    async with make_stores(2) as (a, b):
        runs = [await a.create(REQUEST) for _ in range(6)]
        for run in runs[::2]:
            await complete(a, await taken(a, run))
        equal([lease.run_id for lease in await b.leases()], [run.run_id for run in runs[1::2]])


OWNER_CHECKS: tuple[RunStoreCheck, ...] = (
    one_of_those_who_take_a_run_has_it,
    an_owner_that_gives_signs_of_life_keeps_its_run,
    an_owner_that_has_lost_its_run_is_refused,
    a_state_that_is_terminal_never_changes,
    a_state_changes_only_from_the_expected_one_to_one_that_follows,
    what_was_done_may_be_done_again_by_who_did_not_hear,
    a_cancelled_run_does_not_complete,
    a_run_that_is_to_be_cancelled_ends_when_its_owner_leaves_it,
    a_run_completes_or_is_cancelled,
    leases_are_those_of_runs_that_have_not_ended,
)
