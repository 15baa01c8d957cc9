"""Runs on a Redis or Valkey server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

from actors.runs.errors import RunError, RunStoreError
from actors.runs.stores.ledger import Changes, Entry, too_large
from actors.runs.stores.ledger_store import LedgerRunStore
from bus import BusError, TransportError, check_name
from bus.local.tasks import on_asyncio
from bus.names import key_part

if TYPE_CHECKING:
    from bus.redis.client import Command
    from bus.redis.connection import RedisLink


PATIENCE = 5.0
"""Seconds for the reply to one command, connecting included."""

MOST_BYTES = 512 * 2**20 - 1024
"""Bytes of a value: what a server takes as it comes (`proto-max-bulk-len`)."""

RIGHTS = "+info +eval +hget +hmget +hset +incr +del +zadd +zrem +zrevrangebylex"
"""All that a user of the server needs to be allowed, beside the keys of the namespace and the choice of a database:
`ACL SETUSER worker on >password ~actorbus:* +select` and this."""

# KEYS: the entry, its folder, the counter of versions. ARGV: the value, the version to replace, the name in the folder.
_PUT = """
local now = redis.call('HGET', KEYS[1], 'version')
if (now or '0') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'value', ARGV[1], 'version', redis.call('INCR', KEYS[3]))
if not now then redis.call('ZADD', KEYS[2], 0, ARGV[3]) end
return 1
"""
# KEYS: for each entry itself and its folder. ARGV: a version or nothing, then for each entry its name in the folder.
_DELETE = """
for n = 1, #ARGV - 1 do
  local entry = KEYS[2 * n - 1]
  if ARGV[1] == '' or redis.call('HGET', entry, 'version') == ARGV[1] then
    redis.call('DEL', entry)
    redis.call('ZREM', KEYS[2 * n], ARGV[n + 1])
  end
end
"""


class RedisLedger:
    """A hash for each entry, and a sorted set for each folder. Any number of processes may use it; asyncio only.

    Args:
        url: `redis://user:password@host:6379/0`, or `rediss://` for TLS.
        namespace: How all keys begin.

    Raises:
        ValueError: It is not the URL of a Redis server, or the namespace is no name.
    """

    def __init__(self, url: str, namespace: str) -> None:
        from bus.redis.client import connections  # noqa: PLC0415 - only who uses it loads it

        self.changes = Changes()
        self._prefix = f"{key_part(check_name('namespace', namespace))}:runs:"
        self._make, self._where = connections(url, None)
        self._link: RedisLink | None = None

    async def open(self) -> None:
        """Connect, and see that the server is new enough and keeps what it accepts."""
        if not on_asyncio():
            raise RunError("a run store on Redis works on asyncio only: its client library knows nothing else")
        from bus.redis.admin import inspect_server  # noqa: PLC0415
        from bus.redis.connection import RedisLink  # noqa: PLC0415 - see `__init__`

        self._link = link = RedisLink(self._make, self._where)
        try:
            await inspect_server(link)
        except BusError as error:
            await self.close()
            raise (RunStoreError if isinstance(error, TransportError) else RunError)(str(error)) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        """See `Ledger`."""
        found = await self._ask(*(["HMGET", self._prefix + key, "value", "version"] for key in keys))
        return [None if version is None else Entry(value, int(version)) for value, version in found]

    async def put(self, key: str, value: bytes, version: int) -> bool:
        """See `Ledger`."""
        if len(value) > MOST_BYTES:
            raise too_large(key, len(value), MOST_BYTES, "a Redis server")
        folder, _, name = key.rpartition("/")
        names = (self._prefix + key, self._folder(folder), f"{self._prefix}version")
        (done,) = await self._ask(["EVAL", _PUT, 3, *names, value, version, name])
        return bool(done)

    async def delete(self, keys: Sequence[str], version: int | None = None) -> None:
        """See `Ledger`."""
        parts = [key.rpartition("/") for key in keys]
        names = [name for folder, slash, last in parts for name in (self._folder(folder) + last, self._folder(folder))]
        arguments = ["" if version is None else version, *(last for _, _, last in parts)]
        await self._ask(["EVAL", _DELETE, len(names), *names, *arguments])

    async def keys(self, folder: str, before: str = "", limit: int | None = None) -> list[str]:
        """See `Ledger`."""
        bound = f"({before.removeprefix(f'{folder}/')}" if before else "+"
        many = -1 if limit is None else limit
        (names,) = await self._ask(["ZREVRANGEBYLEX", self._folder(folder), bound, "-", "LIMIT", 0, many])
        return [f"{folder}/{name.decode()}" for name in names]

    def _folder(self, folder: str) -> str:
        return f"{self._prefix}{folder}/"

    async def _ask(self, *commands: Command) -> list[Any]:
        if self._link is None:
            raise RunStoreError("the run store on Redis is not open: use it inside `async with`")
        try:
            # All share one connection, which does not outlive an exchange that is cut short.
            with anyio.CancelScope(shield=True):
                replies = await self._link.exchange(commands, patience=PATIENCE)
        except TransportError as error:
            raise RunStoreError(str(error)) from error
        for reply in replies:
            if isinstance(reply, Exception):
                if str(reply).startswith("READONLY"):  # it has become a replica: another has its place
                    await self._link.drop()
                raise RunStoreError(f"the Redis server refused: {reply}") from reply
        return replies


class RedisRunStore(LedgerRunStore):
    """Keeps runs on a Redis server from 7.0, or a Valkey server, for any number of processes; asyncio only.

    What was accepted survives whatever the server survives (`appendonly yes`). One server at a time, no cluster.

    Args:
        url: `redis://user:password@host:6379/0`, or `rediss://` for TLS.
        namespace: How all keys begin; stores of different namespaces do not see each other.
        clock: Unix time, for people and for the time to live.
        rng: Where ids come from.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        *,
        namespace: str = "actorbus",
        clock: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        super().__init__(RedisLedger(url, namespace), clock=clock, rng=rng)
