"""What a worker says right before it is gone is heard, and what is said about it is true."""

from __future__ import annotations

import anyio
import pytest

from actors import Backoff, BaseWorker, RestartPolicy, WorkerParams, WorkerRunner, job
from bus import BusCancelMessage, BusEndMessage, WorkerErrorData

pytestmark = pytest.mark.anyio


class Last(BaseWorker):
    def __init__(self, words: str) -> None:
        super().__init__("last")
        self.words = words

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        if self.words == "end":
            await self.end()
        elif self.words == "cancel":
            await self.cancel()
        elif self.words == "end message":
            await self.send_bus_message(BusEndMessage(source=self.name))
        else:
            await self.send_bus_message(BusCancelMessage(source=self.name))


@pytest.mark.parametrize("words", ["end", "cancel", "end message", "cancel message"])
async def test_g30_a_worker_that_ends_the_session_and_stops_is_heard(words: str) -> None:
    runner = WorkerRunner()
    await runner.add_workers(BaseWorker("another"), Last(words))
    with anyio.fail_after(60):
        await runner.run()


class Failing(BaseWorker):
    def __init__(self) -> None:
        super().__init__("child")

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        raise ValueError("again")


class Parent(BaseWorker):
    def __init__(self) -> None:
        super().__init__("parent")
        self.told: list[bool] = []

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        self.told.append(data.restarting)


async def test_g29_the_parent_is_told_which_failure_is_the_last(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "actorbus")
    async with WorkerRunner() as runner:
        parent = Parent()
        await runner.add_workers(parent)
        await parent.supervise(Failing, restart=RestartPolicy(max_restarts=2, backoff=Backoff(first=0)))
        await parent.wait()
    assert parent.told == [True, True, False]


class Slow(BaseWorker):
    def __init__(self) -> None:
        super().__init__("slow")
        self.begun = anyio.Event()

    @job
    async def last(self) -> None:
        self.begun.set()
        await anyio.sleep_forever()


@pytest.mark.parametrize(("cut_short", "told"), [(True, []), (False, ["jobs did not drain in time"])])
async def test_g30_only_a_drain_that_took_too_long_is_told_as_one(
    cut_short: bool, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow()
    with anyio.fail_after(60):
        async with WorkerRunner(drain_timeout=3600 if cut_short else 0) as runner:
            await runner.add_workers(slow, BaseWorker("asker"))
            asker = runner.get_worker("asker")
            assert asker is not None
            await asker.request_job("slow", name="last")
            await slow.begun.wait()
            await runner.end()
            await anyio.wait_all_tasks_blocked()
            if cut_short:
                await runner.cancel()
    assert [record.getMessage().partition(" runner=")[0] for record in caplog.records] == told
