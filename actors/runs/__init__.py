"""Runs: jobs with a record, which outlive who submitted them and who does them."""

from actors.runs.errors import (
    RunConflictError,
    RunError,
    RunFailedError,
    RunLostError,
    RunNotFoundError,
    RunStateError,
    RunStoreError,
)
from actors.runs.handle import Run
from actors.runs.ledger import Entry, Ledger, MemoryLedger
from actors.runs.ledger_store import LedgerRunStore
from actors.runs.owner import RunOwner
from actors.runs.run import (
    Lease,
    RunEvent,
    RunEventType,
    RunProgress,
    RunRequest,
    RunState,
    RunStatus,
)
from actors.runs.store import RunStore

__all__ = [
    "Entry",
    "Lease",
    "Ledger",
    "LedgerRunStore",
    "MemoryLedger",
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
]
