"""The events of runs: each reader hears all of them, in order, once."""

from __future__ import annotations

from functools import partial

import anyio

from actors.runs.contract.stored import (
    REQUEST,
    MakeStores,
    RunStoreCheck,
    begun,
    complete,
    heard,
    raises,
    say,
    taken,
    together,
)
from actors.runs.errors import RunStoreError
from actors.runs.run import Lease, RunEventType, RunState
from actors.runs.store import RunStore
from bus.testing import equal, require


async def a_reader_hears_what_there_is_and_what_comes(make_stores: MakeStores) -> None:
    """No event is missing, none comes twice, the terminal one comes last, in every process."""
    async with make_stores(2) as (a, b):
        lease = await begun(a)
        equal(await say(a, lease, *range(10)), list(range(10)))
        heard_first = anyio.Event()

        async def read(store: RunStore) -> list[object]:
            events: list[object] = []
            async for event in store.stream(lease.run_id):
                events.append((event.offset, event.type, event.worker_name, event.data, event.attempt))
                if event.offset == 0:
                    heard_first.set()
            return events

        async def write() -> None:
            await heard_first.wait()
            await say(a, lease, *range(10, 30))
            await complete(a, lease)

        *results, _ = await together(*(partial(read, store) for store in (a, b, a, b)), write)
        expected = [(n, RunEventType.UPDATE, "a", n, 1) for n in range(30)]
        last = (30, RunEventType.GROUP_COMPLETED, None, {"state": "completed", "error": None}, 1)
        for events in results:
            equal(events, [*expected, last])


async def a_reader_goes_on_from_any_offset(make_stores: MakeStores) -> None:
    """As if it had never been away; from the last there is nothing more to hear."""
    async with make_stores(2) as (a, b):
        lease = await begun(a)
        await say(a, lease, *range(8))
        await complete(a, lease)
        events = await heard(a, lease.run_id)
        equal([event.offset for event in events], list(range(9)))
        for after in range(-1, 9):
            for store in (a, b):
                equal(await heard(store, lease.run_id, after), events[after + 1 :])
                equal(list(await store.events(lease.run_id, after)), events[after + 1 :])
        equal(list(await b.events(lease.run_id, 2, 3)), events[3:6])
        for after in (9, 10**10, 10**30):
            equal((await heard(a, lease.run_id, after), list(await a.events(lease.run_id, after))), ([], []))
        equal(await heard(a, lease.run_id, -(10**30)), events)
        for limit in (0, -1):
            await raises(ValueError, a.events(lease.run_id, -1, limit), f"a limit of {limit}")


async def an_absurd_offset_disturbs_no_other_reader(make_stores: MakeStores) -> None:
    """Who asks for it waits for the end; all others hear everything."""
    async with make_stores(1) as (a,):
        lease = await begun(a)
        await say(a, lease, *range(3))
        absurd, usual = anyio.Event(), anyio.Event()

        async def read_nothing() -> list[object]:
            stream = a.stream(lease.run_id, 10**9)
            absurd.set()
            return [event async for event in stream]

        async def read() -> list[int]:
            await absurd.wait()
            offsets = []
            async for event in a.stream(lease.run_id):
                offsets.append(event.offset)
                usual.set()
            return offsets

        async def write() -> None:
            await usual.wait()
            await say(a, lease, 3)
            await complete(a, lease)

        nothing, offsets, _ = await together(read_nothing, read, write)
        equal((nothing, offsets), ([], [0, 1, 2, 3, 4]))


async def events_of_several_tasks_have_offsets_of_their_own(make_stores: MakeStores) -> None:
    """One after the other, whichever task or process of the owner was first."""
    async with make_stores(2) as stores:
        lease = await begun(stores[0])
        offsets = await together(*(partial(say, stores[n % 2], lease, *[n] * 5) for n in range(6)))
        equal(sorted(offset for own in offsets for offset in own), list(range(30)))
        await complete(stores[1], lease)
        events = await heard(stores[0], lease.run_id)
        equal([event.offset for event in events], list(range(31)))
        for n, own in enumerate(offsets):
            equal(own, sorted(own))
            equal([events[offset].data for offset in own], [n] * 5)


async def many_events_are_heard_in_order(make_stores: MakeStores) -> None:
    """More than any page."""
    async with make_stores(2) as (a, b):
        lease = await begun(a)
        await say(a, lease, *range(600))
        events = await b.events(lease.run_id, limit=10_000)
        equal([event.data for event in events], list(range(600)))
        equal([event.offset for event in await b.events(lease.run_id, 99, 500)], list(range(100, 600)))
        await complete(a, lease)
        equal([event.offset for event in await heard(b, lease.run_id)], list(range(601)))
        await b.delete(lease.run_id)


async def events_go_on_with_the_next_attempt(make_stores: MakeStores) -> None:
    """In one row: those of an earlier attempt stay, and say whose they are; a stale owner adds none."""
    async with make_stores(2) as (a, b):
        status = await a.create(REQUEST)
        first = await taken(a, status)
        await say(a, first, "a", "b")
        second = await taken(b, status)
        await say(b, second, "c")
        await say_stale(a, first)
        await say(b, second, "d")
        await complete(b, second)
        for store in (a, b):
            events = await heard(store, status.run_id)
            equal([event.data for event in events][:-1], ["a", "b", "c", "d"])
            equal([event.attempt for event in events], [1, 1, 2, 2, 2])
            equal([event.type.terminal for event in events], [False] * 4 + [True])


async def say_stale(store: RunStore, lease: Lease) -> None:
    """Try to add an event, and do not care."""
    try:
        await say(store, lease, "stale")
    except Exception:  # noqa: BLE001 - another check says what it must be
        return
    raise AssertionError("an owner that had lost its run added an event")


async def every_end_has_one_terminal_event(make_stores: MakeStores) -> None:
    """Which says how the run ended, and which nobody adds by hand."""
    async with make_stores(2) as (a, b):
        ends = {
            RunState.COMPLETED: RunEventType.GROUP_COMPLETED,
            RunState.FAILED: RunEventType.GROUP_COMPLETED,
            RunState.CANCELLED: RunEventType.RUN_CANCELLED,
        }
        for state, kind in ends.items():
            lease = await begun(a)
            for terminal in (RunEventType.GROUP_COMPLETED, RunEventType.RUN_CANCELLED):
                await raises(ValueError, a.push_event(lease, terminal), f"pushing {terminal.value}")
            await a.set_state(lease.run_id, RunState.RUNNING, state, lease=lease)
            for store in (a, b):
                (event,) = await heard(store, lease.run_id)
                equal((event.offset, event.type, event.data["state"]), (0, kind, state.value))


async def many_readers_hear_the_same(make_stores: MakeStores) -> None:
    """Also those that come late, and although others leave."""
    async with make_stores(1) as (a,):
        lease = await begun(a)
        await say(a, lease, *range(3))

        async def write() -> None:
            await say(a, lease, *range(3, 20))
            await complete(a, lease)

        leaving = [partial(heard, a, lease.run_id, n % 3, 1 + n) for n in range(10)]
        staying = [partial(heard, a, lease.run_id, n % 5 - 1) for n in range(100)]
        results = await together(*leaving, *staying, write)
        for n, events in enumerate(results[:10]):
            equal([event.offset for event in events], list(range(n % 3 + 1, n % 3 + 2 + n)))
        for n, events in enumerate(results[10:-1]):
            equal([event.offset for event in events], list(range(n % 5, 21)))


async def a_reader_may_leave_at_any_time_and_come_back(make_stores: MakeStores) -> None:
    """Also in the middle of its waiting: the same stream goes on with the next event."""
    async with make_stores(1) as (a,):
        lease = await begun(a)
        await say(a, lease, *range(3))
        stream = a.stream(lease.run_id)
        heard = [(await anext(stream)).offset for _ in range(3)]
        for number in range(3, 6):
            waiting = anyio.CancelScope()

            async def wait(waiting: anyio.CancelScope = waiting) -> None:
                with waiting:
                    heard.append((await anext(stream)).offset)

            async def leave(waiting: anyio.CancelScope = waiting) -> None:
                await anyio.wait_all_tasks_blocked()
                waiting.cancel()

            await together(wait, leave)
            await say(a, lease, number)
        await complete(a, lease)
        equal(heard + [event.offset async for event in stream], list(range(7)))
        equal([event async for event in stream], [])


async def a_stream_ends_when_its_store_is_closed(make_stores: MakeStores) -> None:
    """With an error: there would be more to hear."""
    async with make_stores(1) as (a,):
        lease = await begun(a)
        await say(a, lease, 1)
        waits = anyio.Event()
        ended = []

        async def read() -> None:
            try:
                async for _ in a.stream(lease.run_id):
                    waits.set()
            except RunStoreError:
                ended.append(True)

        async def close() -> None:
            await waits.wait()
            await a.__aexit__(None, None, None)

        await together(read, read, close)
        require(ended == [True, True], "a stream of a closed store did not end with an error")
        await a.__aenter__()
        await complete(a, lease)
        equal(len(await heard(a, lease.run_id)), 2)


STREAM_CHECKS: tuple[RunStoreCheck, ...] = (
    a_reader_hears_what_there_is_and_what_comes,
    a_reader_goes_on_from_any_offset,
    an_absurd_offset_disturbs_no_other_reader,
    events_of_several_tasks_have_offsets_of_their_own,
    many_events_are_heard_in_order,
    events_go_on_with_the_next_attempt,
    every_end_has_one_terminal_event,
    many_readers_hear_the_same,
    a_reader_may_leave_at_any_time_and_come_back,
    a_stream_ends_when_its_store_is_closed,
)
