"""A mailbox: two ordered lanes of messages for one reader, and the room they take."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bus.events import log
from bus.tasks import PooledTask, Tasks, Waiter, cancelled_from_outside


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

    __slots__ = ("_busy", "_closed", "_data", "_handle", "_owner", "_system", "_tasks", "dropped")

    def __init__(self, owner: str, handle: Callable[[Any], Awaitable[None]], tasks: Tasks) -> None:
        self._owner = owner
        self._handle = handle
        self._tasks = tasks
        self._data: deque[Any] = deque()
        self._system: deque[Any] = deque()
        self._busy: dict[int, PooledTask] = {}
        self._closed: Callable[[], None] | None = None
        self.dropped = 0

    @property
    def busy(self) -> bool:
        """Whether something is being handled."""
        return bool(self._busy)

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

    def close(self, stopped: Callable[[], None]) -> None:
        """Drop what waits and what still comes, cancel what is handled now, and call `stopped` when that has ended."""
        self.dropped = len(self._system) + len(self._data)
        self._closed = stopped
        self._system.clear()
        self._data.clear()
        for task in self._busy.values():
            task.cancel()

    def shield(self) -> None:
        """Stop cancelling what is being handled: it swallows the cancellation, and would spin."""
        for task in self._busy.values():
            task.shield()

    def statistics(self) -> MailboxStatistics:
        """How much waits now."""
        return MailboxStatistics(data=len(self._data), system=len(self._system))

    def _put(self, lane: deque[Any], item: Any) -> None:
        if self._closed is not None:
            self.dropped += 1
            return
        lane.append(item)
        if id(lane) not in self._busy:
            self._busy[id(lane)] = self._tasks.start(self._drain, lane)

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
            del self._busy[id(lane)]
            if self._closed is not None:
                self._closed()
