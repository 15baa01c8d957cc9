"""Run store URLs."""

from __future__ import annotations

from actors.runs.ledger import MemoryLedger
from actors.runs.ledger_store import LedgerRunStore
from actors.runs.store import RunStore


def open_run_store(url: str) -> RunStore:
    """Make the run store a URL stands for."""
    if url == "memory://":
        return LedgerRunStore(MemoryLedger())
    raise ValueError(f"no run store for {url!r}")
