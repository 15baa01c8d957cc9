"""Runs in a folder of RocksDB."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from random import Random
from typing import TYPE_CHECKING, TypeVar

from anyio import CapacityLimiter, to_thread

from actors.runs.errors import RunStoreError
from actors.runs.stores.ledger import Changes, Entry
from actors.runs.stores.ledger_store import LedgerRunStore
from bus.log import log

if TYPE_CHECKING:
    from rocksdict import Rdict


T = TypeVar("T")

_VERSION_BYTES = 8


class RocksDBLedger:
    """A database in a folder, for one process at a time: RocksDB does not share.

    What was accepted survives the death of the process; the last moments before that of the machine it need not.

    Args:
        path: The folder; it is made if there is none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.changes = Changes()
        self._path = os.fspath(path)
        self._database: Rdict | None = None
        self._one_at_a_time: CapacityLimiter | None = None

    async def open(self) -> None:
        """Open the folder."""
        from rocksdict import Options, Rdict  # noqa: PLC0415 - only who uses it loads it

        self._one_at_a_time = CapacityLimiter(1)
        self._database = await self._do(lambda: Rdict(self._path, Options(raw_mode=True)))

    async def close(self) -> None:
        """Close the folder."""
        database, self._database = self._database, None
        if database is not None:
            try:
                await self._do(database.close)
            except RunStoreError as error:
                log().warning("a run store did not close well", error=str(error))

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        """See `Ledger`."""

        def work() -> list[Entry | None]:
            return [_entry(data) for data in self._opened().get([key.encode() for key in keys]) or ()]

        return await self._do(work)

    async def put(self, key: str, value: bytes, version: int) -> bool:
        """See `Ledger`."""

        def work() -> bool:
            database = self._opened()
            entry = _entry(database.get(key.encode()))
            if (entry.version if entry is not None else 0) != version:
                return False
            new = database.latest_sequence_number() + 1  # which never comes back
            database.put(key.encode(), new.to_bytes(_VERSION_BYTES, "big") + value)
            return True

        return await self._do(work)

    async def delete(self, keys: Sequence[str], version: int | None = None) -> None:
        """See `Ledger`."""

        def work() -> None:
            database = self._opened()
            for key in keys:
                entry = _entry(database.get(key.encode()))
                if entry is not None and version in {None, entry.version}:
                    database.delete(key.encode())

        await self._do(work)

    async def keys(self, folder: str, before: str = "", limit: int | None = None) -> list[str]:
        """See `Ledger`."""
        first = f"{folder}/".encode()
        bound = min(before or "~", f"{folder}0").encode()

        def work() -> list[str]:
            found: list[str] = []
            place = self._opened().iter()
            place.seek_for_prev(bound)
            if place.valid() and place.key() == bound:
                place.prev()
            while place.valid() and place.key().startswith(first) and (limit is None or len(found) < limit):
                found.append(place.key().decode())
                place.prev()
            return found

        return await self._do(work)

    def _opened(self) -> Rdict:
        if self._database is None:
            raise RunStoreError(f"the run store {self._path} is not open: use it inside `async with`")
        return self._database

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await to_thread.run_sync(work, limiter=self._one_at_a_time)
        except RunStoreError:
            raise
        except Exception as error:  # the library has no error class of its own
            why = str(error)
            if "lock" in why.lower():
                why = f"it is open already, here or in another process, and RocksDB does not share ({why})"
            raise RunStoreError(f"the run store {self._path} failed: {why}") from error


def _entry(data: bytes | None) -> Entry | None:
    if data is None:
        return None
    return Entry(data[_VERSION_BYTES:], int.from_bytes(data[:_VERSION_BYTES], "big"))


class RocksDBRunStore(LedgerRunStore):
    """Keeps runs in a folder, for one process: `pip install 'actorbus[rocksdb]'`.

    Args:
        path: The folder; it is made if there is none.
        clock: Unix time, for people and for the time to live.
        rng: Where ids come from.

    Raises:
        ImportError: The library is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        if find_spec("rocksdict") is None:
            raise ImportError("a run store in RocksDB needs rocksdict: pip install 'actorbus[rocksdb]'")
        super().__init__(RocksDBLedger(path), clock=clock, rng=rng)
