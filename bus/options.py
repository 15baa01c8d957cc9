"""The options of every bus over a network."""

from __future__ import annotations

from random import Random
from typing import Literal, TypedDict, get_args

DeliveryKind = Literal["at_least_once", "at_most_once"]
"""How often a job may run."""

DELIVERIES: tuple[str, ...] = get_args(DeliveryKind)


class NetworkOptions(TypedDict, total=False):
    """The options of every bus over a network; see `NetworkBus`."""

    heartbeat: float
    lease: float | None
    max_deliver: int
    prefetch: int
    max_message_bytes: int
    block_limit: float | None
    signing_key: bytes | tuple[bytes, ...] | None
    delivery: DeliveryKind
    rng: Random | None


def checked(
    heartbeat: float,
    lease: float | None,
    *,
    max_deliver: int,
    prefetch: int,
    delivery: DeliveryKind,
    block_limit: float | None,
) -> float:
    """Refuse what makes no sense, and say how long a lease is.

    Raises:
        ValueError: An option is out of its range.
    """
    if delivery not in DELIVERIES:
        raise ValueError(f"delivery must be 'at_least_once' or 'at_most_once', not {delivery!r}")
    for name, value in (("max_deliver", max_deliver), ("prefetch", prefetch)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value!r}")
    if block_limit is not None and not block_limit > 0:
        raise ValueError(f"block_limit must be above 0 seconds, or None for no limit, not {block_limit!r}")
    lease = 3 * heartbeat if lease is None else lease
    if not 0 < heartbeat < lease:
        raise ValueError(
            f"heartbeat must be above 0 seconds and below the lease: heartbeat={heartbeat!r}, lease={lease!r}"
        )
    return lease
