"""What goes wrong on a simulated network."""

from __future__ import annotations

import msgspec


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong, how often and within which bounds. Without arguments nothing does.

    Attributes:
        drop: Probability that an operation's request, or its reply (half and half), is lost: the caller gets a
            `TransportError` after `timeout`, and the operation had no effect, or had it. Claims in a lost reply last
            until their leases end; frames of the inbox come again. Also the probability that a frame of `everyone`
            is lost on its way to one node, without an error, and that all frames of one `tell` are.
        duplicate: Probability that a frame of the lanes `inbox` and `everyone` is delivered twice.
        reorder: Probability that a frame is held back while later ones pass it.
        delay: Shortest and longest time an operation takes, and a frame on its way to its node, in seconds.
        timeout: Seconds after which a link tells its caller that there was no reply.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: tuple[float, float] = (0.0, 0.0)
    timeout: float = 2.0

    def __post_init__(self) -> None:
        for name in ("drop", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability from 0 to 1, not {getattr(self, name)!r}")
        if not 0 <= self.delay[0] <= self.delay[1]:
            raise ValueError(f"delay must be a shortest and a longest time in seconds, not {self.delay!r}")
        if self.timeout <= 0:
            raise ValueError(f"timeout must be above 0 seconds, not {self.timeout!r}")
