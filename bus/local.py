"""The bus for one process."""

from __future__ import annotations

from bus.bus import WorkerBus


class AsyncQueueBus(WorkerBus):
    """A bus that never leaves the process.

    Nothing is lost while the process lives and nothing survives it; nothing is delivered twice. Several runners may
    share one such bus: their workers reach each other by name. For replicas, which share a name, give each runner a bus
    of its own on a common network: `open_bus("memory://fleet")`.
    """
