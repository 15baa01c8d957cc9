"""The watchdog: when an event loop counts as blocked, what is done then, and that no thread stays behind."""

from __future__ import annotations

import math
import threading
from collections.abc import Container, Sequence
from typing import Any

import anyio
import pytest

from bus.errors import TransportError
from bus.membership.liveness import Liveness
from bus.membership.watchdog import LoopMonitor, Verdict
from bus.memory.broker import MemoryBroker
from bus.memory.transport import MemoryTransport
from bus.network.bus import NetworkBus
from bus.transport.transport import Outgoing
from bus.wire.codec import decode_header

LONGEST_WAIT = 60.0


def verdicts(monitor: LoopMonitor, *times: float) -> list[Verdict]:
    return [monitor.judge(now) for now in times]


def test_a_loop_that_ticks_runs() -> None:
    monitor = LoopMonitor(0.0, patience=2.0, limit=60.0)
    for now in range(10):
        monitor.tick(now)
        assert monitor.judge(now + 2.0) is Verdict.RUNS


def test_a_blocked_loop_is_reported_once_and_kept_until_it_ticks() -> None:
    monitor = LoopMonitor(0.0, patience=2.0, limit=60.0)
    monitor.tick(10.0)
    assert verdicts(monitor, 12.0, 12.1, 13.0, 69.0) == [
        Verdict.RUNS,
        Verdict.BLOCKED,
        Verdict.STILL_BLOCKED,
        Verdict.STILL_BLOCKED,
    ]
    monitor.tick(69.5)
    assert verdicts(monitor, 70.0, 71.0) == [Verdict.RESUMED, Verdict.RUNS]
    assert monitor.seconds == 59.0
    assert monitor.judge(72.0) is Verdict.BLOCKED, "and the next time it is reported again"


def test_past_its_limit_a_blocked_loop_is_given_up_once_until_it_ticks() -> None:
    monitor = LoopMonitor(0.0, patience=2.0, limit=6.0)
    assert verdicts(monitor, 3.0, 6.0, 6.5, 7.0, 100.0) == [
        Verdict.BLOCKED,
        Verdict.STILL_BLOCKED,
        Verdict.TOO_LONG,
        Verdict.GIVEN_UP,
        Verdict.GIVEN_UP,
    ]
    monitor.tick(101.0)
    assert verdicts(monitor, 101.0, 104.0) == [Verdict.RESUMED, Verdict.BLOCKED]


def test_without_a_limit_a_blocked_loop_is_never_given_up() -> None:
    monitor = LoopMonitor(0.0, patience=2.0, limit=math.inf)
    assert verdicts(monitor, 3.0, 1e9) == [Verdict.BLOCKED, Verdict.STILL_BLOCKED]


def test_a_process_that_stood_still_as_a_whole_is_not_excused_for_it() -> None:
    monitor = LoopMonitor(0.0, patience=2.0, limit=60.0)
    assert monitor.judge(30.0, overslept=29.5) is Verdict.RUNS, "the loop has not had its chance to tick yet"
    assert monitor.judge(31.0, overslept=0.1) is Verdict.RUNS
    assert monitor.judge(32.5, overslept=0.1) is Verdict.BLOCKED
    assert monitor.seconds == 2.5


def test_who_was_asleep_declares_nobody_dead_for_what_it_did_not_hear() -> None:
    liveness = Liveness("me#1", lease=6.0, patience=30.0)
    liveness.seen("other", "other#1", 0.0, to_us=True)
    liveness.echoed(0.0)
    liveness.resumed(100.0)
    assert liveness.expired(100.0) == []
    assert liveness.connected(100.0), "that no beat of ours came back meanwhile says nothing about the network"
    assert liveness.expired(106.0) == []
    liveness.echoed(105.0)
    assert [peer.runner for peer in liveness.expired(107.0)] == ["other"], "it has had its lease since we woke"


class Kept(MemoryTransport):
    """Notes what it is asked to keep; the first time it fails."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker())
        self.frames: list[Outgoing] = []
        self.failed = False
        self.enough = threading.Event()

    async def keep(self, frames: Sequence[Outgoing]) -> Container[object]:
        await anyio.lowlevel.checkpoint()
        if not self.failed:
            self.failed = True
            raise TransportError("the broker is away")
        self.frames += frames
        if len(self.frames) > 1:
            self.enough.set()
        return ()


def watchdogs() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("watchdog of")]


def block_here(transport: Kept) -> None:
    assert transport.enough.wait(LONGEST_WAIT)


@pytest.mark.anyio
async def test_while_the_loop_is_blocked_beats_go_out_and_the_stack_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    transport = Kept()
    bus = NetworkBus(transport, heartbeat=0.2)
    async with bus:
        assert watchdogs() == [f"watchdog of {bus.address}"]
        block_here(transport)
        assert bus.network_statistics().blocked == 1
    assert watchdogs() == []
    headers = [decode_header(frame.body)[0] for frame in transport.frames]
    assert {header.type for header in headers} == {"BusRunnerBeatMessage"}
    assert {header.origin for header in headers} == {bus.address}
    assert len({header.id for header in headers}) == len(headers), "doubles would be dropped"
    said = [record.getMessage() for record in caplog.records]
    (blocked,) = [line for line in said if "has been blocked for" in line]
    assert "in block_here" in blocked
    assert [line for line in said if "could not be renewed" in line and "the broker is away" in line]


@pytest.mark.anyio
async def test_no_thread_is_started_where_it_cannot_help() -> None:
    async with NetworkBus(MemoryTransport(MemoryBroker())):
        assert watchdogs() == []


class Refusing(Kept):
    async def open(self, node: str) -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError("it cannot work like that")


@pytest.mark.anyio
async def test_a_start_that_fails_leaves_no_thread() -> None:
    with pytest.raises(ValueError, match="it cannot work like that"):
        await NetworkBus(Refusing()).start()
    assert watchdogs() == []


@pytest.mark.anyio
async def test_a_stop_right_after_the_loop_was_blocked_ends_the_thread() -> None:
    transport = Kept()
    bus = NetworkBus(transport, heartbeat=0.2)
    await bus.start()
    block_here(transport)
    await bus.stop()
    assert watchdogs() == []


@pytest.mark.parametrize("limit", [0, -1.0, math.nan])
def test_a_block_limit_that_is_no_duration_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="block_limit"):
        NetworkBus(Kept(), block_limit=limit)
