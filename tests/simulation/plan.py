"""What random programs do, drawn from a seed: plans of nested jobs, groups, streams, cancellations and crashes."""

from __future__ import annotations

from random import Random
from typing import Literal

import msgspec

from actors.testing import Faults

NAMES = ("w0", "w1", "w2", "w3")
RUNNERS = ("r0", "r1", "r2")

CHAOS = (
    *("crash", "crash", "partition", "end", "remove", "sleep", "pause", "pause"),
    *("black_hole", "broker_restart", "broker_loss", "slow_broker", "fleet_restart"),
)
"""What goes wrong with a runner, or with what all of them share."""
Delivery = Literal["at_least_once", "at_most_once"]
DELIVERIES: tuple[Delivery, ...] = ("at_least_once", "at_most_once")


class Step(msgspec.Struct, frozen=True):
    """One thing a handler or a requester does."""

    do: str
    seconds: float = 0.0
    count: int = 0
    ask: Ask | None = None


class Ask(msgspec.Struct, frozen=True):
    """One job or group to ask for, and what its handlers do."""

    workers: tuple[str, ...]
    how: str
    plan: tuple[Step, ...]
    timeout: float | None = None
    cancel_on_error: bool = True
    cancel_after: float | None = None
    reads_after: float = 0.0
    reads: bool = True
    own_id: str | None = None
    delivery: Delivery | None = None


class Scenario(msgspec.Struct, frozen=True):
    """A whole run: who lives where, who asks for what and when, and what goes wrong."""

    homes: dict[str, tuple[str, ...]]
    concurrency: dict[str, int]
    mailboxes: dict[str, int]
    asks: dict[str, tuple[tuple[float, Ask], ...]]
    chaos: tuple[tuple[float, str, str], ...]
    faults: Faults
    delivery: Delivery = "at_least_once"

    @property
    def harmless(self) -> bool:
        """Whether nothing in it excuses a second execution or a job that is not done."""
        return not self.chaos and not self.faults.drop


def make_scenario(seed: int) -> Scenario:
    """Draw a scenario; the same seed draws the same one."""
    rng, deliveries = Random(seed), Random(f"deliveries {seed}")
    homes = {name: tuple(rng.sample(RUNNERS, rng.choice((1, 1, 2)))) for name in NAMES}
    asks = {
        runner: tuple(
            (round(rng.uniform(0, 30), 3), _draw_ask(rng, own_id=f"mine.{runner}.{number}"))
            for number in range(rng.randint(3, 8))
        )
        for runner in RUNNERS
    }
    concurrency = {name: rng.choice((1, 2, 20)) for name in NAMES}
    mailboxes = {name: rng.choice((1, 3, 1000, 1000)) for name in NAMES}
    chaos: list[tuple[float, str, str]] = []
    if rng.random() < 0.7:
        chaos += [
            (
                round(rng.uniform(1, 40), 3),
                rng.choice(CHAOS),
                rng.choice(RUNNERS),
            )
            for _ in range(rng.randint(1, 5))
        ]
    noisy = rng.random() < 0.7
    faults = Faults(
        drop=rng.choice((0.0, 0.05, 0.3)) if noisy else 0.0,
        duplicate=rng.choice((0.0, 0.3)) if noisy else 0.0,
        reorder=rng.choice((0.0, 0.3)) if noisy else 0.0,
        delay=rng.choice(((0.0, 0.0), (0.0, 0.01), (0.0, 0.5), (2.0, 2.0))),
        timeout=1.0,
    )
    asks = {
        runner: tuple((delay, _delivered(ask, deliveries)) for delay, ask in several)
        for runner, several in asks.items()
    }
    delivery = deliveries.choice(DELIVERIES)
    return Scenario(homes, concurrency, mailboxes, asks, tuple(sorted(chaos)), faults, delivery)


def _delivered(ask: Ask, rng: Random) -> Ask:
    """Draw how an ask travels, and those that its handlers ask for."""
    plan = tuple(
        msgspec.structs.replace(step, ask=_delivered(step.ask, rng)) if step.ask is not None else step
        for step in ask.plan
    )
    delivery = rng.choice((None, *DELIVERIES))
    return msgspec.structs.replace(ask, plan=plan, delivery=delivery)


def _draw_ask(rng: Random, depth: int = 0, asker: str = "", own_id: str = "") -> Ask:
    workers = _draw_workers(rng, asker)
    return Ask(
        workers=workers,
        how=rng.choice(("work", "work", "turn", "stream", "")),
        plan=tuple(_draw_step(rng, depth, workers) for _ in range(rng.randint(0, 3))),
        timeout=rng.choice((None, None, 0.2, 3.0, 60.0)),
        cancel_on_error=rng.random() < 0.6,
        cancel_after=rng.choice((None, None, None, None, 0.0, 0.5, 4.0)),
        reads_after=rng.choice((0.0, 0.0, 0.0, 6.0)),
        reads=rng.random() < 0.8,
        own_id=own_id if own_id and rng.random() < 0.2 else None,
    )


def _draw_workers(rng: Random, asker: str) -> tuple[str, ...]:
    """Whom to ask. Inside a job only those after its worker: in a circle all slots could wait for each other."""
    names = [name for name in NAMES if name > asker]
    return tuple(rng.sample(names, min(rng.choice((1, 1, 1, 2, 3)), len(names))))


def _draw_step(rng: Random, depth: int, workers: tuple[str, ...]) -> Step:
    do = rng.choice(("sleep", "sleep", "update", "burst", "raise", "swallow", "ask", "sleep long", "too large"))
    if do == "ask" and depth < 2 and max(workers) < NAMES[-1]:
        return Step("ask", ask=_draw_ask(rng, depth + 1, max(workers)))
    if do == "ask" and depth < 1 and len(workers) == 1:
        own = _draw_ask(rng, depth=2)  # one of the worker's own: it needs no second slot
        return Step("ask", ask=msgspec.structs.replace(own, workers=workers))
    if do == "raise" and rng.random() < 0.5:
        do = "update"
    seconds = {"sleep": rng.uniform(0, 2), "sleep long": rng.uniform(10, 25), "swallow": rng.uniform(0, 8)}.get(do, 0.0)
    return Step(do if do != "ask" else "update", seconds=round(seconds, 3), count=rng.choice((1, 5, 300)))
