"""The watchdog: a thread that sends heartbeats and renews leases while a handler blocks the event loop."""

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
"""Seconds for which the leases of a blocked event loop are renewed: ten default leases. No computation, driver or disk
that is expected to return takes longer; what does is most likely a deadlock, and its jobs are better off elsewhere."""

ROUND_TIMEOUT = 5.0
"""Seconds that one renewal of everything may take, connecting included."""

FRAMES_SHOWN = 12
"""Innermost calls of a stack that are logged."""


class Verdict(Enum):
    """How an event loop is doing."""

    RUNS = "runs"
    BLOCKED = "blocked"
    """It is blocked since the last judgement: this is logged, and its leases are renewed."""
    STILL_BLOCKED = "still blocked"
    """Its leases are renewed."""
    TOO_LONG = "too long"
    """It passed the limit since the last judgement: this is logged, and its leases are not renewed any more."""
    GIVEN_UP = "given up"
    RESUMED = "resumed"
    """It runs again since the last judgement."""


class LoopMonitor:
    """Judges from ticks whether an event loop is blocked. Pure: it decides, the watchdog acts.

    Args:
        now: The clock; the loop counts as running.
        patience: Seconds without a tick after which the loop is blocked.
        limit: Seconds after which it is given up.
    """

    def __init__(self, now: float, *, patience: float, limit: float) -> None:
        self.verdict = Verdict.RUNS
        self.seconds = 0.0
        """How long the loop had been blocked at the last judgement; after `RESUMED`, how long it was blocked."""
        self._patience = patience
        self._limit = limit
        self._ticked = self._woke = now

    def tick(self, now: float) -> None:
        """Note that the loop runs. It is one assignment: the loop calls it while another thread judges."""
        self._ticked = now

    def judge(self, now: float, overslept: float = 0.0) -> Verdict:
        """Judge.

        Args:
            now: The clock.
            overslept: Seconds by which this judgement is late. If they are many, the whole process was stopped, or
                starved, and not only its loop: a frozen process is dead like any other, and the count starts anew.
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
    """Keeps a runner alive for the others, and its leases its own, while its event loop is blocked.

    A thread watches for ticks of the loop. While there are none it logs that once, with the stack that blocks, and
    sends the heartbeats and renews the leases itself, over a connection of its own. Past the limit it stops doing so:
    then the runner counts as dead, its jobs go to others, and what it still does when it resumes is refused, as with
    any runner that was paused for too long.

    Where the whole process stands still, or one call holds the interpreter's lock, the thread stands still too. Where
    only the event loop can reach the network, there is no thread.

    Args:
        address: That of the runner.
        keep: The `keep` of the transport.
        heartbeat: Makes the frame of a heartbeat. It is called from the thread.
        leases: What the runner holds now. It is called from the thread.
        every: Seconds without a tick after which the loop is blocked, and between two renewals. The loop itself sends
            heartbeats and renews leases each third of `ack_wait`: what it had to do last, plus this, plus one renewal,
            must end within a lease.
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
            self._thread = threading.Thread(target=self._watch, name=f"watchdog of {self._address}", daemon=True)
            self._thread.start()

    async def run(self) -> None:
        """Tick, until cancelled."""
        while self._thread is not None:
            self._monitor.tick(self._clock())
            await anyio.sleep(self._period)

    async def stop(self) -> None:
        """End the thread, and wait until it is gone: at most as long as one renewal takes."""
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
                f"the event loop has been blocked for {seconds}; its leases are renewed meanwhile. Call what blocks in "
                f"a thread, with `anyio.to_thread.run_sync`. It is in:\n{self._stack()}"
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
                log().warning("the leases of a blocked event loop could not be renewed; trying again", error=failure)

    async def _round(self) -> None:
        assert self._keep is not None
        now = self._clock()
        with anyio.fail_after(ROUND_TIMEOUT):
            kept = await self._keep([self._heartbeat()])
        for lease in self._leases():
            if lease.delivery is not None and lease.delivery.token in kept:
                lease.renewed = now
