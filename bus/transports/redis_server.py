"""What kind of Redis server this is, and whether it keeps what it accepts."""

from __future__ import annotations

from redis.exceptions import ResponseError

from bus.errors import BusError
from bus.events import log
from bus.transports.redis_link import RedisLink

OLDEST = 7
"""The first major version of Redis that the scripts run on; Valkey calls itself 7.2 and newer."""

RIGHTS = (
    "+info +script|load +evalsha +xadd +xreadgroup +xack +xdel +xclaim +xpending +xrange "
    "+xgroup|create +xgroup|createconsumer +xgroup|delconsumer +xinfo|consumers +exists +set +get +del +pexpire "
    "+sadd +srem +smembers +srandmember +zadd +zrem +zremrangebyscore +zrange +zscore +time"
)
"""All that a user of the server needs to be allowed, beside the keys of the namespace and the choice of a database:
`ACL SETUSER worker on >password ~actorbus:* +select` and this."""


async def inspect_server(link: RedisLink, label: str) -> None:
    """Refuse a server that is too old, and warn of settings under which accepted jobs can vanish.

    Raises:
        TransportError: The server cannot be reached.
        BusError: It is too old.
    """
    (reply,) = await link.exchange([("INFO",)])
    if isinstance(reply, ResponseError):
        log().warning("the server does not let us see its settings: allow +info to have them checked", server=label)
        return
    told = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
    version = told.get("redis_version", "")
    if version.partition(".")[0].isdigit() and int(version.partition(".")[0]) < OLDEST:
        raise BusError(f"{label} is version {version}: Redis {OLDEST}.0 or newer is needed, or any Valkey")
    if told.get("aof_enabled") == "0":
        log().warning(
            "the server does not write down what it accepts: a crash of it loses queued jobs. "
            "Set appendonly yes, and appendfsync everysec or always",
            server=label,
        )
    policy = told.get("maxmemory_policy", "noeviction")
    if told.get("maxmemory", "0") != "0" and policy != "noeviction":
        log().warning(
            "the server may evict queued jobs when its memory is full. Set maxmemory-policy noeviction",
            server=label,
            maxmemory_policy=policy,
        )
