"""The contract of run stores, over every database, on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from actors.runs import (
    InMemoryRunStore,
    MemoryLedger,
    NatsRunStore,
    RedisRunStore,
    RocksDBRunStore,
    RunStore,
    SQLiteRunStore,
)
from actors.runs.contract import RUN_STORE_CONTRACT, MakeStores, RunStoreCheck
from actors.runs.stores.redis import RIGHTS
from bus.brokers import NatsBroker
from tests.contract.networks import NATS_PERMISSIONS, redis_of_a_worker, url_of_a_worker

pytestmark = pytest.mark.anyio

names = (f"test{number}" for number in count())

each_check = pytest.mark.parametrize("check", RUN_STORE_CONTRACT, ids=lambda check: check.__name__)
asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A server, as a user that may do nothing but what is said to be needed."""
    with redis_of_a_worker(rights=RIGHTS) as (url, _):
        yield url


@pytest.fixture
def nats_url() -> Iterator[str]:
    """An empty server, as a user with the rights of docs/nats-permissions.conf."""
    with NatsBroker(NATS_PERMISSIONS) as server:
        yield url_of_a_worker(server)


def opened(make: Callable[[], Callable[[], RunStore]]) -> MakeStores:
    """Stores on a database; `make` makes an empty one, and returns what makes a store on it."""

    @asynccontextmanager
    async def make_stores(many: int) -> AsyncIterator[Sequence[RunStore]]:
        make_store = make()
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(make_store()) for _ in range(many)]

    return make_stores


@each_check
async def test_memory_keeps_the_contract(check: RunStoreCheck) -> None:
    def make() -> Callable[[], RunStore]:
        ledger = MemoryLedger()
        return lambda: InMemoryRunStore(ledger)

    await check(opened(make))


@each_check
async def test_sqlite_keeps_the_contract(check: RunStoreCheck, tmp_path: Path) -> None:
    def make() -> Callable[[], RunStore]:
        path = tmp_path / f"{next(names)}.db"
        return lambda: SQLiteRunStore(path)

    await check(opened(make))


@each_check
async def test_rocksdb_keeps_the_contract(check: RunStoreCheck, tmp_path: Path) -> None:
    def make() -> Callable[[], RunStore]:
        store = RocksDBRunStore(tmp_path / next(names))
        return lambda: store

    await check(opened(make))


@asyncio_only
@each_check
async def test_redis_keeps_the_contract(check: RunStoreCheck, redis_url: str) -> None:
    def make() -> Callable[[], RunStore]:
        namespace = next(names)
        return lambda: RedisRunStore(redis_url, namespace=namespace)

    await check(opened(make))


@asyncio_only
@each_check
async def test_nats_keeps_the_contract(check: RunStoreCheck, nats_url: str) -> None:
    await check(opened(lambda: lambda: NatsRunStore(nats_url)))
