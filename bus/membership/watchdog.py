"""The pulse: a thread that speaks for a process while a handler blocks its event loop."""

from __future__ import annotations

import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from enum import Enum

import anyio

from bus.errors import BusError
from bus.log import log, text_of
from bus.transport.outbox import Lease
from bus.transport.transport import Keep, Outgoing

BLOCK_LIMIT = 60.0
"""Seconds a blocked event loop is excused: ten default leases. No computation, driver or disk that is expected to
return takes longer; what does is most likely a deadlock, and its jobs are better off with another runner."""

ROUND_TIMEOUT = 5.0
"""Seconds one round of keeping may take, connecting included."""

FRAMES_SHOWN = 12
"""Calls of a stack that are logged, the innermost."""


class Verdict(Enum):
    """What a look at the event loop says."""

    RUNS = "runs"
    BLOCKED = "blocked"
    """Since the last look: to be said, and what it holds to be kept."""
    STILL_BLOCKED = "still blocked"
    """To be kept on."""
    TOO_LONG = "too long"
    """Blocked for longer than is excused, since the last look: to be said, and nothing is kept any more."""
    GIVEN_UP = "given up"
    RESUMED = "resumed"
    """It runs again since the last look."""


class LoopMonitor:
    """Judges from ticks whether an event loop is blocked. Pure: it decides, the pulse acts.

    Args:
        now: The clock; the loop counts as running.
        patience: Seconds without a tick after which the loop is blocked.
        limit: Seconds after which it is given up.
    """

    def __init__(self, now: float, *, patience: float, limit: float) -> None:
        self.verdict = Verdict.RUNS
        self.seconds = 0.0
        """How long the loop had been blocked when it was last looked at; after `RESUMED`, how long it was."""
        self._patience = patience
        self._limit = limit
        self._ticked = self._woke = now

    def tick(self, now: float) -> None:
        """The loop runs. One assignment: the loop calls it while another thread looks."""
        self._ticked = now

    def judge(self, now: float, overslept: float = 0.0) -> Verdict:
        """Judge.

        Args:
            now: The clock.
            overslept: Seconds by which this look is late. If they are many, the whole process was stopped, or starved,
                and not only its loop: a process that was frozen is dead like any other, and the count starts anew.
        """
        if overslept > self._patience:
            self._woke = now
        blocked = now - max(self._ticked, self._woke)
        before = self.verdict
        if blocked <= self._patience:
            was_blocked = before not in {Verdict.RUNS, Verdict.RESUMED}
            self.verdict = Verdict.RESUMED if was_blocked else Verdict.RUNS
        else:
            self.seconds = blocked
            if blocked > self._limit:
                given_up = before in {Verdict.TOO_LONG, Verdict.GIVEN_UP}
                self.verdict = Verdict.GIVEN_UP if given_up else Verdict.TOO_LONG
            else:
                self.verdict = Verdict.BLOCKED if before in {Verdict.RUNS, Verdict.RESUMED} else Verdict.STILL_BLOCKED
        return self.verdict


class Watchdog:
    """Keeps a runner alive for the others, and its claims its own, while its event loop is blocked.

    A thread looks at ticks of the loop. While there are none it says so, once, with the stack that blocks, and sends
    the beats and renews the claims itself, over a connection of its own. Past the limit it stops doing so: then the
    runner counts as dead, its jobs go to others, and what it still does when it wakes is refused like that of any
    runner that was paused for too long.

    Where the whole process stands still, or one call holds the interpreter's lock, the thread stands still too. Where
    no other thread reaches the network, there is none.

    Args:
        address: Of the runner to keep alive.
        keep: How the transport speaks for it from a thread; None if it cannot.
        heartbeat: Makes the frame of a heartbeat, from any thread.
        leases: What the runner holds now, from any thread.
        every: Seconds without a tick after which the loop is blocked, and between two rounds of keeping. The loop sends
            beats each heartbeat and renews claims each third of `ack_wait`: what it had to do last, plus this, plus a
            round, must end within a lease.
        limit: Seconds after which a blocked loop is given up; None is never.
        clock: That of the event loop, monotonic.
    """

    def __init__(
        self,
        address: str,
        keep: Keep | None,
        heartbeat: Callable[[], Outgoing],
        leases: Callable[[], Sequence[Lease]],
        *,
        every: float,
        limit: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.blocked = 0
        self._address = address
        self._keep = keep
        self._heartbeat = heartbeat
        self._leases = leases
        self._every = every
        self._period = every / 4
        self._clock = clock
        self._monitor = LoopMonitor(clock(), patience=every, limit=math.inf if limit is None else limit)
        self._looped_by = threading.get_ident()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure = ""

    def start(self) -> None:
        """Start the thread. The loop must `run()` from now on."""
        if self._keep is not None:
            self._monitor.tick(self._clock())
            self._thread = threading.Thread(target=self._watch, name=f"pulse of {self._address}", daemon=True)
            self._thread.start()

    async def run(self) -> None:
        """Tick, until cancelled."""
        while self._thread is not None:
            self._monitor.tick(self._clock())
            await anyio.sleep(self._period)

    async def stop(self) -> None:
        """End the thread, and wait until it is gone; at most as long as a round of keeping takes."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(self._period / 100)
        while self._thread is not None and self._thread.is_alive():  # noqa: ASYNC110 - the end of a thread is no event
            await anyio.sleep(self._period / 10)

    # --- in the thread ---

    def _watch(self) -> None:
        due = before = self._clock()
        while not self._ended.wait(self._period):
            now = self._clock()
            verdict = self._monitor.judge(now, now - before - self._period)
            self._report(verdict)
            if verdict in {Verdict.BLOCKED, Verdict.STILL_BLOCKED} and now >= due:
                due = now + self._every
                self._renew()
            before = self._clock()

    def _report(self, verdict: Verdict) -> None:
        seconds = f"{self._monitor.seconds:.1f} seconds"
        if verdict is Verdict.BLOCKED:
            self.blocked += 1
            self._failure = ""
            log().warning(
                f"the event loop has been blocked for {seconds}; its leases are kept meanwhile. Call what blocks in a "
                f"thread, with `anyio.to_thread.run_sync`. It is in:\n{self._stack()}"
            )
        elif verdict is Verdict.TOO_LONG:
            log().error(
                f"the event loop has been blocked for {seconds}, longer than its block_limit: its leases are given up, "
                f"and its jobs go to other runners. It is in:\n{self._stack()}"
            )
        elif verdict is Verdict.RESUMED:
            log().warning(f"the event loop runs again; it was blocked for about {seconds}")

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._looped_by)
        return "".join(traceback.format_stack(frame, FRAMES_SHOWN)) if frame is not None else "no stack: it has ended"

    def _renew(self) -> None:
        try:
            anyio.run(self._round)
        except Exception as error:  # noqa: BLE001 - the thread must try again, whatever it was
            failure = str(error) if isinstance(error, BusError) else text_of(error)
            if failure != self._failure:
                self._failure = failure
                log().warning("the leases of a blocked event loop could not be kept; trying again", error=failure)

    async def _round(self) -> None:
        assert self._keep is not None
        now = self._clock()
        with anyio.fail_after(ROUND_TIMEOUT):
            kept = await self._keep([self._heartbeat()])
        for lease in self._leases():
            if lease.delivery is not None and lease.delivery.token in kept:
                lease.renewed = now
