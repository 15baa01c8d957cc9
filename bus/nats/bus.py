"""The bus over NATS."""

from __future__ import annotations

from typing import Any, Unpack

from bus.names import check_name
from bus.network.bus import NetworkOptions, ServerBus

MAX_MESSAGE_BYTES = 2**20 - 512
"""Most bytes of a message by default: what a NATS server takes as it comes (1 MiB), less the headers."""


class NatsBus(ServerBus):
    """A bus over a NATS server with JetStream, 2.9 or newer: see `NetworkBus` for what it does.

    A job, and every message to one runner, is on the server's disk before it counts as sent. It survives the death of
    any process and of the server; not that of the server's machine, whose files are synced every two minutes. A
    server that is killed forgets what it gave out in its last moments: such a job runs again, and `attempt` of all that
    were stored before goes on from a number in the thousands. Works on asyncio only.

    Args:
        url: `nats://host:port` or `tls://host:port`, with `user:password@` or `token@` in front if need be; several
            servers of one cluster with commas between them.
        client: A connected `nats.aio.client.Client` instead, for what a URL does not say. It is not closed.
            There is no second one of it, so the leases of a blocked event loop are not renewed.
        namespace: Buses of different namespaces on one server do not meet.
        ack_wait: Seconds after which a job whose runner has gone silent is given to another. All runners must agree.
        consumer_id: Taken for programs that run on Redis as well. Here all processes share the consumers of the queues.
        options: Those of every `NetworkBus`. The server's `max_payload` must exceed `max_message_bytes` by 512.
    """

    def __init__(
        self,
        url: str = "",
        *,
        client: Any = None,
        namespace: str = "actorbus",
        ack_wait: float = 30.0,
        consumer_id: str | None = None,  # noqa: ARG002 - see its description
        **options: Unpack[NetworkOptions],
    ) -> None:
        from bus.nats.transport import NatsTransport  # noqa: PLC0415 - only who asks for NATS loads it

        if client is None:
            url = url or "nats://127.0.0.1:4222"
        self._server = (url, client)
        self.server_url, self.namespace = (url or None), check_name("namespace", namespace)
        options.setdefault("max_message_bytes", MAX_MESSAGE_BYTES)
        transport = NatsTransport(
            url,
            client=client,
            namespace=self.namespace,
            ack_wait=ack_wait,
            max_frame_bytes=options["max_message_bytes"],
        )
        super().__init__(transport, **options)

    def _exposed(self) -> str:
        from bus.nats.client import exposed  # noqa: PLC0415

        return exposed(*self._server)
