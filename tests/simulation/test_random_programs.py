"""Random programs on a failing network: nothing is lost, nothing hangs, nothing is left; more by `make simulate`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from actors import JobStatus
from actors.testing import Simulation
from actors.testing.history import judge
from tests.simulation.plan import Ask, Step
from tests.simulation.program import Actor, Asker, Recorder
from tests.simulation.run import Tally, simulate
from tests.support.environment import environment

SEEDS = 48


@pytest.mark.parametrize("first", range(0, SEEDS, 8))
def test_g18_g20_g24_every_job_ends_once_and_nothing_is_left_whatever_fails(first: int) -> None:
    for seed in range(first, first + 8):
        outcome = simulate(seed)
        assert outcome.problems == (), f"make simulate SEED={seed}"


def test_jobs_that_nothing_keeps_from_it_complete_and_many_in_another_process() -> None:
    tally = Tally()
    for seed in range(SEEDS):
        tally.add(simulate(seed))
    assert not tally.says_little, str(tally)
    assert tally.plain > SEEDS


def test_a_system_in_which_nothing_completes_says_little() -> None:
    assert Tally().says_little


def test_the_same_seed_gives_the_same_trace_in_another_process() -> None:
    here = simulate(7)
    command = [sys.executable, "-c", "from tests.simulation.run import simulate; print(simulate(7).digest)"]
    digests = [
        subprocess.run(
            command, env=environment(PYTHONHASHSEED=hash_seed), check=True, capture_output=True, text=True
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]
    assert digests == [here.digest, here.digest]
    assert len(here.trace) > 100


def test_different_seeds_give_different_programs() -> None:
    assert len({simulate(seed).digest for seed in range(5)}) == 5


def test_g44_what_a_job_sends_inside_a_process_does_not_reach_replicas_of_its_requester() -> None:
    async def program(sim: Simulation) -> tuple[Any, Any]:
        recorder = Recorder(sim)
        ask = Ask(("w1",), "", (Step("sleep", 1.0), Step("update", count=1), Step("sleep", 1.0), Step("too large")))
        await sim.start("a", Asker("w0", recorder), Actor("w1", recorder))
        await sim.start("b", Asker("w0", recorder))
        worker = sim.runner("a").get_worker("w0")  # type: ignore[union-attr]
        assert isinstance(worker, Asker)
        await worker.ask(ask)
        return recorder.lines[-1].status, (*recorder.problems, *judge(recorder.lines).violations)

    assert Simulation(seed=1).run(program) == (JobStatus.COMPLETED, ())
