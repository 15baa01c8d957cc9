"""Ledgers that interrupt: a store is tested at each of its steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from actors.runs import Entry, MemoryLedger, RunStoreError


class Interrupted(MemoryLedger):
    """Calls `interrupt` before its operation number `at`, or after it. Shares the entries of another, if given."""

    def __init__(self, entries: MemoryLedger | None = None) -> None:
        super().__init__()
        if entries is not None:
            self._folders = entries._folders
            self.changes = entries.changes
        self.at = -1
        self.times = 1
        self.after = False
        self.operations = 0
        self.interrupt: Callable[[], Awaitable[object]] = fail

    @property
    def happened(self) -> bool:
        return 0 <= self.at < self.operations

    def arm(self, at: int, interrupt: Callable[[], Awaitable[object]], *, after: bool = False, times: int = 1) -> None:
        self.at, self.interrupt, self.after, self.times, self.operations = at, interrupt, after, times, 0

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        await self._step(after=False)
        entries = await super().read(keys)
        await self._step(after=True)
        return entries

    async def put(self, key: str, value: bytes, version: int) -> bool:
        await self._step(after=False)
        done = await super().put(key, value, version)
        await self._step(after=True)
        return done

    async def delete(self, keys: Sequence[str], version: int | None = None) -> None:
        await self._step(after=False)
        await super().delete(keys, version)
        await self._step(after=True)

    async def keys(self, folder: str, before: str = "", limit: int | None = None) -> list[str]:
        await self._step(after=False)
        keys = await super().keys(folder, before, limit)
        await self._step(after=True)
        return keys

    async def _step(self, *, after: bool) -> None:
        if after is not self.after:
            return
        number, self.operations = self.operations, self.operations + 1
        if 0 <= number - self.at < self.times and self.at >= 0:
            await self.interrupt()


async def fail() -> None:
    raise RunStoreError("the store is away")
