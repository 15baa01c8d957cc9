"""Which queues a node on a Redis server waits for by reading them, and which by being told."""

from __future__ import annotations

from collections import OrderedDict

HOT = 16
"""Most queues of one blocking read: what it costs grows with them, whichever of them has a frame."""


class RedisWatch:
    """The queues that are in demand: the ones used lately are read, the others have a bell.

    A bell is a node's address at a queue: whoever adds a frame there tells the node so, in its inbox, and takes the
    bell away. So what a frame costs does not depend on how many queues its reader serves; one of a queue with a bell
    takes a round trip more.

    Attributes:
        hot: Queues to read, the one used longest ago first; with or without demand.
        bells: Queues that have a bell; with or without demand.
        fresh: Queues in demand that are neither hot nor have a bell.
    """

    def __init__(self) -> None:
        self.hot: OrderedDict[str, None] = OrderedDict()
        self.fresh: dict[str, None] = {}
        self.bells: dict[str, None] = {}

    def demanded(self, queue: str) -> None:
        """There is demand for a queue."""
        if queue not in self.hot and queue not in self.bells:
            self.fresh[queue] = None

    def unwanted(self, queue: str) -> None:
        """There is none any more."""
        self.fresh.pop(queue, None)

    def place(self) -> list[str]:
        """Read the fresh queues from now on, as many as there is room for. The others need a bell, and one look now."""
        bells: list[str] = []
        for queue in self.fresh:
            if len(self.hot) < HOT:
                self.hot[queue] = None
            else:
                bells.append(queue)
        self.fresh.clear()
        self.bells.update(dict.fromkeys(bells))
        return bells

    def used(self, queue: str) -> str | None:
        """A queue has, or had, a frame: read it from now on. Returns the one that is not read any more for it."""
        self.bells.pop(queue, None)
        self.fresh.pop(queue, None)
        self.hot[queue] = None
        self.hot.move_to_end(queue)
        return self.hot.popitem(last=False)[0] if len(self.hot) > HOT else None

    def forget(self) -> None:
        """The server may have lost the bells, or have told us in vain."""
        self.fresh.clear()
        self.hot.clear()
        self.bells.clear()

    def __repr__(self) -> str:
        return f"<RedisWatch: {len(self.hot)} queues read, {len(self.bells)} with a bell, {len(self.fresh)} fresh>"
