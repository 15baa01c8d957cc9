"""What a database must offer to keep runs: values under keys, replaced only by who knows the present one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

import anyio

from bus import EncodeError

MOST_KEYS = 256
"""Keys that are read or deleted in one call, at most."""


class Entry(NamedTuple):
    """A value, and the version by which it can be replaced: 1 or more, and another after each change of its key."""

    value: bytes
    version: int


class Ledger(Protocol):
    """Keys and values. A key is `folder/name`, or `folder/folder/name`, of letters, digits, `-` and `_`.

    Every method may raise `RunStoreError`: then what was to be changed may have been changed or not.

    Attributes:
        changes: Who waits in this process for news. A ledger only has it; the store gives the news.
    """

    changes: Changes

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Disconnect. Never raises."""

    async def read(self, keys: Sequence[str]) -> Sequence[Entry | None]:
        """What lies under each of at most `MOST_KEYS` keys; None where nothing does."""

    async def put(self, key: str, value: bytes, version: int) -> bool:
        """Keep a value, if the key's version is that one; 0 if there must be none. False, and nothing kept, if not.

        Raises:
            EncodeError: The value is too large for the database. Nothing is kept.
        """

    async def delete(self, keys: Sequence[str], version: int | None = None) -> None:
        """Forget at most `MOST_KEYS` keys, if they are there; with a version, only where the key still has it."""

    async def keys(self, folder: str, before: str = "", limit: int | None = None) -> Sequence[str]:
        """The keys in a folder, last first.

        Args:
            folder: A folder that has no folders inside.
            before: Only keys that sort before this one.
            limit: How many at most.
        """


class Changes:
    """Who waits in this process for changes of which run."""

    def __init__(self) -> None:
        self._events: WeakValueDictionary[str, anyio.Event] = WeakValueDictionary()

    def next(self, run_id: str) -> anyio.Event:
        """What is set at the next change of a run. Take it before you look: so no change falls between."""
        event = self._events.get(run_id)
        if event is None:
            event = self._events[run_id] = anyio.Event()
        return event

    def note(self, run_id: str) -> None:
        """A run has changed."""
        event = self._events.pop(run_id, None)
        if event is not None:
            event.set()


def too_large(key: str, size: int, most: int, where: str) -> EncodeError:
    """The error for a value that a database does not take."""
    reason = f"it has {size} bytes, and {where} keeps at most {most}: keep it elsewhere, and where it is here"
    return EncodeError(key.partition("/")[0], reason)
