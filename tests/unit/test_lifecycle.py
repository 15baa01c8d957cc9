"""The tables of states: every pair of them is walked, and real workers only make the steps they allow."""

from __future__ import annotations

from enum import Enum
from itertools import pairwise, product
from typing import Any

import anyio
import pytest

from actors import BaseWorker, JobError, job
from actors.jobs.lifecycle import ALIVE, ENDING, JOB_STEPS, WORKER_STEPS, JobState, WorkerState, moved
from bus.memory.queues import TRANSITIONS, Entry, EntryState
from tests.running import running

WORKER_LIFE = {
    "NEW ATTACHED",
    "ATTACHED STARTING",
    "ATTACHED DRAINING",
    "ATTACHED STOPPING",
    "STARTING READY",
    "STARTING DRAINING",
    "STARTING STOPPING",
    "READY DRAINING",
    "READY STOPPING",
    "DRAINING STOPPING",
    "STOPPING STOPPED",
}

JOB_LIFE = {
    "PENDING RUNNING",
    "PENDING ENDED",
    "RUNNING OPEN",
    "RUNNING CANCELLING",
    "RUNNING ENDED",
    "OPEN ENDED",
    "CANCELLING ENDED",
}

ENTRY_LIFE = {
    "READY CLAIMED",
    "READY DELETED",
    "CLAIMED READY",
    "CLAIMED DELETED",
    "CLAIMED DEAD",
}


@pytest.mark.parametrize(("old", "new"), list(product(WorkerState, repeat=2)))
def test_a_worker_makes_each_step_of_its_life_and_no_other(old: WorkerState, new: WorkerState) -> None:
    if f"{old.name} {new.name}" in WORKER_LIFE:
        assert moved(WORKER_STEPS, old, new) is new
    else:
        with pytest.raises(AssertionError, match=f"{old.name}.*{new.name}"):
            moved(WORKER_STEPS, old, new)


@pytest.mark.parametrize(("old", "new"), list(product(JobState, repeat=2)))
def test_a_job_makes_each_step_of_its_life_and_no_other(old: JobState, new: JobState) -> None:
    if f"{old.name} {new.name}" in JOB_LIFE:
        assert moved(JOB_STEPS, old, new) is new
    else:
        with pytest.raises(AssertionError, match=f"{old.name}.*{new.name}"):
            moved(JOB_STEPS, old, new)


@pytest.mark.parametrize(("old", "new"), list(product(EntryState, repeat=2)))
def test_a_queued_frame_makes_each_step_of_its_life_and_no_other(old: EntryState, new: EntryState) -> None:
    entry = Entry("queue", "frame", b"")
    entry.state = old
    if f"{old.name} {new.name}" in ENTRY_LIFE:
        entry.move(new)
        assert entry.state is new
    else:
        with pytest.raises(RuntimeError, match=f"{old.value}.* cannot become {new.value}"):
            entry.move(new)
        assert entry.state is old


@pytest.mark.parametrize(
    ("steps", "states", "first", "ends"),
    [
        (WORKER_STEPS, WorkerState, WorkerState.NEW, {WorkerState.STOPPED}),
        (JOB_STEPS, JobState, JobState.PENDING, {JobState.ENDED}),
        (TRANSITIONS, EntryState, EntryState.READY, {EntryState.DELETED, EntryState.DEAD}),
    ],
    ids=["worker", "job", "frame"],
)
def test_every_state_can_be_reached_and_leads_to_an_end(
    steps: dict[Any, tuple[Any, ...]], states: type[Enum], first: Enum, ends: set[Enum]
) -> None:
    def from_here(state: Enum) -> set[Enum]:
        seen, todo = {state}, [state]
        while todo:
            for after in steps[todo.pop()]:
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
        return seen

    assert set(steps) == set(states) == from_here(first)
    assert {state for state in states if not steps[state]} == ends
    assert all(from_here(state) & ends for state in states)


def test_the_named_sets_of_states_are_the_ones_before_and_during_the_end() -> None:
    assert {state.name for state in ALIVE} == {"ATTACHED", "STARTING", "READY"}
    assert {state.name for state in ENDING} == {"DRAINING", "STOPPING"}


class Witness(BaseWorker):
    """Writes down which states it goes through."""

    def __init__(self, name: str, *, fails_in: str = "") -> None:
        super().__init__(name)
        self.seen = [self.state]
        self.fails_in = fails_in

    def _move(self, state: WorkerState) -> None:
        super()._move(state)
        self.seen.append(state)

    async def start(self) -> None:
        if self.fails_in == "start":
            raise ValueError("no")
        await super().start()
        if self.fails_in == "run":
            raise ValueError("no")

    @job(name="sleep")
    async def sleep(self) -> None:
        await anyio.sleep_forever()

    @property
    def life(self) -> str:
        assert all(f"{old.name} {new.name}" in WORKER_LIFE for old, new in pairwise(self.seen))
        return " ".join(state.name for state in self.seen)


@pytest.mark.anyio
async def test_the_state_of_a_worker_is_shown_where_it_is_printed() -> None:
    removed, stopped = Witness("removed"), Witness("stopped")
    assert repr(removed) == "<Witness removed new>"
    async with running(Witness("other"), removed, stopped) as runner:
        await anyio.wait_all_tasks_blocked()
        assert repr(removed) == "<Witness removed ready>"
        await runner.remove_worker("removed")
        await stopped.stop()
        assert repr(stopped) == "<Witness stopped stopped>"
    assert removed.life == "NEW ATTACHED STARTING READY DRAINING STOPPING STOPPED"
    assert stopped.life == "NEW ATTACHED STARTING READY STOPPING STOPPED"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fails_in", "life"),
    [
        ("start", "NEW ATTACHED STARTING STOPPING STOPPED"),
        ("run", "NEW ATTACHED STARTING READY STOPPING STOPPED"),
    ],
)
async def test_a_worker_that_fails_goes_straight_to_its_end(fails_in: str, life: str) -> None:
    failing = Witness("failing", fails_in=fails_in)
    async with running(Witness("other"), failing):
        await failing.wait()
    assert failing.life == life


@pytest.mark.anyio
async def test_the_state_of_a_job_is_shown_where_it_is_printed() -> None:
    worker, asker = Witness("worker"), Witness("asker")
    async with running(worker, asker), anyio.create_task_group() as tasks:
        context = asker.job("worker", name="sleep", job_id="j1")

        async def ask() -> None:
            with pytest.raises(JobError):
                await context

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert worker._executor is not None
        assert repr(worker._executor.jobs["j1"]) == "<Job j1 sleep running attempt=1>"
        assert repr(asker.job_groups["j1"]) == "<JobGroup j1 1 open workers=worker>"
        await context.cancel()
