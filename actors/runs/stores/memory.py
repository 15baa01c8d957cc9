"""Runs in the memory of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from heapq import nlargest
from random import Random

from anyio.lowlevel import checkpoint

from actors.runs.stores.ledger import Changes, Entry
from actors.runs.stores.ledger_store import LedgerRunStore


class MemoryLedger:
    """Keeps everything in this process, as long as it lives. Several stores may share it."""

    def __init__(self) -> None:
        self.changes = Changes()
        self._folders: dict[str, dict[str, Entry]] = {}
        self._version = 0

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do: who opens it again finds everything."""

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        """See `Ledger`."""
        await checkpoint()
        return [self._get(key) for key in keys]

    async def put(self, key: str, value: bytes, version: int) -> bool:
        """See `Ledger`."""
        await checkpoint()
        entry = self._get(key)
        if (entry.version if entry is not None else 0) != version:
            return False
        self._version += 1
        self._folders.setdefault(key.rpartition("/")[0], {})[key] = Entry(value, self._version)
        return True

    async def delete(self, keys: Sequence[str], version: int | None = None) -> None:
        """See `Ledger`."""
        await checkpoint()
        for key in keys:
            entry = self._get(key)
            if entry is not None and version in {None, entry.version}:
                name = key.rpartition("/")[0]
                del self._folders[name][key]
                if not self._folders[name]:
                    del self._folders[name]

    async def keys(self, folder: str, before: str = "", limit: int | None = None) -> list[str]:
        """See `Ledger`."""
        await checkpoint()
        found = [key for key in self._folders.get(folder, ()) if not before or key < before]
        return sorted(found, reverse=True) if limit is None else nlargest(limit, found)

    def _get(self, key: str) -> Entry | None:
        return self._folders.get(key.rpartition("/")[0], {}).get(key)


class InMemoryRunStore(LedgerRunStore):
    """Keeps runs as long as this process lives: for tests, and for programs whose runs need not outlive them.

    Args:
        ledger: What it keeps them in; stores that are given the same one have the same runs. None makes a new one.
        clock: Unix time, for people and for the time to live.
        rng: Where ids come from.
    """

    def __init__(
        self,
        ledger: MemoryLedger | None = None,
        *,
        clock: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        super().__init__(ledger or MemoryLedger(), clock=clock, rng=rng)
