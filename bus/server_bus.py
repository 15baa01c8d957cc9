"""What the buses over a server have in common: where it is, and how that is called which they keep there."""

from __future__ import annotations

from bus.network import NetworkBus


class ServerBus(NetworkBus):
    """A bus whose processes meet at a server.

    Attributes:
        server_url: How the server is reached, password included: not to be shown. None if the bus was given a client.
        namespace: How all that it keeps there begins; what else is kept there for the same program begins alike.
    """

    server_url: str | None
    namespace: str
