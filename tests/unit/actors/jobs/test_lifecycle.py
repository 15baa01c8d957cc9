"""The tables of states: every pair of them is walked, and real workers only make the steps they allow."""

from __future__ import annotations

from enum import Enum
from itertools import product
from typing import Any

import anyio
import pytest

from actors import BaseWorker, JobError, job
from actors.jobs.lifecycle import (
    ADMISSION_STEPS,
    ALIVE,
    ENDING,
    JOB_STEPS,
    WORKER_STEPS,
    AdmissionState,
    JobState,
    StateT,
    WorkerState,
    moved,
)
from actors.worker.core import WorkerCore
from bus.delivery.claims import TRANSITIONS as CLAIM_STEPS
from bus.delivery.claims import Claim, ClaimState
from bus.memory.queues import TRANSITIONS, Entry, EntryState
from bus.messages import BusJobRequestMessage
from tests.support.running import execution_of, running

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
    "WAITING RUNNING",
    "WAITING ENDED",
    "RUNNING OPEN",
    "RUNNING ANSWERED",
    "RUNNING STOPPING",
    "RUNNING ENDED",
    "OPEN ENDED",
    "ANSWERED CLOSING",
    "ANSWERED ENDED",
    "STOPPING CLOSING",
    "STOPPING QUARANTINED",
    "STOPPING ENDED",
    "CLOSING QUARANTINED",
    "CLOSING ENDED",
    "QUARANTINED ENDED",
    "RUNNING ABANDONED",
    "ANSWERED ABANDONED",
    "STOPPING ABANDONED",
    "CLOSING ABANDONED",
    "ABANDONED ENDED",
}

ADMISSION_LIFE = {
    "PAUSED SERVING",
    "PAUSED DRAINING",
    "PAUSED CLOSED",
    "SERVING PAUSED",
    "SERVING DRAINING",
    "SERVING CLOSED",
    "DRAINING CLOSED",
}

CLAIM_LIFE = {
    "HELD WAITING",
    "HELD ENDING",
    "HELD ENDED",
    "WAITING HELD",
    "WAITING ENDING",
    "WAITING ENDED",
    "ENDING ENDED",
}

ENTRY_LIFE = {
    "READY CLAIMED",
    "READY DELETED",
    "CLAIMED READY",
    "CLAIMED DELETED",
    "CLAIMED DEAD",
}


def assert_step(old: StateT, new: StateT, steps: dict[StateT, tuple[StateT, ...]], life: set[str]) -> None:
    """A step that stands in `life` is made, any other is refused by name."""
    if f"{old.name} {new.name}" in life:
        assert moved(steps, old, new) is new
    else:
        with pytest.raises(AssertionError, match=f"{old.name}.*{new.name}"):
            moved(steps, old, new)


def assert_move(thing: Claim | Entry, new: ClaimState | EntryState, life: set[str]) -> None:
    """The same for what keeps its own state; it keeps that when it refuses."""
    old = thing.state
    if f"{old.name} {new.name}" in life:
        thing.move(new)  # type: ignore[arg-type]  # of its own kind
        assert thing.state is new
    else:
        with pytest.raises(RuntimeError, match=f"{old.value}.* cannot become {new.value}"):
            thing.move(new)  # type: ignore[arg-type]  # as above
        assert thing.state is old


@pytest.mark.parametrize(("old", "new"), list(product(WorkerState, repeat=2)))
def test_a_worker_makes_each_step_of_its_life_and_no_other(old: WorkerState, new: WorkerState) -> None:
    assert_step(old, new, WORKER_STEPS, WORKER_LIFE)


@pytest.mark.parametrize(("old", "new"), list(product(JobState, repeat=2)))
def test_a_job_makes_each_step_of_its_life_and_no_other(old: JobState, new: JobState) -> None:
    assert_step(old, new, JOB_STEPS, JOB_LIFE)


@pytest.mark.parametrize(("old", "new"), list(product(AdmissionState, repeat=2)))
def test_an_admission_makes_each_step_of_its_life_and_no_other(old: AdmissionState, new: AdmissionState) -> None:
    assert_step(old, new, ADMISSION_STEPS, ADMISSION_LIFE)


@pytest.mark.parametrize(("old", "new"), list(product(ClaimState, repeat=2)))
def test_a_claim_makes_each_step_of_its_life_and_no_other(old: ClaimState, new: ClaimState) -> None:
    claim = Claim(None, BusJobRequestMessage(source="boss", target="w", job_id="j"), "frame", 0.0, 0.0, state=old)
    assert_move(claim, new, CLAIM_LIFE)


@pytest.mark.parametrize(("old", "new"), list(product(EntryState, repeat=2)))
def test_a_queued_frame_makes_each_step_of_its_life_and_no_other(old: EntryState, new: EntryState) -> None:
    entry = Entry("queue", "frame", b"")
    entry.state = old
    assert_move(entry, new, ENTRY_LIFE)


@pytest.mark.parametrize(
    ("steps", "states", "first", "ends"),
    [
        (WORKER_STEPS, WorkerState, WorkerState.NEW, {WorkerState.STOPPED}),
        (JOB_STEPS, JobState, JobState.WAITING, {JobState.ENDED}),
        (ADMISSION_STEPS, AdmissionState, AdmissionState.PAUSED, {AdmissionState.CLOSED}),
        (CLAIM_STEPS, ClaimState, ClaimState.HELD, {ClaimState.ENDED}),
        (TRANSITIONS, EntryState, EntryState.READY, {EntryState.DELETED, EntryState.DEAD}),
    ],
    ids=["worker", "job", "admission", "claim", "frame"],
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
        self.fails_in = fails_in

    async def start(self) -> None:
        if self.fails_in == "start":
            raise ValueError("no")
        await super().start()
        if self.fails_in == "run":
            raise ValueError("no")

    @job(name="sleep")
    async def sleep(self) -> None:
        await anyio.sleep_forever()


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The states that each worker goes through, by its name."""
    seen: dict[str, list[str]] = {}
    move = WorkerCore.move

    def noted(core: WorkerCore, state: WorkerState) -> None:
        life = seen.setdefault(core.name, [core.state.name])
        move(core, state)
        assert f"{life[-1]} {state.name}" in WORKER_LIFE
        life.append(state.name)

    monkeypatch.setattr(WorkerCore, "move", noted)
    return seen


@pytest.mark.anyio
async def test_the_state_of_a_worker_is_shown_where_it_is_printed(lives: dict[str, list[str]]) -> None:
    removed, stopped = Witness("removed"), Witness("stopped")
    assert repr(removed) == "<Witness removed new>"
    async with running(Witness("other"), removed, stopped) as runner:
        await anyio.wait_all_tasks_blocked()
        assert repr(removed) == "<Witness removed ready>"
        await runner.remove_worker("removed")
        await stopped.stop()
        assert repr(stopped) == "<Witness stopped stopped>"
    assert " ".join(lives["removed"]) == "NEW ATTACHED STARTING READY DRAINING STOPPING STOPPED"
    assert " ".join(lives["stopped"]) == "NEW ATTACHED STARTING READY STOPPING STOPPED"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fails_in", "life"),
    [
        ("start", "NEW ATTACHED STARTING STOPPING STOPPED"),
        ("run", "NEW ATTACHED STARTING READY STOPPING STOPPED"),
    ],
)
async def test_a_worker_that_fails_goes_straight_to_its_end(
    fails_in: str, life: str, lives: dict[str, list[str]]
) -> None:
    failing = Witness("failing", fails_in=fails_in)
    async with running(Witness("other"), failing):
        await failing.wait()
    assert " ".join(lives["failing"]) == life


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
        assert repr(execution_of(worker, "j1")) == "<Job j1 sleep running attempt=1>"
        assert repr(asker.job_groups["j1"]) == "<JobGroup j1 1 open workers=worker>"
        await context.cancel()
