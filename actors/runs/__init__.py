"""Runs: jobs with a record, which outlive who submitted them and who does them."""

from actors.runs.errors import (
    RunConflictError,
    RunError,
    RunFailedError,
    RunLostError,
    RunNotFoundError,
    RunStateError,
    RunStoreError,
    RunValueError,
)
from actors.runs.owner import RunOwner
from actors.runs.run import Lease, RunEvent, RunEventType, RunProgress, RunRequest, RunState, RunStatus, Unreadable
from actors.runs.runs import Run
from actors.runs.store import RunStore
from actors.runs.stores.ledger import Changes, Entry, Ledger
from actors.runs.stores.ledger_store import LedgerRunStore
from actors.runs.stores.memory import InMemoryRunStore, MemoryLedger
from actors.runs.stores.nats import NatsRunStore
from actors.runs.stores.redis import RedisRunStore
from actors.runs.stores.rocksdb import RocksDBRunStore
from actors.runs.stores.sqlite import SQLiteRunStore
from actors.runs.url import open_run_store

__all__ = [
    "Changes",
    "Entry",
    "InMemoryRunStore",
    "Lease",
    "Ledger",
    "LedgerRunStore",
    "MemoryLedger",
    "NatsRunStore",
    "RedisRunStore",
    "RocksDBRunStore",
    "Run",
    "RunConflictError",
    "RunError",
    "RunEvent",
    "RunEventType",
    "RunFailedError",
    "RunLostError",
    "RunNotFoundError",
    "RunOwner",
    "RunProgress",
    "RunRequest",
    "RunState",
    "RunStateError",
    "RunStatus",
    "RunStore",
    "RunStoreError",
    "RunValueError",
    "SQLiteRunStore",
    "Unreadable",
    "open_run_store",
]
