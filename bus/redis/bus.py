"""The bus over a Redis or Valkey server."""

from __future__ import annotations

from typing import Unpack

from bus.network.bus import NetworkOptions, ServerBus
from bus.redis.client import RedisClient, exposed
from bus.redis.transport import RedisTransport


class RedisBus(ServerBus):
    """A bus whose processes meet at a Redis server from 7.0, or a Valkey server; under asyncio only.

    A job that the server has accepted is done once or reported as failed, whoever dies meanwhile, as long as the
    server keeps what it accepts (`appendonly yes`; a warning says if it does not). One server at a time: a failover to
    a replica is a reconnect, and what the replica had not yet got is lost with the old server. Clusters are not used.

    Args:
        url: `redis://user:password@host:6379/0`, or `rediss://` for TLS.
        redis: Instead of a URL, a client of `redis.asyncio` to connect as.
        namespace: How all keys begin; networks of different namespaces do not see each other.
        channel: A namespace that is a session too: `end()` and `cancel()` of a worker reach every runner whose bus
            names the same channel, unless that runner has a session of its own.
        ack_wait: Seconds after which a job of this process goes to another, if its claim has not been renewed.
        consumer_id: A name of this process that stays the same over restarts, so that a new life of it goes on with
            the jobs of the last at once. No two living processes may share it.
        name: It means nothing, and is taken because buses of Pipecat have it; `task_manager` likewise.
        task_manager: It means nothing.
        options: Those of every `NetworkBus`.

    Raises:
        ValueError: Not exactly one of `url` and `redis`, both of `namespace` and `channel`, or an option that is not
            understood.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        redis: RedisClient | None = None,
        namespace: str | None = None,
        channel: str | None = None,
        ack_wait: float = 30.0,
        consumer_id: str | None = None,
        name: str | None = None,  # noqa: ARG002 - see `WorkerBus`
        task_manager: object = None,  # noqa: ARG002
        **options: Unpack[NetworkOptions],
    ) -> None:
        if namespace is not None and channel is not None:
            raise ValueError(f"give namespace={namespace!r} or channel={channel!r}, not both")
        namespace = namespace or channel or "actorbus"
        super().__init__(
            RedisTransport(url, redis=redis, namespace=namespace, ack_wait=ack_wait, consumer_id=consumer_id),
            **options,
        )
        self._server = (url, redis)
        self.server_url, self.namespace = url, namespace
        self.session = channel

    def _exposed(self) -> str:
        return exposed(*self._server)
