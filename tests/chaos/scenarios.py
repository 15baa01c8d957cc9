"""The scenarios: what is done to a fleet, and what must hold all the same."""

from __future__ import annotations

import signal
from collections.abc import Callable

import msgspec

from bus import BusOptions
from tests.chaos.checker import Limits
from tests.chaos.lines import KILLED, Line
from tests.chaos.stage import QUICK, Node, Stage

LEASE = QUICK["ack_wait"]
SLACK = 3.0
"""Seconds a busy machine may be late by, besides what a promise says."""

MANY: BusOptions = {"max_deliver": 50}
"""Enough deliveries for a run with many deaths: that a job is given up is the subject of another."""

PATIENT: BusOptions = {**MANY, "lease": 20.0}
"""A requester that is cut off for longer than a lease counts as dead, and its jobs are cancelled: not here."""


class Size(msgspec.Struct, frozen=True):
    """How much of a fault: a quick look, or a long one."""

    jobs: int
    faults: int


class Scenario(msgspec.Struct, frozen=True):
    """One of them.

    Attributes:
        name: In the table.
        play: Does it, and returns what it promises.
        quick: Its size in the tests; None leaves it out there.
        full: Its size in `make chaos`.
    """

    name: str
    play: Callable[[Stage, Size], Limits]
    quick: Size | None
    full: Size


def workers_killed(stage: Stage, size: Size) -> Limits:
    """Workers are killed in the middle of jobs, and made again at once or when their death is known."""
    slots = 4
    names = [f"w{number}" for number in range(4)]
    for name in names:
        stage.node(name, slots=slots, options=MANY)
    requester = stage.node("r", watches=tuple(names))
    stage.ready()
    each = size.jobs // size.faults
    for number in range(size.faults):
        requester.ask(label=f"part{number}", count=each, at_once=24, seconds=(0.1, 0.6), events=3)
        stage.until(lambda: any(busy(stage.nodes[name]) for name in names), "the jobs do not begin")
        victim = stage.nodes[stage.rng.choice([name for name in names if busy(stage.nodes[name])])]
        victim.kill()
        if number % 2 == 0:
            before = len(stage.of("lost"))
            stage.until(lambda before=before: len(stage.of("lost")) > before, "a death is not known")  # type: ignore[misc]
        stage.ready(victim.again())
    stage.until(lambda: len(stage.of("asked")) == each * size.faults, "jobs do not go on")
    stage.all_told()
    return Limits(recover=LEASE + SLACK, executions=size.jobs + size.faults * slots)


def drained(stage: Stage, size: Size) -> Limits:
    """A worker with running and waiting jobs is told to end: what runs is finished, what waits is done by another."""
    running = size.jobs // 10
    first = stage.node("w0", slots=running)
    requester = stage.node("r")
    stage.ready()
    requester.ask(count=size.jobs, at_once=size.jobs, seconds=(1.0, 2.0), events=1)
    stage.until(lambda: len(first.lines("began")) >= running, "the jobs do not begin")
    first.signal(signal.SIGTERM, "told")
    second = stage.node("w1", slots=size.jobs)
    first.left()
    assert second.process.poll() is None
    stage.all_told()
    return Limits(accept=0.5, leave=2.0 + SLACK, executions=size.jobs)


def hurried(stage: Stage, size: Size) -> Limits:
    """A worker is told to end twice: it does not wait for its jobs, and who asked is told."""
    first = stage.node("w0", slots=size.jobs)
    requester = stage.node("r")
    stage.ready()
    requester.ask(count=size.jobs, at_once=size.jobs, seconds=(60.0, 60.0))
    stage.until(lambda: len(first.lines("began")) >= size.jobs, "the jobs do not begin")
    first.signal(signal.SIGTERM)
    stage.until(lambda: "SIGTERM: ending" in stage.logs(), "the first signal is not taken")
    first.signal(signal.SIGTERM, "told")
    first.left()
    stage.all_told()
    return Limits(leave=1.0 + SLACK, executions=size.jobs, statuses=frozenset({"cancelled"}))


def zombie(stage: Stage, size: Size) -> Limits:
    """A worker stands still for longer than its leases, and wakes while others have its jobs, or after."""
    sleeper = stage.node("w0", slots=size.jobs, options=MANY)
    requester = stage.node("r", watches=("w0", "w1"))
    stage.ready()
    for number in range(size.faults):
        seconds = 2.0 if number % 2 else 2.5 * LEASE  # the others have ended when it wakes, or have not
        label = f"turn{number}"
        requester.ask(label=label, count=size.jobs, at_once=size.jobs, seconds=(seconds, seconds), events=20)
        began = lambda node, label=label: [line for line in node.lines("began") if line.job.startswith(label)]  # noqa: E731
        stage.until(lambda began=began: len(began(sleeper)) == size.jobs, "the jobs do not begin")  # type: ignore[misc]
        sleeper.signal(signal.SIGSTOP, "paused")
        other = stage.nodes["w1"].again() if number else stage.node("w1", slots=size.jobs, options=MANY)
        stage.until(lambda began=began, other=other: len(began(other)) == size.jobs, "nobody takes over")  # type: ignore[misc]
        if number % 2:
            stage.all_told()
        else:
            stage.until(lambda: stage.of("lost"), "its silence is not noticed")
        sleeper.signal(signal.SIGCONT, "resumed")
        stage.all_told()
        other.close()
        stage.note("told", other)
        other.left()
    return Limits(wake=QUICK["heartbeat"] + SLACK)


def zombie_alone(stage: Stage, size: Size) -> Limits:
    """The only worker stands still for longer than its leases: it gets its own jobs again."""
    sleeper = stage.node("w0", slots=size.jobs, options=MANY)
    requester = stage.node("r")
    stage.ready()
    for number in range(size.faults):
        label = f"turn{number}"
        requester.ask(label=label, count=size.jobs, at_once=size.jobs, seconds=(1.5, 2.5), events=10)
        stage.until(lambda label=label: len(of_job(stage.of("saw"), label)) > size.jobs, "the jobs do not begin")  # type: ignore[misc]
        sleeper.signal(signal.SIGSTOP, "paused")
        stage.pass_time(stage.rng.uniform(1.5, 3) * LEASE)
        sleeper.signal(signal.SIGCONT, "resumed")
        stage.all_told()
    return Limits()


def loop_blocked(stage: Stage, size: Size) -> Limits:
    """Handlers block the event loop for longer than the leases: the worker is not dead, and nothing runs twice."""
    names = ("w0", "w1")
    for name in names:
        stage.node(name, slots=4)
    requester = stage.node("r", watches=names)
    stage.ready()
    requester.ask(label="good", count=size.jobs, at_once=4, seconds=(0.1, 0.5), events=2)
    requester.ask(label="block", count=size.faults, at_once=1, seconds=(3 * LEASE, 3 * LEASE), how="block")
    stage.until(lambda: len(stage.of("asked")) == size.jobs + size.faults, "jobs do not go on")
    stage.all_told()
    assert not stage.of("lost"), "a blocked one was taken for dead"
    assert "time.sleep(" in stage.logs(), "the stack that blocks is not logged"
    return Limits(executions=size.jobs + size.faults)


def broker_killed(stage: Stage, size: Size) -> Limits:
    """The broker is killed under load, and comes back with what it had written."""
    names = ("w0", "w1", "w2")
    for name in names:
        stage.node(name, slots=8, options=MANY)
    requester = stage.node("r", watches=names)
    stage.ready()
    requester.ask(count=size.jobs, at_once=24, seconds=(0.0, 0.3), events=3)
    for number in range(1, size.faults + 1):
        share = size.jobs * number // (size.faults + 1)
        stage.until(lambda share=share: len(stage.of("ended")) >= share, "jobs do not go on")  # type: ignore[misc]
        stage.broker.kill()
        stage.note("disturbed", number=1, detail=KILLED)
        noticed = lambda number=number: len(stage.of("disconnected")) >= number  # noqa: E731
        stage.until(noticed, "nobody notices")
        stage.broker.start()
        all_read_again(stage, f"again{number}", names)
    stage.until(lambda: len(stage.of("asked")) >= size.jobs, "jobs do not go on")
    stage.all_told()
    return Limits(forgets=stage.kind == "nats")


def all_read_again(stage: Stage, label: str, names: tuple[str, ...]) -> None:
    """Wait until every performer takes jobs, within 5 seconds."""
    marks = {name: len(stage.nodes[name].lines("began")) for name in names}

    def all_took() -> bool:
        return all(len(stage.nodes[name].lines("began")) > marks[name] for name in names)

    requester = stage.nodes["r"]
    requester.ask(label=label, count=60, at_once=30, seconds=(0.1, 0.3))
    stage.note("up", detail=f"reading again after {stage.until(all_took, 'not all read again', 5.0 + SLACK):.2f} s")


def broker_emptied(stage: Stage, size: Size) -> Limits:
    """The broker loses everything: who waits is told, and all goes on."""
    stage.node("w0", slots=4)
    stage.node("w1", slots=4)
    requester = stage.node("r", watches=("w0", "w1"))
    stage.ready()
    for number in range(size.faults):
        before = len(stage.of("ended"))
        requester.ask(label=f"turn{number}", count=size.jobs, at_once=size.jobs, seconds=(0.2, 0.6), events=3)
        stage.until(lambda before=before: len(stage.of("ended")) > before + 3, "the jobs do not go on")  # type: ignore[misc]
        knew = len(requester.lines("connected"))
        stage.empty_broker()
        stage.note("disturbed", number=1, detail="broker emptied")
        stage.until(lambda knew=knew: len(requester.lines("connected")) > knew, "its emptiness is not noticed")  # type: ignore[misc]
        requester.ask(label=f"after{number}", count=10, at_once=1, seconds=(0.0, 0.1))
        after = [f"after{number}.{each}" for each in range(10)]
        took = stage.until(lambda after=after: completed(stage, after), "it does not work again", LEASE + 5 + SLACK)  # type: ignore[misc]
        stage.note("up", detail=f"working again after {took:.2f} s")
        stage.all_told()
    return Limits(statuses=frozenset({"completed", "failed"}))


def connections_cut(stage: Stage, size: Size) -> Limits:
    """Connections are reset, half closed, filled with noise and held up, again and again."""
    names = ("w0", "w1", "w2")
    for name in names:
        stage.node(name, slots=8, proxied=True, options=PATIENT)
    requester = stage.node("r", proxied=True, options=PATIENT)
    stage.ready()
    baseline = {name: node.statistics()["files"] for name, node in stage.nodes.items()}
    asked = 0
    for _ in range(size.faults):
        if len(stage.of("asked")) - len(stage.of("ended")) < 8 and asked < size.jobs:
            count = max(1, size.jobs // 10)
            requester.ask(label=f"part{asked}", count=count, at_once=24, seconds=(0.0, 0.3), events=3, timeout=60.0)
            asked += count
        before = len(stage.of("ended"))
        node = stage.nodes[stage.rng.choice((*names, "r"))]
        assert node.proxy is not None
        how = stage.rng.choice(("reset", "reset", "half_close", "garble", "hold"))
        stage.note("disturbed", number=1, detail=f"{how} {node.life}")
        getattr(node.proxy, how)()
        if how == "hold":
            stage.pass_time(stage.rng.uniform(0.2, 1.5))
            node.proxy.release()
        stage.until(lambda before=before: len(stage.of("ended")) > before or settled(stage), "jobs do not go on")  # type: ignore[misc]
    requester.ask(label="last", count=30, at_once=10, seconds=(0.0, 0.1))
    stage.until(lambda: any(line.job == "last.29" for line in stage.of("asked")), "jobs do not go on")
    stage.all_told()
    for name, node in stage.nodes.items():
        stage.until(
            lambda name=name, node=node: node.statistics()["files"] <= baseline[name],  # type: ignore[misc]
            f"{node.life} keeps files open: {baseline[name]} before, now {node.statistics()['files']}",
        )
    return Limits()


def black_hole(stage: Stage, size: Size) -> Limits:
    """Nothing flows to a worker any more although its connections are open: it knows, and comes back."""
    options: BusOptions = {"heartbeat": 2.0, "lease": 6.0, "ack_wait": 6.0, **MANY}
    stage.node("w0", slots=4, proxied=True, options=options)
    stage.node("w1", slots=4, options=options)
    requester = stage.node("r", watches=("w0", "w1"), options=options)
    stage.ready()
    held = stage.nodes["w0"]
    assert held.proxy is not None
    for number in range(size.faults):
        requester.ask(label=f"turn{number}", count=size.jobs, at_once=24, seconds=(0.1, 0.4), events=2)
        stage.until(lambda: busy(held), "it gets no jobs")
        before = len(held.lines("disconnected"))
        held.proxy.hold()
        stage.note("disturbed", number=1, detail="black hole")
        noticed = lambda before=before: len(held.lines("disconnected")) > before  # noqa: E731
        seen = stage.until(noticed, "the black hole is not seen", 3 * 2.0 + SLACK)
        held.proxy.release()
        began = len(held.lines("began"))
        requester.ask(label=f"more{number}", count=40, at_once=20, seconds=(0.1, 0.2))
        back = stage.until(lambda began=began: len(held.lines("began")) > began, "no recovery", 3.0 + SLACK)  # type: ignore[misc]
        stage.note("up", detail=f"black hole seen after {seen:.2f} s, recovered {back:.2f} s after its end")
        stage.all_told()
    return Limits()


def slow_broker(stage: Stage, size: Size) -> Limits:
    """Everything takes two seconds to the broker and back: nobody is taken for dead, nothing is done twice."""
    options: BusOptions = {"heartbeat": 2.0, "lease": 6.0, "ack_wait": 10.0}
    nodes = [stage.node("w0", slots=4, proxied=True, options=options)]
    nodes.append(stage.node("w1", slots=4, proxied=True, options=options))
    nodes.append(stage.node("r", proxied=True, watches=("w0", "w1"), options=options))
    stage.ready()
    stage.until(lambda: len(stage.of("up")) >= 2, "they do not find each other")
    for node in nodes:
        assert node.proxy is not None
        node.proxy.latency = 1.0
    nodes[2].ask(count=size.jobs, at_once=size.jobs // 2, seconds=(0.1, 1.0), events=2)
    stage.until(lambda: len(stage.of("asked")) == size.jobs, "jobs do not go on")
    stage.all_told()
    assert not stage.of("lost"), "a slow one was taken for dead"
    for node in nodes:
        assert node.proxy is not None
        node.proxy.latency = 0.0
    return Limits(executions=size.jobs)


def poison(stage: Stage, size: Size) -> Limits:
    """A job kills each process that begins it: it is tried as often as it may be, then given up; others go on."""
    options: BusOptions = {"max_deliver": 3}
    names = ("w0", "w1")
    for name in names:
        stage.node(name, slots=1, options=options)
    requester = stage.node("r", watches=names)
    stage.ready()
    requester.ask(label="poison", count=size.faults, how="exit", seconds=(0.1, 0.1))
    requester.ask(label="good", count=size.jobs, at_once=4, seconds=(0.0, 0.1))

    def all_told() -> bool:
        for name in names:
            node = stage.nodes[name]
            if node.process.poll() is not None:
                stage.note("died", node)
                node.close()
                node.again()
        ended = {line.job for line in stage.of("ended")}
        return len(ended) == size.faults + size.jobs

    stage.until(all_told, "not every job has ended", 2 * 60.0)
    for line in stage.of("ended"):
        is_poison = line.job.startswith("poison")
        assert line.status == ("failed" if is_poison else "completed"), line
        if is_poison:
            assert "DeadLettered" in line.detail
            attempts = [began.attempt for began in stage.of("began") if began.job == line.job]
            assert sorted(attempts) == [1, 2, 3], (line.job, attempts)
    return Limits(recover=LEASE + SLACK, statuses=frozenset({"completed", "failed"}), executions=None)


RAISED = (
    "ValueError",
    "BaseException",
    "SystemExit",
    "KeyboardInterrupt",
    "GeneratorExit",
    "StopIteration",
    "StopAsyncIteration",
    "MemoryError",
    "RecursionError",
    "CancelledError",
    "ExceptionGroup",
    "BaseExceptionGroup",
    "Mute",
)


def anything_raised(stage: Stage, size: Size) -> Limits:
    """Handlers raise everything there is to raise: an error is the answer, and the process lives."""
    performer = stage.node("w0", slots=8)
    requester = stage.node("r")
    stage.ready()
    requester.ask(label="good", count=size.jobs, at_once=4, seconds=(0.1, 0.3), events=2)
    for kind in RAISED:
        requester.ask(label=kind, count=size.faults, at_once=2, how=kind, seconds=(0.0, 0.1), events=1)
    stage.until(lambda: len(stage.of("ended")) == size.jobs + size.faults * len(RAISED), "not every job has ended")
    assert performer.process.poll() is None
    for line in stage.of("ended"):
        assert line.status == ("completed" if line.job.startswith("good") else "error"), line
    statuses = frozenset({"completed", "error"})
    return Limits(statuses=statuses, executions=size.jobs + size.faults * len(RAISED))


def requester_killed(stage: Stage, size: Size) -> Limits:
    """Who asked is killed: what it asked for is stopped, and what others asked for is not."""
    names = ("w0", "w1")
    for name in names:
        stage.node(name, slots=size.jobs)
    survivor = stage.node("r", watches=names)
    stage.ready()
    for number in range(size.faults):
        victim = stage.node(f"v{number}")
        stage.ready(victim)
        victim.ask(label=f"orphan{number}", count=size.jobs, at_once=size.jobs, seconds=(30.0, 30.0), events=100)
        survivor.ask(label=f"kept{number}", count=size.jobs // 2, at_once=2, seconds=(0.5, 1.0), events=2)
        stage.until(
            lambda number=number: len(of_job(stage.of("began"), f"orphan{number}")) == size.jobs,  # type: ignore[misc]
            "the jobs do not begin",
        )
        victim.kill()
        stopped = lambda number=number: len(of_job(stage.of("stopped"), f"orphan{number}")) == size.jobs  # noqa: E731
        took = stage.until(stopped, "the jobs of the dead go on", LEASE + 2 + SLACK)
        stage.note("up", detail=f"jobs of the dead stopped after {took:.2f} s")
        stage.all_told()
    return Limits(orphans=LEASE + 2 + SLACK)


def clocks_jump(stage: Stage, size: Size) -> Limits:
    """The wall clocks of all processes are wrong by an hour, either way at each look: nobody cares."""
    names = ("w0", "w1")
    for name in names:
        stage.node(name, slots=4, clock=1.0)
    requester = stage.node("r", watches=names, clock=1.0)
    stage.ready()
    requester.ask(count=size.jobs, at_once=12, seconds=(0.1, LEASE), events=3, timeout=60.0)
    stage.until(lambda: len(stage.of("asked")) == size.jobs, "jobs do not go on")
    stage.all_told()
    assert not stage.of("lost"), "a wrong clock was taken for a death"
    return Limits(executions=size.jobs)


def all_killed(stage: Stage, size: Size) -> Limits:
    """Everything is killed and started again: nothing of before is left hanging, and all works."""
    names = ("w0", "w1", "r")
    for name in names:
        stage.node(name, slots=4 if name != "r" else 0, options=MANY)
    stage.ready()
    for number in range(size.faults):
        stage.nodes["r"].ask(label=f"turn{number}", count=size.jobs, at_once=24, seconds=(0.1, 0.5), events=3)
        stage.until(
            lambda number=number: len(of_job(stage.of("ended"), f"turn{number}")) > size.jobs // 4,  # type: ignore[misc]
            "the jobs do not go on",
        )
        stage.broker.kill()
        stage.note("disturbed", number=1, detail=KILLED)
        for name in names:
            stage.nodes[name].kill()
        stage.broker.start()
        for name in names:
            stage.nodes[name].again()
        stage.ready(*(stage.nodes[name] for name in names))
        stage.nodes["r"].ask(label=f"after{number}", count=20, at_once=10, seconds=(0.0, 0.2), events=2)
        stage.until(
            lambda number=number: completed(stage, [f"after{number}.{each}" for each in range(20)]),  # type: ignore[misc]
            "it does not work again",
        )
    stage.until(lambda: not any(stage.nodes[name].statistics()["held"] for name in names), "jobs of the dead go on")
    return Limits(orphans=LEASE + 2 + SLACK, forgets=stage.kind == "nats")


def all_at_once(stage: Stage, size: Size) -> Limits:
    """Kills, stand-stills, cut connections and deaths of the broker, in any order, under load."""
    names = ("w0", "w1", "w2", "w3")
    for name in names:
        stage.node(name, slots=6, proxied=True, options=PATIENT)
    for name in ("r", "s"):
        stage.node(name, proxied=True, options=PATIENT)
    stage.ready()
    each = max(1, size.jobs // size.faults)
    for number in range(size.faults):
        requester = stage.nodes[stage.rng.choice(("r", "s"))]
        requester.ask(label=f"part{number}", count=each, at_once=12, seconds=(0.0, 1.0), events=5)
        stage.pass_time(stage.rng.uniform(0.0, 1.0))
        how = stage.rng.choice(("kill", "kill", "pause", "pause", "reset", "half_close", "garble", "hold", "broker"))
        node = stage.nodes[stage.rng.choice(names if how in {"kill", "pause"} else (*names, "r", "s"))]
        assert node.proxy is not None
        if how == "kill":
            node.kill()
            node.again()
        elif how == "pause":
            node.signal(signal.SIGSTOP, "paused")
            stage.pass_time(stage.rng.uniform(0.2, 1.6) * LEASE)
            node.signal(signal.SIGCONT, "resumed")
        elif how == "broker":
            stage.note("disturbed", number=1, detail=KILLED)
            stage.broker.kill()
            stage.pass_time(stage.rng.uniform(0.0, 1.0))
            stage.broker.start()
        else:
            stage.note("disturbed", number=1, detail=f"{how} {node.life}")
            getattr(node.proxy, how)()
            stage.pass_time(stage.rng.uniform(0.0, 1.0))
            node.proxy.release()
    stage.until(lambda: len(stage.of("asked")) >= each * size.faults, "jobs do not go on")
    stage.all_told()
    return Limits(forgets=stage.kind == "nats")


def busy(node: Node) -> bool:
    """Whether it is in the middle of a job."""
    over = {(line.job, line.attempt) for line in node.lines("finished", "stopped")}
    return any((line.job, line.attempt) not in over for line in node.lines("began"))


def settled(stage: Stage) -> bool:
    """Whether every job so far has ended."""
    return len(stage.of("ended")) == len(stage.of("asked"))


def completed(stage: Stage, jobs: list[str]) -> bool:
    """Whether these have."""
    done = {line.job for line in stage.of("ended") if line.status == "completed"}
    return all(job in done for job in jobs)


def of_job(lines: list[Line], label: str) -> list[Line]:
    """The lines of the jobs of one label."""
    return [line for line in lines if line.job.startswith(f"{label}.")]


SCENARIOS = (
    Scenario("workers killed", workers_killed, Size(60, 3), Size(200, 20)),
    Scenario("drained", drained, Size(110, 1), Size(550, 1)),
    Scenario("second signal", hurried, Size(10, 1), Size(50, 1)),
    Scenario("zombie", zombie, Size(3, 1), Size(4, 4)),
    Scenario("zombie alone", zombie_alone, None, Size(10, 4)),
    Scenario("loop blocked", loop_blocked, Size(20, 1), Size(40, 2)),
    Scenario("broker killed", broker_killed, Size(150, 2), Size(1000, 10)),
    Scenario("broker emptied", broker_emptied, Size(30, 1), Size(60, 5)),
    Scenario("connections cut", connections_cut, Size(150, 10), Size(1500, 100)),
    Scenario("black hole", black_hole, None, Size(60, 2)),
    Scenario("slow broker", slow_broker, None, Size(20, 1)),
    Scenario("poison", poison, Size(20, 1), Size(60, 3)),
    Scenario("anything raised", anything_raised, Size(10, 1), Size(50, 5)),
    Scenario("requester killed", requester_killed, Size(4, 1), Size(10, 3)),
    Scenario("clocks jump", clocks_jump, None, Size(60, 1)),
    Scenario("all at once", all_at_once, None, Size(1000, 60)),
    Scenario("all killed", all_killed, Size(40, 1), Size(100, 3)),
)
