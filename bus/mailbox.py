"""A mailbox: two ordered lanes of messages for one reader, and the room they take."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bus.events import log
from bus.tasks import Tasks, Waiter, cancelled_from_outside


class Room:
    """How much may wait for one reader. Senders that find none wait in line for it."""

    __slots__ = ("_tasks", "_waiters", "capacity", "owner", "refuses", "taken")

    def __init__(self, owner: str, capacity: int, tasks: Tasks, *, refuses: bool = False) -> None:
        self.owner = owner
        self.capacity = capacity
        self.refuses = refuses
        self.taken = 0
        self._tasks = tasks
        self._waiters: deque[Waiter] = deque()

    def take(self) -> bool:
        """Take one place; False if there is none."""
        if self.taken >= self.capacity:
            return False
        self.taken += 1
        return True

    def give(self) -> None:
        """Give one place back."""
        self.taken -= 1
        if self._waiters:
            self._waiters.popleft().wake()

    async def wait(self) -> None:
        """Wait until a place was given back, or the reader is gone. Another sender may be faster: try again and see."""
        waiter = self._tasks.waiter()
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif self._waiters:  # the wake-up was ours and is of no use to us now: pass it on
                self._waiters.popleft().wake()
            raise

    def close(self) -> None:
        """Wake everybody: the reader is gone."""
        while self._waiters:
            self._waiters.popleft().wake()


class MailboxStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Mailbox`: messages waiting in each lane."""

    data: int
    system: int


class Mailbox:
    """Two lanes for one reader: system messages overtake data messages, each lane is handled one at a time, in order.

    An idle mailbox holds no task: a lane borrows one while it has something to do. Bounds are kept by whoever puts:
    data messages of others take a place in a `Room` first; everything else is bounded by the jobs it belongs to.
    """

    __slots__ = ("_busy", "_data", "_handle", "_owner", "_system", "_tasks")

    def __init__(self, owner: str, handle: Callable[[Any], Awaitable[None]], tasks: Tasks) -> None:
        self._owner = owner
        self._handle = handle
        self._tasks = tasks
        self._data: deque[Any] = deque()
        self._system: deque[Any] = deque()
        self._busy: dict[int, bool] = {}

    def put(self, item: Any) -> None:
        """Append to the data lane."""
        self._put(self._data, item)

    def put_urgent(self, item: Any, same: Callable[[Any], bool] | None = None) -> None:
        """Append to the system lane, behind everything in the data lane for which `same` holds: that keeps its order."""
        if same is not None and self._data:
            earlier = [queued for queued in self._data if same(queued)]
            if earlier:
                rest = [queued for queued in self._data if not same(queued)]
                self._data.clear()
                self._data.extend(rest)
                self._system.extend(earlier)
        self._put(self._system, item)

    def clear(self) -> list[Any]:
        """Take out everything that waits, and return it."""
        left = [*self._system, *self._data]
        self._system.clear()
        self._data.clear()
        return left

    def statistics(self) -> MailboxStatistics:
        """How much waits now."""
        return MailboxStatistics(data=len(self._data), system=len(self._system))

    def _put(self, lane: deque[Any], item: Any) -> None:
        lane.append(item)
        if not self._busy.get(id(lane)):
            self._busy[id(lane)] = True
            self._tasks.start(self._drain, lane)

    async def _drain(self, lane: deque[Any]) -> None:
        try:
            while lane:
                try:
                    await self._handle(lane.popleft())
                except BaseException as error:
                    if cancelled_from_outside():
                        raise
                    log().error("message handler failed", owner=self._owner, error=repr(error), exc_info=True)
        finally:
            self._busy[id(lane)] = False
