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
from actors.runs.handle import Run
from actors.runs.ledger import Changes, Entry, Ledger
from actors.runs.ledger_store import LedgerRunStore
from actors.runs.memory_store import InMemoryRunStore, MemoryLedger
from actors.runs.nats_store import NatsRunStore
from actors.runs.owner import RunOwner
from actors.runs.redis_store import RedisRunStore
from actors.runs.rocksdb_store import RocksDBRunStore
from actors.runs.run import (
    Lease,
    RunEvent,
    RunEventType,
    RunProgress,
    RunRequest,
    RunState,
    RunStatus,
    Unreadable,
)
from actors.runs.sqlite_store import SQLiteRunStore
from actors.runs.store import RunStore
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
