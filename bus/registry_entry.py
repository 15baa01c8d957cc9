"""The entry of a worker in its runner's list, as it travels."""

from __future__ import annotations

import msgspec


class WorkerRegistryEntry(msgspec.Struct, frozen=True):
    """One worker in a snapshot of a runner.

    Attributes:
        name: The worker's name.
        parent: Name of its parent, None for a root worker.
        active: Whether it takes jobs.
        bridged: Always False for workers without a media pipeline; kept for compatibility.
        started_at: Unix time when it became ready.
        topics: The topics it follows (at most 100).
    """

    name: str
    parent: str | None = None
    active: bool = False
    bridged: bool = False
    started_at: float | None = None
    topics: tuple[str, ...] = ()
