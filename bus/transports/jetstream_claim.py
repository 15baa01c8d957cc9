"""A job that a node has taken from a queue of a JetStream server, and for how long it is its own. For asyncio."""

from __future__ import annotations

import math

from nats.aio.msg import Msg

UNWRITTEN = 2.0
"""Seconds after which a server has certainly written down what it gave out; it does so about ten times a second."""

ROUNDED = 1.0
"""Seconds that a server which was killed may count too much: it writes down the second in which a lease began."""

RENEWALS = 8
"""Latest leases of a claim that are kept: more than fall into the time of what may be unwritten."""


class Claim:
    """A job that is ours until `until`, on our clock: at the server its lease ends no earlier."""

    __slots__ = ("_leases", "body", "id", "queue", "sent", "subject", "until", "word")

    def __init__(self, queue: str, message: Msg, now: float, until: float) -> None:
        self.queue = queue
        self.subject = message.reply
        self.id = (message.headers or {}).get("Nats-Msg-Id", "")
        self.body = message.data
        self.until = until
        self.word = b""
        self.sent = 0.0
        # Replaced, never changed: while the event loop is blocked another thread renews.
        self._leases: tuple[tuple[float, float], ...] = ((now, until),)

    def renew(self, now: float, until: float) -> None:
        """The server has confirmed a lease until then."""
        self.until = until
        self._leases = (*self._leases, (now, until))[-RENEWALS:]

    def forgotten(self, since: float) -> None:
        """The server may have forgotten what it has confirmed `since` then."""
        self.until = max((until for known, until in self._leases if known <= since), default=-math.inf) - ROUNDED
        self._leases = ((-math.inf, self.until),)

    def __repr__(self) -> str:
        return f"<Claim {self.subject!r}: {self.word.decode() or 'open'}, until {self.until:.3f}>"
