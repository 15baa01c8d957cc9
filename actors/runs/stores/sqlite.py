"""Runs in a file of SQLite."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from actors.runs.errors import RunStoreError
from actors.runs.stores.ledger import Changes, Entry, too_large
from actors.runs.stores.ledger_store import LedgerRunStore
from bus.log import log

T = TypeVar("T")

BUSY = 5.0
"""Seconds that a writer waits for one in another process, before the file counts as locked."""

# A version must not come back after its key was deleted and made anew: so it is drawn.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS actorbus_runs (key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL)
"""
_VERSION = "(random() & 4611686018427387903) + 1"
_INSERT = f"INSERT INTO actorbus_runs VALUES (?1, ?2, {_VERSION}) ON CONFLICT DO NOTHING"  # noqa: S608 - a constant
_UPDATE = f"UPDATE actorbus_runs SET value = ?2, version = {_VERSION} WHERE key = ?1 AND version = ?3"  # noqa: S608
_DELETE = "DELETE FROM actorbus_runs WHERE key = ?1 AND (?2 IS NULL OR version = ?2)"
_KEYS = "SELECT key FROM actorbus_runs WHERE key > ? AND key < ? ORDER BY key DESC LIMIT ?"


class SQLiteLedger:
    """A table in a file. Any number of processes of one machine may use it at a time.

    Args:
        path: The file; it is made if there is none, its folder is not.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.changes = Changes()
        self._path = os.fspath(path)
        self._connection: sqlite3.Connection | None = None
        self._one_at_a_time: CapacityLimiter | None = None

    async def open(self) -> None:
        """Open the file, and make the table in it."""
        self._one_at_a_time = CapacityLimiter(1)
        self._connection = await self._do(self._connect)

    async def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await self._do(connection.close)
            except RunStoreError as error:
                log().warning("a run store did not close well", error=str(error))

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        """See `Ledger`."""
        marks = ",".join("?" * len(keys))
        select = f"SELECT key, value, version FROM actorbus_runs WHERE key IN ({marks})"  # noqa: S608 - only marks

        def work() -> list[Entry | None]:
            found = {key: Entry(value, version) for key, value, version in self._opened().execute(select, keys)}
            return [found.get(key) for key in keys]

        return await self._do(work)

    async def put(self, key: str, value: bytes, version: int) -> bool:
        """See `Ledger`."""

        def work() -> bool:
            connection = self._opened()
            most = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - 1024
            if len(value) > most:
                raise too_large(key, len(value), most, "SQLite")
            if version:
                return connection.execute(_UPDATE, (key, value, version)).rowcount > 0
            return connection.execute(_INSERT, (key, value)).rowcount > 0

        return await self._do(work)

    async def delete(self, keys: Sequence[str], version: int | None = None) -> None:
        """See `Ledger`."""

        def work() -> None:
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(_DELETE, [(key, version) for key in keys])
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

        await self._do(work)

    async def keys(self, folder: str, before: str = "", limit: int | None = None) -> list[str]:
        """See `Ledger`."""
        bounds = (f"{folder}/", min(before or "~", f"{folder}0"), -1 if limit is None else limit)
        return await self._do(lambda: [key for (key,) in self._opened().execute(_KEYS, bounds)])

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # A commit survives the death of every process; that of the machine since the last checkpoint it need not.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RunStoreError(f"the run store {self._path} is not open: use it inside `async with`")
        return self._connection

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await to_thread.run_sync(work, limiter=self._one_at_a_time)
        except sqlite3.Error as error:
            raise RunStoreError(f"the run store {self._path} failed: {error}") from error


class SQLiteRunStore(LedgerRunStore):
    """Keeps runs in a file, for any number of processes of one machine.

    Args:
        path: The file; it is made if there is none, its folder is not. Beside it lie two others while it is used.
        clock: Unix time, for people and for the time to live.
        rng: Where ids come from.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        super().__init__(SQLiteLedger(path), clock=clock, rng=rng)
