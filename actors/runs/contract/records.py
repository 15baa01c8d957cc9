"""What run stores keep, and find again."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID

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
from actors.runs.errors import RunConflictError, RunNotFoundError, RunStateError, RunStoreError
from actors.runs.run import Lease, RunProgress, RunRequest, RunState
from bus import EncodeError
from bus.testing import equal, require

WELL_FORMED = "00000000000-0000000000"
HOSTILE = (
    "",
    "x",
    "run/x",
    "run/.." + "/x",
    "a b",
    "a\nb",
    "*",
    ">",
    ".",
    "%00",
    "\x00",
    "'; DROP TABLE runs; --",
    "ü",
    "\ud800",
    "0" * 22,
    WELL_FORMED,
    WELL_FORMED.replace("0", "A"),
    "a" * 2**20,
)
"""Texts that no run is called by, though some look like it."""

EXOTIC = {
    "none": None,
    "big": 2**200,
    "nan": [math.inf, -0.0],
    "when": datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC),
    "day": date(1, 1, 1),
    "how long": timedelta(days=-1, microseconds=1),
    "price": Decimal("0.10"),
    "id": UUID(int=2**127),
    "bytes": bytes(range(256)),
    "text": "a\x00b \U0001f600 é",
    "nested": {"tuple": (1, (2, [3])), "set": {1, 2}, 5: {"deep": [[[]]]}, (1, 2): frozenset({"x"})},
}


async def a_run_that_was_created_is_found_by_everybody(make_stores: MakeStores) -> None:
    """By its id, with all that it was entered with, and pending."""
    async with make_stores(2) as (a, b):
        request = RunRequest(
            worker_names=("a", "b"), name="do", payload=EXOTIC, payloads={"b": 1}, timeout=1.5, label="ü" * 100
        )
        status = await a.create(request, idempotency_key="key ü", ttl=7.5)
        equal(await b.get(status.run_id), status)
        equal(await b.request(status.run_id), request)
        equal((status.state, status.worker_names, status.job_name), (RunState.PENDING, ("a", "b"), "do"))
        equal((status.owner, status.attempts, status.label, status.ttl), ("", 0, "ü" * 100, 7.5))
        equal((status.progress, status.idempotency_key), (RunProgress(total=2), "key ü"))
        equal(await lease_of(b, status.run_id), Lease(status.run_id))


async def what_cannot_be_entered_is_refused(make_stores: MakeStores) -> None:
    """And leaves nothing behind."""
    async with make_stores(1) as (a,):
        for names in ((), ("",), ("a", "a"), ("a\nx",)):
            await raises(ValueError, a.create(RunRequest(worker_names=names)), f"a run of {names}")
        for wrong in (
            RunRequest(worker_names=("a",), payload=object()),
            RunRequest(worker_names=("a",), label="\ud800"),
        ):
            await raises(EncodeError, a.create(wrong), "what cannot travel")
        for name in ("", "x" * 129, "a\nx"):
            await raises(ValueError, a.create(RunRequest(worker_names=("a",), name=name)), f"a job named {name!r:.9}")
        await raises(ValueError, a.create(RunRequest(worker_names=("a",), label="x" * 2000)), "a label of a book")
        for ttl in (-1.0, math.nan):
            await raises(ValueError, a.create(REQUEST, ttl=ttl), f"a ttl of {ttl}")
        for key in ("", "k" * 100_000, "\ud800"):
            await raises(ValueError, a.create(REQUEST, idempotency_key=key), f"the idempotency key {key!r:.20}")
        equal(list(await a.find()), [])
        equal(list(await a.leases()), [])


async def the_latest_runs_come_first_and_pages_follow_each_other(make_stores: MakeStores) -> None:
    """Also when runs come and go between two pages."""
    async with make_stores(1) as (a,):
        ids = [(await a.create(REQUEST)).run_id for _ in range(7)]
        ids.reverse()
        equal([status.run_id for status in await a.find()], ids)
        first = [status.run_id for status in await a.find(limit=3)]
        equal(first, ids[:3])
        await a.create(REQUEST)
        await a.cancel(first[-1])
        await a.delete(first[-1])
        equal([status.run_id for status in await a.find(limit=3, after=first[-1])], ids[3:6])
        equal([status.run_id for status in await a.find(limit=3, after=ids[5])], ids[6:])
        equal(list(await a.find(after=ids[6])), [])
        for limit in (0, -1):
            await raises(ValueError, a.find(limit=limit), f"a limit of {limit}")


async def runs_are_found_by_state_and_by_worker(make_stores: MakeStores) -> None:
    """By both together as well, and page by page."""
    async with make_stores(2) as (a, b):
        pending, running, completed, cancelled = [await a.create(REQUEST) for _ in range(4)]
        other = await a.create(RunRequest(worker_names=("b", "c")))
        await taken(b, running)
        await complete(b, await taken(b, completed))
        await b.cancel(cancelled.run_id)
        expected = {
            RunState.PENDING: [other, pending],
            RunState.RUNNING: [running],
            RunState.COMPLETED: [completed],
            RunState.CANCELLED: [cancelled],
            RunState.FAILED: [],
        }
        for state, runs in expected.items():
            equal([status.run_id for status in await a.find(state=state)], [run.run_id for run in runs])
        equal([status.run_id for status in await a.find(worker_name="c")], [other.run_id])
        equal([status.run_id for status in await a.find(worker_name="a", state=RunState.PENDING)], [pending.run_id])
        equal(
            [status.run_id for status in await a.find(worker_name="a", limit=2)], [cancelled.run_id, completed.run_id]
        )
        (next_page,) = await a.find(state=RunState.PENDING, limit=1, after=other.run_id)
        equal(next_page.run_id, pending.run_id)


async def there_is_no_run_by_another_id(make_stores: MakeStores) -> None:
    """Whatever text somebody sends, it is no run, and harms none."""
    async with make_stores(1) as (a,):
        kept = await a.create(REQUEST)
        for run_id in HOSTILE:
            lease = Lease(run_id, "x", 1, 1)
            for call in (a.get, a.request, a.result, a.cancel, a.events, a.delete):
                await raises(RunNotFoundError, call(run_id), f"{call} of {run_id!r:.30}")
            await raises(RunNotFoundError, heard(a, run_id), f"a stream of {run_id!r:.30}")
            if run_id != WELL_FORMED:
                await raises(RunNotFoundError, a.find(after=run_id), f"runs after {run_id!r:.30}")
            for under in (a.renew, a.release, partial(a.take, owner="x")):
                await raises(RunNotFoundError, under(lease), f"a lease of {run_id!r:.30}")
        equal([status.run_id for status in await a.find()], [kept.run_id])


async def one_key_is_one_run(make_stores: MakeStores) -> None:
    """As long as the run is kept, whatever becomes of it; other keys and none are other runs."""
    async with make_stores(2) as (a, b):
        first = await a.create(REQUEST, idempotency_key="k")
        again = RunRequest(worker_names=("a",), name="do", payload={"n": 1})
        equal((await b.create(again, idempotency_key="k")).run_id, first.run_id)
        require((await a.create(REQUEST, idempotency_key="l")).run_id != first.run_id, "two keys gave one run")
        require((await a.create(REQUEST)).run_id != first.run_id, "a run without a key is not a new one")
        other = RunRequest(worker_names=("a",), name="do", payload={"n": 2})
        await raises(RunConflictError, b.create(other, idempotency_key="k"), "another request under a key")
        await complete(a, await taken(a, first))
        equal((await b.create(REQUEST, idempotency_key="k")).state, RunState.COMPLETED)
        await a.delete(first.run_id)
        new = await b.create(other, idempotency_key="k")
        require(new.run_id != first.run_id, "the key of a run that was deleted is not free")
        equal((await a.request(new.run_id)).payload, {"n": 2})


async def creators_with_one_key_make_one_run(make_stores: MakeStores) -> None:
    """However many come at once, in however many processes."""
    async with make_stores(2) as stores:
        create = [partial(stores[n % 2].create, REQUEST, idempotency_key="k") for n in range(8)]
        equal(len({status.run_id for status in await together(*create)}), 1)
        equal(len(await stores[0].find()), 1)
        equal(len(await stores[1].leases()), 1)


async def results_come_back_as_they_were(make_stores: MakeStores) -> None:
    """Of any type that may travel; None if none was kept; and not before the run has completed."""
    async with make_stores(2) as (a, b):
        for result in (EXOTIC, None, {}, "", 0, [EXOTIC] * 3):
            lease = await begun(a)
            await a.set_result(lease, "an earlier word")
            await raises(RunStateError, b.result(lease.run_id), "the result of a run that is not completed")
            await complete(a, lease, result)
            got = await b.result(lease.run_id)
            equal((got, repr(got)), (result, repr(result)))
        lease = await begun(a)
        await raises(EncodeError, a.set_result(lease, {"x": object()}), "an object as result")
        await a.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
        equal(await b.result(lease.run_id), None)


async def large_results_are_kept_or_refused(make_stores: MakeStores) -> None:
    """Some megabytes, whole, or an EncodeError that leaves the run as it was; events and payloads alike."""
    async with make_stores(2) as (a, b):
        for size in (2**19, 5 * 2**20):
            large = bytes(range(256)) * (size // 256)
            lease = await begun(a)
            try:
                await a.set_result(lease, large)
                await say(a, lease, large)
                await a.create(RunRequest(worker_names=("a",), payload=large))
            except EncodeError:
                require(size > 2**19, "half a megabyte is not too much")
                await complete(a, lease, "small")
                equal(await b.result(lease.run_id), "small")
            else:
                await complete(a, lease, large)
                require(await b.result(lease.run_id) == large, "a large result did not come back as it was")
                require((await b.events(lease.run_id))[0].data == large, "a large event did not come back as it was")


async def progress_is_written(make_stores: MakeStores) -> None:
    """By the owner, and with the last state."""
    async with make_stores(2) as (a, b):
        lease = await begun(a)
        await a.set_progress(lease, RunProgress(3, 1, 1, 1))
        equal((await b.get(lease.run_id)).progress, RunProgress(3, 1, 1, 1))
        last = RunProgress(3, 2, 1, 0)
        await a.set_state(lease.run_id, RunState.RUNNING, RunState.FAILED, lease=lease, progress=last)
        equal((await b.get(lease.run_id)).progress, last)


async def a_store_that_is_opened_again_has_everything(make_stores: MakeStores) -> None:
    """And while it is closed, it says so."""
    async with make_stores(1) as (a,):
        lease = await begun(a, idempotency_key="k")
        await say(a, lease, "one")
        done = await begun(a)
        await complete(a, done, EXOTIC)
        before = list(await a.find())
        await a.__aexit__(None, None, None)
        await raises(RunStoreError, a.get(lease.run_id), "a look into a closed store")
        await raises(RunStoreError, a.create(REQUEST), "a run in a closed store")
        await a.__aenter__()
        equal(list(await a.find()), before)
        equal(await a.result(done.run_id), EXOTIC)
        equal((await a.create(REQUEST, idempotency_key="k")).run_id, lease.run_id)
        equal(await say(a, lease, "two"), [1])
        equal([event.data for event in await a.events(lease.run_id)], ["one", "two"])
        await a.renew(lease)


async def a_store_is_closed_by_the_last_who_has_it_open(make_stores: MakeStores) -> None:
    """Several in one process may share it, and open it at the same time."""
    async with make_stores(1) as (a,):
        await a.__aexit__(None, None, None)
        await together(a.__aenter__, a.__aenter__)
        kept = await a.create(REQUEST)
        await a.__aexit__(None, None, None)
        equal(await a.get(kept.run_id), kept)
        await a.__aexit__(None, None, None)
        await raises(RunStoreError, a.get(kept.run_id), "a look into a closed store")
        await a.__aenter__()


async def only_a_run_that_has_ended_is_deleted(make_stores: MakeStores) -> None:
    """And then nothing of it is left, for nobody."""
    async with make_stores(2) as (a, b):
        lease = await begun(a, ttl=1e9)
        await say(a, lease, *range(5))
        await raises(RunStateError, b.delete(lease.run_id), "deleting a run that is running")
        await complete(a, lease, "x")
        await b.delete(lease.run_id)
        for call in (a.get, b.get, a.request, a.result, a.events, a.delete, a.cancel):
            await raises(RunNotFoundError, call(lease.run_id), f"{call} of a deleted run")
        equal(list(await a.find()), [])
        equal(await a.sweep(), 0)


async def runs_whose_time_is_over_are_swept(make_stores: MakeStores) -> None:
    """Those that have ended, and no others; their keys are free then."""
    async with make_stores(2) as (a, b):
        over = [await begun(a, ttl=0.0, idempotency_key="k"), await begun(a, ttl=0.0)]
        running = await begun(a, ttl=0.0)
        for_ever, later = await begun(a), await begun(a, ttl=1e300)
        pending = await a.create(REQUEST, ttl=0.0)
        for lease in (*over, for_ever, later):
            await complete(a, lease, "x")
        equal(await b.sweep(), 2)
        equal(await a.sweep(), 0)
        kept = {running.run_id, for_ever.run_id, later.run_id, pending.run_id}
        equal({status.run_id for status in await a.find()}, kept)
        await raises(RunNotFoundError, a.result(over[0].run_id), "the result of a run that was swept")
        require((await a.create(REQUEST, idempotency_key="k")).run_id != over[0].run_id, "the key is not free")
        await complete(a, running)
        equal(await a.sweep(), 1)


RECORD_CHECKS: tuple[RunStoreCheck, ...] = (
    a_run_that_was_created_is_found_by_everybody,
    what_cannot_be_entered_is_refused,
    the_latest_runs_come_first_and_pages_follow_each_other,
    runs_are_found_by_state_and_by_worker,
    there_is_no_run_by_another_id,
    one_key_is_one_run,
    creators_with_one_key_make_one_run,
    results_come_back_as_they_were,
    large_results_are_kept_or_refused,
    progress_is_written,
    a_store_that_is_opened_again_has_everything,
    a_store_is_closed_by_the_last_who_has_it_open,
    only_a_run_that_has_ended_is_deleted,
    runs_whose_time_is_over_are_swept,
)
