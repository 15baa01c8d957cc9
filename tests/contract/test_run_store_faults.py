"""Run stores whose database fails: full, locked, broken, away, or in use."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from actors.runs import (
    Lease,
    NatsRunStore,
    RedisRunStore,
    RocksDBRunStore,
    RunError,
    RunEventType,
    RunRequest,
    RunState,
    RunStore,
    RunStoreError,
    SQLiteRunStore,
    open_run_store,
)
from actors.runs.stores import sqlite as sqlite_store
from actors.runs.stores.sqlite import SQLiteLedger
from bus import EncodeError
from bus.brokers import Broker, NatsBroker, RedisBroker
from tests.support.environment import environment

pytestmark = pytest.mark.anyio

REQUEST = RunRequest(worker_names=("a",), payload={"n": 1})
asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])


async def begun(store: RunStore) -> Lease:
    status = await store.create(REQUEST)
    (lease,) = [lease for lease in await store.leases() if lease.run_id == status.run_id]
    taken = await store.take(lease, "owner")
    assert taken is not None
    return taken


def connection_of(store: SQLiteRunStore) -> sqlite3.Connection:
    ledger = store._ledger
    assert isinstance(ledger, SQLiteLedger)
    assert ledger._connection is not None
    return ledger._connection


async def test_a_full_disk_is_said_and_what_was_accepted_is_kept(tmp_path: Path) -> None:
    async with SQLiteRunStore(tmp_path / "runs.db") as store:
        lease = await begun(store)
        connection = connection_of(store)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 20}")
        accepted: list[object] = []

        async def push_for_ever() -> None:
            for n in count():
                data = [n, "x" * 1000]
                await store.push_event(lease, RunEventType.UPDATE, "a", data)
                accepted.append(data)

        async def create_for_ever() -> None:
            while True:
                await store.create(REQUEST)

        with pytest.raises(RunStoreError, match="full"):
            await push_for_ever()
        assert accepted
        with pytest.raises(RunStoreError, match="full"):
            await store.set_result(lease, "x" * 100_000)
        with pytest.raises(RunStoreError, match="full"):
            await create_for_ever()
        assert (await store.get(lease.run_id)).state is RunState.RUNNING
        assert [event.data for event in await store.events(lease.run_id)] == accepted
        connection.execute("PRAGMA max_page_count = 1000000")
        await store.push_event(lease, RunEventType.UPDATE, "a", "room again")
        await store.set_result(lease, "result")
        assert await store.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
        heard = [event.data async for event in store.stream(lease.run_id)]
        assert heard[:-1] == [*accepted, "room again"]
    async with SQLiteRunStore(tmp_path / "runs.db") as store:
        assert await store.result(lease.run_id) == "result"


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(b"these are my notes, not a database" * 100)
    with pytest.raises(RunStoreError, match=r"runs\.db failed: file is not a database"):
        await SQLiteRunStore(path).__aenter__()
    assert path.read_bytes() == b"these are my notes, not a database" * 100


async def test_a_file_that_breaks_under_the_store_is_an_error_each_time(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteRunStore(path) as store:
        lease = await begun(store)
        for _ in range(50):
            await store.push_event(lease, RunEventType.UPDATE, "a", "x" * 1000)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    async with SQLiteRunStore(path) as store:
        for _ in range(2):
            with pytest.raises(RunStoreError, match="malformed"):
                await store.events(lease.run_id)
            with pytest.raises(RunStoreError, match="malformed"):
                await store.create(REQUEST)


async def test_a_record_that_is_none_is_said(tmp_path: Path) -> None:
    async with SQLiteRunStore(tmp_path / "runs.db") as store:
        lease = await begun(store)
        connection_of(store).execute("UPDATE actorbus_runs SET value = x'c1' WHERE key LIKE 'run/%'")
        with pytest.raises(RunStoreError, match=f"the record of run {lease.run_id} is broken"):
            await store.get(lease.run_id)
        other = await store.create(REQUEST)
        assert [each.run_id for each in await store.leases()] == [other.run_id]
        assert [each.run_id for each in await store.find()] == [other.run_id]


@pytest.mark.parametrize("path", ["missing/runs.db", "."])
async def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(RunStoreError, match="unable to open"):
        await SQLiteRunStore(tmp_path / path).__aenter__()


async def test_a_locked_file_is_said_in_time_and_then_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "BUSY", 0.1)
    path = tmp_path / "runs.db"
    async with SQLiteRunStore(path) as store:
        lease = await begun(store)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunStoreError, match="locked"):
            await store.renew(lease)
        assert (await store.get(lease.run_id)).state is RunState.RUNNING  # readers do not wait for writers
        other.execute("ROLLBACK")
        other.close()
        await store.renew(lease)


WRITER = """
import sys
import anyio
from actors.runs import Lease, RunEventType, SQLiteRunStore

async def main(path, run_id, many):
    async with SQLiteRunStore(path) as store:
        (lease,) = [lease for lease in await store.leases() if lease.run_id == run_id]
        for n in range(many):
            await store.push_event(lease, RunEventType.UPDATE, "other", n)
            await store.renew(lease)

anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


async def test_two_processes_write_one_file_at_a_time(tmp_path: Path) -> None:
    many, path = 100, tmp_path / "runs.db"
    async with SQLiteRunStore(path) as store:
        lease = await begun(store)
        command = [sys.executable, "-c", WRITER, str(path), lease.run_id, str(many)]
        async with await anyio.open_process(command, stdout=subprocess.DEVNULL, env=environment()) as process:
            for n in range(many):
                await store.push_event(lease, RunEventType.UPDATE, "this", n)
                await store.renew(lease)
            assert await process.wait() == 0
        await store.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
        heard = [event async for event in store.stream(lease.run_id)]
    assert [event.offset for event in heard] == list(range(2 * many + 1))
    for name in ("this", "other"):
        assert [event.data for event in heard if event.worker_name == name] == list(range(many))


KILLED = """
import sys
import anyio
from actors.runs import RunEventType, open_run_store

async def main(url, run_id):
    async with open_run_store(url) as store:
        (lease,) = [lease for lease in await store.leases() if lease.run_id == run_id]
        while True:
            print(await store.push_event(lease, RunEventType.UPDATE, "a", "x" * 1000), flush=True)

anyio.run(main, *sys.argv[1:])
"""


@pytest.mark.parametrize("scheme", ["sqlite", "rocksdb"])
async def test_what_was_accepted_survives_a_process_that_is_killed(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}:///{tmp_path}/runs"
    async with open_run_store(url) as store:
        lease = await begun(store)
    accepted = -1
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, url, lease.run_id]
        async with await anyio.open_process(command, env=environment()) as process:
            assert process.stdout is not None
            lines = BufferedByteReceiveStream(process.stdout)
            for _ in range(50):
                accepted = int(await lines.receive_until(b"\n", 100))
            process.kill()
        async with open_run_store(url) as store:
            offsets = [event.offset for event in await store.events(lease.run_id, limit=10_000)]
        assert offsets == list(range(len(offsets)))
        assert len(offsets) > accepted


async def test_what_sqlite_does_not_take_is_an_error_of_who_sends_it(tmp_path: Path) -> None:
    async with SQLiteRunStore(tmp_path / "runs.db") as store:
        lease = await begun(store)
        connection_of(store).setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        with pytest.raises(EncodeError, match=r"result cannot travel: it has 2000\d\d bytes, and SQLite keeps at most"):
            await store.set_result(lease, b"x" * 200_000)
        await store.renew(lease)


async def test_a_folder_of_rocksdb_is_opened_once(tmp_path: Path) -> None:
    async with RocksDBRunStore(tmp_path / "runs") as store:
        lease = await begun(store)
        with pytest.raises(RunStoreError, match="open already, here or in another process"):
            await RocksDBRunStore(tmp_path / "runs").__aenter__()
        await store.renew(lease)
    async with RocksDBRunStore(tmp_path / "runs") as store:
        await store.renew(lease)


async def test_a_store_that_was_never_opened_says_so(tmp_path: Path) -> None:
    for store in (SQLiteRunStore(tmp_path / "runs.db"), RocksDBRunStore(tmp_path / "runs")):
        with pytest.raises(RunStoreError, match="is not open: use it inside `async with`"):
            await store.find()


SERVED: dict[type[Broker], Callable[[str], RunStore]] = {RedisBroker: RedisRunStore, NatsBroker: NatsRunStore}


@asyncio_only
async def test_a_server_that_is_killed_keeps_what_it_accepted_and_the_store_goes_on(each_broker: Broker) -> None:
    async with SERVED[type(each_broker)](each_broker.url) as store:
        lease = await begun(store)
        heard: list[object] = []
        accepted: list[object] = []

        async def read() -> None:
            """As a client does: on an error from the last offset that came."""
            after = -1
            while True:
                try:
                    async for event in store.stream(lease.run_id, after):
                        after = event.offset
                        heard.append(event.data)
                    return  # noqa: TRY300 - it has ended
                except RunStoreError:
                    await anyio.lowlevel.checkpoint()

        async def push(data: object) -> None:
            while True:
                try:
                    await store.push_event(lease, RunEventType.UPDATE, "a", data)
                    return accepted.append(data)
                except RunStoreError:
                    await anyio.lowlevel.checkpoint()

        with anyio.fail_after(100):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                for round_ in range(3):
                    for n in range(20):
                        await push([round_, n])
                    each_broker.kill()
                    with pytest.raises(RunStoreError):
                        await store.get(lease.run_id)
                    with pytest.raises(RunStoreError):
                        await store.create(REQUEST)
                    tasks.start_soon(push, [round_, "pushed while it was away"])
                    each_broker.start()
                    while len(accepted) < 21 * (round_ + 1):
                        await anyio.lowlevel.checkpoint()
                await store.set_result(lease, "result")
                assert await store.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
        each_broker.restart()
        assert heard[:-1] == accepted
        assert await again(lambda: store.result(lease.run_id)) == "result"


async def again(operation: Callable[[], object]) -> object:
    while True:
        try:
            return await operation()  # type: ignore[misc]
        except RunStoreError:
            await anyio.lowlevel.checkpoint()


@asyncio_only
async def test_a_server_that_comes_back_empty_is_used_again(each_broker: Broker) -> None:
    async with SERVED[type(each_broker)](each_broker.url) as store:
        lease = await begun(store)
        each_broker.kill()
        each_broker.wipe()
        each_broker.start()
        with anyio.fail_after(60):
            while True:
                try:
                    assert await store.leases() == []
                    break
                except RunStoreError:
                    await anyio.lowlevel.checkpoint()
            with pytest.raises(RunError, match=lease.run_id):
                await store.get(lease.run_id)
            again = await begun(store)
            await store.push_event(again, RunEventType.UPDATE, "a", 1)


@asyncio_only
async def test_a_server_that_stands_still_is_said_in_time_and_what_is_done_again_counts_once(
    each_broker: Broker,
) -> None:
    async with SERVED[type(each_broker)](each_broker.url) as store:
        lease = await begun(store)
        accepted = 0

        async def push_on() -> None:
            nonlocal accepted
            while True:  # it may not stand still at once
                await store.push_event(lease, RunEventType.UPDATE, "a", accepted)
                accepted += 1

        os.kill(each_broker.pid, signal.SIGSTOP)
        try:
            with anyio.fail_after(60), pytest.raises(RunStoreError):
                await push_on()
        finally:
            os.kill(each_broker.pid, signal.SIGCONT)
        with anyio.fail_after(60):
            await again(lambda: store.push_event(lease, RunEventType.UPDATE, "a", accepted))
            await again(lambda: store.push_event(lease, RunEventType.UPDATE, "a", accepted + 1))
            events = await store.events(lease.run_id)
        assert [event.data for event in events] == list(range(accepted + 2))


@asyncio_only
async def test_no_server_is_said_at_once(each_broker: Broker) -> None:
    each_broker.kill()
    with pytest.raises(RunStoreError, match=str(each_broker.port)):
        await SERVED[type(each_broker)](each_broker.url).__aenter__()


@asyncio_only
async def test_a_redis_server_without_memory_refuses_and_goes_on() -> None:
    with RedisBroker("maxmemory 6mb\nmaxmemory-policy noeviction") as broker:
        async with RedisRunStore(broker.url) as store:
            lease = await begun(store)

            async def push_for_ever() -> None:
                while True:
                    await store.push_event(lease, RunEventType.UPDATE, "a", b"x" * 2**20)

            with pytest.raises(RunStoreError, match="OOM"):
                await push_for_ever()
            assert (await store.get(lease.run_id)).state is RunState.RUNNING
            assert await store.events(lease.run_id)


@asyncio_only
async def test_what_a_nats_server_does_not_take_is_an_error_of_who_sends_it(nats_broker: NatsBroker) -> None:
    async with NatsRunStore(nats_broker.url) as store:
        lease = await begun(store)
        with pytest.raises(EncodeError, match=r"result cannot travel: it has 2000\d+ bytes, and this NATS server"):
            await store.set_result(lease, b"x" * 2_000_000)
        with pytest.raises(EncodeError, match="event cannot travel"):
            await store.push_event(lease, RunEventType.UPDATE, "a", b"x" * 2_000_000)
        await store.renew(lease)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_servers_are_for_asyncio() -> None:
    for url in ("redis://127.0.0.1:1", "nats://127.0.0.1:1"):
        with pytest.raises(RunError, match="works on asyncio only"):
            await open_run_store(url).__aenter__()
