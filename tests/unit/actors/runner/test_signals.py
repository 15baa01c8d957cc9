"""Signals and the body of a block: G53. They are sent to this process, which gets them as a program does."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from actors import BaseWorker, Client, RestartPolicy, WorkerRunner, job
from actors.runner.signals import watch, watching
from actors.worker.verbs import core_of
from tests.support.workers import Asker, Performer

pytestmark = pytest.mark.anyio

SIGNALS = [signal.SIGINT, signal.SIGTERM]
any_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@any_signal
async def test_g53_a_signal_cancels_the_body_and_the_block_is_left(number: signal.Signals) -> None:
    before, told = signal.getsignal(number), False
    async with WorkerRunner() as runner:
        await runner.add_workers(worker := BaseWorker("worker"))
        send(number)
        try:
            await anyio.sleep_forever()
        finally:
            told = True
    assert told
    assert core_of(worker).state.name == "STOPPED"
    assert signal.getsignal(number) is before


@any_signal
async def test_g53_a_handler_of_the_program_is_called_and_the_runner_goes_on(number: signal.Signals) -> None:
    heard: list[int] = []
    signal.signal(number, handler := lambda came, _frame: heard.append(came))
    async with WorkerRunner() as runner:
        send(number)
        await anyio.wait_all_tasks_blocked()
        assert heard == [number]
        assert runner.running
        assert signal.getsignal(number) is handler
    assert signal.getsignal(number) is handler


@any_signal
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_g53_a_handler_of_the_loop_is_called_and_stays(number: signal.Signals, when: str) -> None:
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    if when == "before":
        loop.add_signal_handler(number, heard.set)
    async with WorkerRunner() as runner:
        if when == "meanwhile":
            loop.add_signal_handler(number, heard.set)
        send(number)
        await heard.wait()
        assert runner.running
    heard.clear()
    send(number)
    await heard.wait()
    assert loop.remove_signal_handler(number)


@any_signal
async def test_g53_a_handler_that_is_set_meanwhile_has_the_signal_and_one_that_is_put_back_gives_it_on(
    number: signal.Signals,
) -> None:
    heard: list[int] = []
    async with WorkerRunner() as runner:
        ours = signal.signal(number, lambda came, _frame: heard.append(came))
        send(number)
        await anyio.wait_all_tasks_blocked()
        assert heard == [number]
        assert runner.running
        signal.signal(number, ours)  # as servers do when they have ended
        send(number)
        await anyio.sleep_forever()
    assert heard == [number]


async def test_g53_who_puts_our_handler_back_when_nobody_watches_has_what_stood_there_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = watch(signal.SIGINT, print)
    ours = signal.getsignal(signal.SIGINT)
    stop()
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with watching([signal.SIGTERM], print):
        kept = signal.getsignal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.signal(signal.SIGTERM, kept)
    send(signal.SIGTERM)  # is ignored, as it was
    assert ours is kept


async def test_g53_all_runners_of_a_process_are_told_once_each() -> None:
    told: list[int] = []
    with watching(SIGNALS, told.append), anyio.fail_after(60):
        async with WorkerRunner() as outer:
            async with WorkerRunner() as inner:
                send(signal.SIGTERM)
                await anyio.sleep_forever()
            assert not inner.running
        assert not outer.running
    assert told == [signal.SIGTERM]


async def test_g53_a_runner_in_a_thread_of_its_own_has_no_signals() -> None:
    seen: list[Any] = []

    async def program() -> None:
        async with WorkerRunner() as runner:
            seen.append((signal.getsignal(signal.SIGTERM), runner.running))

    before = signal.getsignal(signal.SIGTERM)
    await anyio.to_thread.run_sync(asyncio.run, program())
    assert seen == [(before, True)]


@any_signal
@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        (0, "no job is under way; workers that clean up have up to 10 s each"),
        (1, "waiting up to 7.5 s for 1 job of 'worker'"),
        (3, "waiting up to 7.5 s for 3 jobs of 'worker'"),
    ],
)
async def test_g53_the_first_signal_says_what_is_waited_for_and_the_second_stops(
    number: signal.Signals, jobs: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    runner, asker = WorkerRunner(drain_timeout=7.5), Asker()
    await runner.add_workers(asker, Performer("worker"))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await anyio.wait_all_tasks_blocked()
            for _ in range(jobs):
                await asker.request_job("worker", name="work")
            await anyio.wait_all_tasks_blocked()
            send(number)
            await anyio.wait_all_tasks_blocked()
            again = "Ctrl-C" if number is signal.SIGINT else "SIGTERM"
            assert [each.message for each in caplog.records] == [
                f"{number.name}: ending, {said}; {again} once more stops at once"
            ]
            assert runner.running == bool(jobs)
            if jobs:
                send(number)
    assert not runner.running


class Slow(BaseWorker):
    @job
    async def nap(self) -> None:
        await anyio.sleep_forever()


ENDS: dict[str, Callable[[WorkerRunner, BaseWorker], Any]] = {
    "the runner's end": lambda runner, _worker: runner.end(),
    "the runner's cancel": lambda runner, _worker: runner.cancel(),
    "a worker's end": lambda _runner, worker: worker.end(),
    "a worker's cancel": lambda _runner, worker: worker.cancel(),
}

WAITS: dict[str, Callable[[Client], Any]] = {
    "nothing": lambda _client: anyio.sleep_forever(),
    "a job": lambda client: client.request("slow", name="nap"),
    "many jobs": lambda client: client.gather("slow", [None] * 3, name="nap"),
}


@pytest.mark.parametrize("waits", WAITS)
@pytest.mark.parametrize("how", ENDS)
async def test_g53_an_end_by_another_cancels_the_body_whatever_it_waits_for(how: str, waits: str) -> None:
    runner = WorkerRunner(drain_timeout=0.0, cancel_grace=1.0)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks, runner, Client(runner) as client:
            await runner.add_workers(slow := Slow("slow"))

            async def end() -> None:
                await anyio.wait_all_tasks_blocked()
                await ENDS[how](runner, slow)

            tasks.start_soon(end)
            await WAITS[waits](client)
            pytest.fail("went on")
        assert not runner.running


@pytest.mark.parametrize("how", ENDS)
async def test_g53_a_body_that_ends_its_runner_goes_on_until_that_has_ended(how: str) -> None:
    runner, steps = WorkerRunner(), list[str]()
    with anyio.fail_after(60):
        async with runner:
            await runner.add_workers(slow := Slow("slow"))
            await ENDS[how](runner, slow)
            steps.append("went on")
            await anyio.sleep_forever()
            steps.append("for ever")
    assert steps == ["went on"]


async def test_g53_an_error_of_the_body_while_the_runner_fails_tells_both() -> None:
    class Failing(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()
            raise ValueError("boom")

    async def script() -> None:
        async with WorkerRunner() as runner:
            try:
                await runner.supervise(lambda: Failing("failing"), restart=RestartPolicy(max_restarts=0))
                await anyio.sleep_forever()
            finally:
                raise KeyError("body")

    with pytest.raises(Exception, match="boom") as caught:
        await script()
    assert isinstance(caught.value.__context__, KeyError)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("inside", [True, False])
async def test_g53_a_timeout_around_or_inside_the_block_is_a_timeout(inside: bool) -> None:
    async def block() -> None:
        async with WorkerRunner() as runner:
            if inside:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await asyncio.sleep(60)
                assert runner.running
            else:
                await asyncio.sleep(60)

    if inside:
        await block()
        return
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await block()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
