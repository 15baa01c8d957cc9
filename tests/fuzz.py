"""Mutated frames by the million: `python -m tests.fuzz` reads them on a node that works meanwhile; it must not notice.

Each frame is one of those that a fleet sends, of every type, with bits flipped, bytes put in or cut out, mixed with
another, sent another way or sent again. With a key none of them may count. Without one, what is still a message does;
what is none must be refused, the node must live, and the jobs that others ask for must be done once each.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import anyio
import msgspec

from actors import BaseWorker, Job, WorkerRunner, job
from bus import NetworkBus, WorkerRegistryEntry
from bus.errors import DecodeError
from bus.memory.broker import MemoryBroker
from bus.memory.transport import MemoryTransport
from bus.network.session import NetworkStatistics
from bus.transport.transport import Delivery, Lane, Outgoing, Settlement
from bus.wire.codec import MAX_MESSAGE_BYTES, decode, decode_header, encode
from tests.support.environment import leave_a_users_environment
from tests.support.running import session_of

FRAMES = 1_000_000
JOB_EVERY = 500
"""Mutated frames between two jobs that must be done."""

KEY = b"fuzz" * 8
STRANGER = "stranger#0badcafe"
PLACE = b"0badcafe-000000000"
"""Id of the samples of a stranger; each frame made of one has another."""
WORKER = WorkerRegistryEntry("strange", active=True, started_at=1.5, topics=("news", "weather"))
HOUR = 3600.0
LANES: tuple[Lane, ...] = ("inbox", "queue", "everyone", "direct")
HARD_BYTES = b"\x00\x01\x7f\x80\xc0\xc1\xc7\xc9\xd9\xdc\xdd\xdf\xff"

Sample = tuple[Lane, bytes]


class Tap(MemoryTransport):
    """Keeps what its node sends, and knows nothing of the claims that are made up."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.sent: list[Outgoing] | None = []

    async def send(self, frames: Sequence[Outgoing]) -> None:
        if self.sent is not None:
            self.sent += frames
        await super().send([forgets_what_is_made_up(frame) for frame in frames])

    async def tell(self, frames: Sequence[Outgoing]) -> None:
        if self.sent is not None:
            self.sent += frames
        await super().tell(frames)

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        known = [each for each in settlements if each[0].token is not None]
        settled = iter(await super().settle(known))
        return [delivery.token is not None and next(settled) for delivery, _ in settlements]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        known = [delivery for delivery in deliveries if delivery.token is not None]
        kept = iter(await super().extend(known) if known else ())
        return [delivery.token is not None and next(kept) for delivery in deliveries]


def forgets_what_is_made_up(frame: Outgoing) -> Outgoing:
    made_up = frame.settles is not None and frame.settles.token is None
    return msgspec.structs.replace(frame, settles=None) if made_up else frame


class Worker(BaseWorker):
    """Does what it is asked to, and counts."""

    max_concurrency = 10**9  # jobs whose requester cannot be asked hold a slot each, for as long as that is tried

    def __init__(self) -> None:
        super().__init__("w")
        self.runs: Counter[str] = Counter()

    @job(name="echo")
    async def echo(self, job: Job[Any]) -> Any:
        self.runs[job.requester] += 1
        await job.update("on it")
        return job.payload

    @job(name="count")
    async def count(self, job: Job[Any]) -> AsyncIterator[int]:
        for number in range(job.payload if isinstance(job.payload, int) else 0):
            yield number


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the frames."""

    seed: int
    signed: bool
    frames: int
    refused: dict[str, int]
    dropped: int
    taken: int
    jobs: int
    strange_runs: int
    seconds: float
    problems: tuple[str, ...]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.refused.items())
        return (
            f"seed {self.seed}, {'with' if self.signed else 'without'} a key: {self.frames:,} mutated frames, "
            f"refused {sum(self.refused.values()):,} ({reasons}), dropped as doubles {self.dropped:,}, "
            f"taken {self.taken:,}, strange jobs run {self.strange_runs:,}, own jobs done once {self.jobs:,}, "
            f"{len(self.problems)} problems, {self.seconds:.0f} s"
        )


def mutated(rng: Random, data: bytes, other: bytes) -> bytes:
    """A frame that is not `data`."""
    result = bytearray(data)
    kind = rng.random()
    if kind < 0.6:
        end = len(result) if rng.random() < 0.8 else min(len(result), 60)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(end)
            result[place] = rng.choice((result[place] ^ (1 << rng.randrange(8)), rng.choice(HARD_BYTES)))
    elif kind < 0.7:
        del result[rng.randrange(len(result)) :]
    elif kind < 0.8:
        place = rng.randrange(len(result))
        result[place:place] = rng.randbytes(rng.randrange(1, 9))
    elif kind < 0.9:
        place = rng.randrange(len(result))
        del result[place : place + rng.randrange(1, 9)]
    elif kind < 0.97:
        cut = rng.randrange(min(len(result), len(other)))
        result[cut:] = other[cut:]
    elif kind < 0.9995:
        result = bytearray(rng.randbytes(rng.randrange(200)))
    else:
        result += bytes(MAX_MESSAGE_BYTES)
    return bytes(result) if result != data else bytes(result) + b"\0"


def samples(sent: Sequence[Outgoing], address: str, *, signed: bool) -> list[Sample]:
    """One frame of every type, and as many of each way: as they were sent, or as a stranger without a key would."""
    found: dict[tuple[str, str], Sample] = {}
    for frame in sent:
        header, body = decode_header(frame.body)
        message: Any = decode(header, body)
        if signed:
            if not hasattr(message, "started_at") and not hasattr(message, "workers"):  # the only ones that hold a date
                found.setdefault((header.type, frame.lane), (frame.lane, frame.body))
            continue
        message.source = message.source if message.source != "boss" else "stranger"
        message.target = message.target if frame.lane == "queue" or message.target is None else "nobody"
        for field, value in (("runner", "stranger"), ("started_at", 1.5), ("workers", [WORKER])):
            if hasattr(message, field):
                setattr(message, field, value)
        to = address if frame.lane in {"inbox", "direct"} else ""
        made = encode(message, id=PLACE.decode(), origin=STRANGER, destination=to)
        found.setdefault((header.type, frame.lane), (frame.lane, made))
    return list(found.values())


class Fuzz:
    """A node that is fed mutated frames, and another that has it do jobs."""

    def __init__(self, seed: int, *, signed: bool) -> None:
        self.rng = Random(seed)
        self.seed = seed
        self.signed = signed
        self.worker = Worker()
        self.problems: list[str] = []
        self.dropped = self.taken = self.jobs = self._number = 0

    async def run(self, frames: int) -> Report:
        """Read so many frames, and say what became of them."""
        start = time.monotonic()
        broker, boss = MemoryBroker(ack_wait=HOUR), BaseWorker("boss")
        taps, buses = [Tap(broker), Tap(broker)], []
        async with AsyncExitStack() as stack:
            for label, tap, worker in zip("ab", taps, (boss, self.worker), strict=True):
                bus = NetworkBus(
                    tap,
                    signing_key=KEY if self.signed else None,
                    heartbeat=HOUR,  # nothing depends on how long it takes
                    rng=Random(self.rng.getrandbits(64)),
                )
                buses.append(bus)
                rng = Random(self.rng.getrandbits(64))
                runner = WorkerRunner(label, bus, handle_sigint=False, handle_sigterm=False, rng=rng)
                await runner.add_workers(worker)
                await stack.enter_async_context(runner)
            if self.signed:  # what b has not heard, because it was not there yet, would be new to it
                await self._work(boss)
                taps[0].sent = []
                session_of(buses[0])._membership.send_heartbeat()
            await self._converse(boss)
            for _ in range(10):  # nothing of what was kept is under way any more
                await self._work(boss)
            sent = [frame for tap in taps for frame in tap.sent or ()]
            known = samples(sent, buses[1].address, signed=self.signed)
            taps[0].sent = taps[1].sent = None
            before = buses[1].network_statistics().refused
            if before.total:
                self.problems.append(f"frames of the fleet itself were refused: {before}")
            for done in range(0, frames, JOB_EVERY):
                self._feed(buses[1], known, min(JOB_EVERY, frames - done))
                await self._work(boss)
            refused = {name: count for name, count in _counts(buses[1]).items() if count}
            if sum(refused.values()) + self.dropped + self.taken != frames:
                self.problems.append("the counters do not add up to the frames")
            if self.signed and self.taken:
                self.problems.append(f"{self.taken} forged frames were taken in")
            runs = dict(self.worker.runs)
            if runs.pop("boss") != self.jobs:
                self.problems.append(f"of {self.jobs} jobs {self.worker.runs['boss']} were run")
        return Report(
            seed=self.seed,
            signed=self.signed,
            frames=frames,
            refused=refused,
            dropped=self.dropped,
            taken=self.taken,
            jobs=self.jobs,
            strange_runs=sum(runs.values()),
            seconds=time.monotonic() - start,
            problems=tuple(self.problems),
        )

    def _feed(self, bus: NetworkBus, known: Sequence[Sample], count: int) -> None:
        session, rng = session_of(bus), self.rng
        session.leases.informed.add(STRANGER, "w", "0badcafe-0")  # its jobs begin at once
        before = _sums(bus.network_statistics())
        for _ in range(count):
            lane, original = rng.choice(known)
            if rng.random() < 0.97:
                self._number += 1
                original = original.replace(PLACE, b"0badcafe-%09d" % self._number)
                body = mutated(rng, original, rng.choice(known)[1])
            else:  # as it is, by whatever way
                body, lane = original, rng.choice(LANES)
            session._inbox.read(Delivery(lane, "w" if lane == "queue" else "", body, rng.choice((1, 1, 1, 2))))
            after = _sums(bus.network_statistics())
            refused, dropped = after[0] - before[0], after[1] - before[1]
            before = after
            if refused + dropped > 1:
                self.problems.append(f"one frame was counted {refused} + {dropped} times: {body.hex()}")
            if not refused and not dropped and not _is_readable(body):
                self.problems.append(f"what is no message was not refused: {body.hex()}")
            self.dropped += dropped
            self.taken += not refused and not dropped

    async def _work(self, boss: BaseWorker) -> None:
        self.jobs += 1
        with anyio.move_on_after(60) as patience:
            if await boss.job("w", name="echo", payload=self.jobs) != self.jobs:
                self.problems.append(f"job {self.jobs} came back with another answer")
        if patience.cancelled_caught:
            self.problems.append(f"job {self.jobs} was not done")

    async def _converse(self, boss: BaseWorker) -> None:
        """Let the fleet send one frame of every type it has."""
        await self._work(boss)
        for delivery in ("at_least_once", "at_most_once"):
            async with boss.job("w", name="count", payload=600, delivery=delivery) as asked:
                async for _ in asked:
                    pass
            with anyio.CancelScope() as scope:
                async with boss.job("w", name="count", payload=10_000, delivery=delivery):
                    scope.cancel()


def _counts(bus: NetworkBus) -> dict[str, int]:
    return msgspec.structs.asdict(bus.network_statistics().refused)


def _sums(now: NetworkStatistics) -> tuple[int, int]:
    return now.refused.total, now.freshness.doubles + now.claims.repeated


def _is_readable(body: bytes) -> bool:
    try:
        decode(*decode_header(body))
    except DecodeError:
        return False
    return True


def fuzz(seed: int, frames: int, *, signed: bool) -> Report:
    """Read mutated frames and report."""
    return anyio.run(Fuzz(seed, signed=signed).run, frames)


def main(arguments: Sequence[str] | None = None, show: Callable[[str], None] = print) -> int:
    """Run it; 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--frames", type=int, default=FRAMES, help="how many with a key, and as many without")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    logging.getLogger("actorbus").setLevel(logging.CRITICAL)
    reports = [fuzz(chosen.seed, chosen.frames, signed=signed) for signed in (True, False)]
    for report in reports:
        for problem in report.problems[:10]:
            show(problem[:500])
        show(str(report))
    return 1 if any(report.problems for report in reports) else 0


if __name__ == "__main__":
    leave_a_users_environment()
    sys.exit(main())
