"""What a database must offer to keep runs: values under keys, replaced only by who knows the present one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import anyio
from anyio.lowlevel import checkpoint


class Entry(NamedTuple):
    """A value, and the version by which it can be replaced."""

    value: bytes
    version: int


class Ledger(Protocol):
    """Keys and values. Keys consist of letters, digits, `-`, `_` and `/`; values of at most what the database takes.

    Every method may raise `RunStoreError`: then a `put` may have happened or not.
    """

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Disconnect. Never raises."""

    async def get(self, key: str) -> Entry | None:
        """The value under a key; None if there is none."""

    async def put(self, key: str, value: bytes, version: int) -> bool:
        """Keep a value, if the key's version is that one; 0 if there must be none. False, and nothing kept, if not."""

    async def delete(self, key: str) -> None:
        """Forget a key, if there is one."""

    async def keys(self, prefix: str) -> Sequence[str]:
        """All keys that start with `prefix`, in order."""

    async def changed(self, run_id: str, seconds: float) -> None:
        """Return when something of a run may have changed, at the latest after `seconds`.

        All keys are `kind/run id`, or start with that and a slash.
        """


class MemoryLedger:
    """Keeps everything in this process, as long as it lives."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._version = 0
        self._waiting = Waiting()

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do: who opens it again finds everything."""

    async def get(self, key: str) -> Entry | None:
        """See `Ledger`."""
        await checkpoint()
        return self._entries.get(key)

    async def put(self, key: str, value: bytes, version: int) -> bool:
        """See `Ledger`."""
        await checkpoint()
        entry = self._entries.get(key)
        if (entry.version if entry is not None else 0) != version:
            return False
        self._version += 1
        self._entries[key] = Entry(value, self._version)
        self._waiting.wake(key)
        return True

    async def delete(self, key: str) -> None:
        """See `Ledger`."""
        await checkpoint()
        self._entries.pop(key, None)
        self._waiting.wake(key)

    async def keys(self, prefix: str) -> list[str]:
        """See `Ledger`."""
        await checkpoint()
        return sorted(key for key in self._entries if key.startswith(prefix))

    async def changed(self, run_id: str, seconds: float) -> None:
        """See `Ledger`."""
        await self._waiting.wait(run_id, seconds)


class Waiting:
    """Who waits in this process for changes of which run."""

    def __init__(self) -> None:
        self._events: dict[str, anyio.Event] = {}

    def wake(self, key: str) -> None:
        """Something under `kind/run id` has changed."""
        event = self._events.pop(key.split("/")[1], None)
        if event is not None:
            event.set()

    async def wait(self, run_id: str, seconds: float) -> None:
        """Return at the next change of a run that this process makes, or after `seconds`."""
        event = self._events.get(run_id)
        if event is None:
            event = self._events[run_id] = anyio.Event()
        with anyio.move_on_after(seconds):
            await event.wait()
