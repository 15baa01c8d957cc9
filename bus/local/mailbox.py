"""A mailbox: two ordered lanes of messages for one reader, and the room they take."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from contextvars import copy_context
from typing import Any

import msgspec

from bus.errors import MailboxFullError
from bus.local.tasks import PooledTask, Tasks, Waiter, is_cancellation, same_context, wake
from bus.log import log, text_of

DEFAULT_MAILBOX_SIZE = 10_000
"""Messages and jobs that may wait for one reader: a burst of a whole fleet, and about 10 MB."""


class RoomStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Room`: places taken, places there are, and senders in line (bounded by their own deadlines)."""

    taken: int
    capacity: int
    waiting: int


class Room:
    """How much may wait for one reader. Senders that find none wait in line for it.

    A place that is free never stays so while somebody waits: who is woken and does not take it calls `pass_on()`.
    """

    __slots__ = ("_tasks", "_waiters", "capacity", "closed", "owner", "refuses", "taken")

    def __init__(self, owner: str, capacity: int, tasks: Tasks, *, refuses: bool = False) -> None:
        self.owner = owner
        self.capacity = capacity
        self.refuses = refuses
        self.taken = 0
        self.closed = False
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
        self.pass_on()

    def refusal(self) -> MailboxFullError:
        """The error for who finds no room, or may not wait for it."""
        return MailboxFullError(self.owner, self.capacity)

    def pass_on(self) -> None:
        """Let the next in line try, if there is a place. Call it after a `wait()`, once sent or given up."""
        if self._waiters and self.taken < self.capacity:
            wake(self._waiters.popleft())

    async def wait(self) -> None:
        """Wait until there may be a place, or the reader is gone. Another sender may be faster: try again and see.

        Cancelled, it passes the place on.
        """
        if self.closed or self.taken < self.capacity:  # given back between being refused and coming here
            return
        waiter = self._tasks.waiter()
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            else:
                self.pass_on()
            raise

    def close(self) -> None:
        """Wake everybody: the reader is gone."""
        self.closed = True
        while self._waiters:
            wake(self._waiters.popleft())

    def statistics(self) -> RoomStatistics:
        """What is taken now, and who waits."""
        return RoomStatistics(self.taken, self.capacity, len(self._waiters))


class MailboxStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Mailbox`: messages waiting in each lane, and in those that are apart."""

    data: int
    system: int
    apart: int = 0


class _Lane:
    __slots__ = ("busy", "current", "leaves", "queue", "task")

    def __init__(self) -> None:
        self.queue: deque[tuple[Hashable, Any]] = deque()
        self.current: Hashable = None
        self.leaves: Hashable = None
        self.busy = False
        self.task: PooledTask | None = None

    def holds(self, key: Hashable) -> bool:
        return self.busy and (self.current == key or any(queued == key for queued, _ in self.queue))


class Mailbox:
    """Two lanes for one reader: system messages overtake data messages, each lane is handled one at a time, in order.

    Messages put with the same key are handled one at a time and in the order put, urgent or not. An idle mailbox holds
    no task: a lane borrows one while it has something to do. Bounds are kept by whoever puts: data messages of others
    take a place in a `Room` first; everything else is bounded by the jobs it belongs to.
    """

    __slots__ = ("_apart", "_closed", "_data", "_handle", "_idle", "_owner", "_system", "_tasks", "dropped", "handled")

    def __init__(self, owner: str, handle: Callable[[Any], Awaitable[None]], tasks: Tasks) -> None:
        self._owner = owner
        self._handle = handle
        self._tasks = tasks
        self._data = _Lane()
        self._system = _Lane()
        self._apart: dict[Hashable, _Lane] | None = None
        self._closed: Callable[[], None] | None = None
        self._idle: Callable[[], None] | None = None
        self.dropped = 0
        self.handled = 0
        """How many messages have been handled."""

    @property
    def busy(self) -> bool:
        """Whether something is being handled."""
        return any(lane.busy for lane in self._lanes())

    def put(self, item: Any, key: Hashable = None) -> None:
        """Append to the data lane; to the system lane if something of that key is still there."""
        if self._apart is not None and key in self._apart:
            self._put(self._apart[key], key, item)
        elif key is not None and self._system.holds(key):
            self._put(self._system, key, item)
        else:
            self._put(self._data, key, item)

    def put_urgent(self, item: Any, key: Hashable = None) -> None:
        """Append to the system lane, and take along what waits of that key in the data lane.

        What is handled now is not overtaken either: then all of its key goes to the front of the data lane.
        """
        data = self._data
        lane = self._system
        if self._apart is not None and key in self._apart:
            lane = self._apart[key]
        elif key is not None and self._closed is None and data.holds(key):
            earlier = [entry for entry in data.queue if entry[0] == key]
            rest = [entry for entry in data.queue if entry[0] != key]
            data.queue.clear()
            if data.current == key:
                data.queue.extend((*earlier, (key, item), *rest))
                return
            data.queue.extend(rest)
            lane.queue.extend(earlier)
        self._put(lane, key, item)

    def branch(self, key: Hashable) -> None:
        """Handle what waits and what comes of `key` in a lane of its own, beside the others, until `join(key)`.

        For who waits, while he handles one message, for something that the handling of others brings about.
        """
        if self._apart is None:
            self._apart = {}
        lane = self._apart.get(key)
        if lane is not None:
            lane.leaves = None
            return
        lane = self._apart[key] = _Lane()
        for other in (self._system, self._data):
            moved = [entry for entry in other.queue if entry[0] == key]
            if moved:
                rest = [entry for entry in other.queue if entry[0] != key]
                other.queue.clear()
                other.queue.extend(rest)
                for _, item in moved:
                    self._put(lane, key, item)

    def join(self, key: Hashable) -> None:
        """End what `branch(key)` began, once what waits is handled."""
        if self._apart is not None and key in self._apart:
            if self._apart[key].busy:
                self._apart[key].leaves = key
            else:
                del self._apart[key]

    def when_idle(self, idle: Callable[[], None]) -> None:
        """Call `idle` whenever a lane has nothing to do any more."""
        self._idle = idle

    def close(self, idle: Callable[[], None]) -> None:
        """Drop what waits and what still comes, counted in `dropped`; cancel what is being handled.

        Args:
            idle: Called whenever a lane has stopped.
        """
        self._closed = idle
        for lane in self._lanes():
            self.dropped += len(lane.queue)
            lane.queue.clear()
            if lane.task is not None:
                lane.task.cancel()

    def shield(self) -> None:
        """Stop telling what is being handled to stop: it swallows that."""
        for lane in self._lanes():
            if lane.task is not None:
                lane.task.shield()

    def statistics(self) -> MailboxStatistics:
        """How much waits now."""
        apart = sum(len(lane.queue) for lane in (self._apart or {}).values())
        return MailboxStatistics(data=len(self._data.queue), system=len(self._system.queue), apart=apart)

    def _lanes(self) -> tuple[_Lane, ...]:
        return (self._data, self._system, *(self._apart or {}).values())

    def _put(self, lane: _Lane, key: Hashable, item: Any) -> None:
        if self._closed is not None:
            self.dropped += 1
            return
        lane.queue.append((key, item))
        if not lane.busy:
            lane.busy = True
            lane.task = self._tasks.start(self._drain, lane)

    async def _drain(self, lane: _Lane) -> None:
        clean = copy_context()
        try:
            while lane.queue:
                lane.current, item = lane.queue.popleft()
                try:
                    await self._handle(item)
                except BaseException as error:
                    if is_cancellation(error):
                        raise
                    log().error("message handler failed", owner=self._owner, error=text_of(error), exc_info=True)
                lane.current = None
                self.handled += 1
                if lane.queue and not same_context(clean):  # what it left must not reach the next
                    lane.task = self._tasks.start(self._drain, lane)
                    return
        except BaseException:
            self._rest(lane)
            raise
        self._rest(lane)

    def _rest(self, lane: _Lane) -> None:
        lane.busy = False
        lane.task = None
        if lane.leaves is not None and self._apart is not None:
            del self._apart[lane.leaves]
        if self._closed is not None:
            self._closed()
        elif self._idle is not None:
            self._idle()
