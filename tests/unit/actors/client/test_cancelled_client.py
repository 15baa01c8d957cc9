"""What a cancelled client still has to say reaches the network: who works for it is told to stop."""

from __future__ import annotations

import anyio
import pytest

from actors import BaseWorker, Client, WorkerRunner, job

pytestmark = pytest.mark.anyio


class Desk(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun = anyio.Event()
        self.stopped = anyio.Event()

    @job
    async def hold(self) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.stopped.set()


async def test_the_job_of_a_client_that_is_cancelled_with_all_around_it_stops_at_once() -> None:
    desk = Desk("desk")
    async with WorkerRunner(bus="memory://cancelled-client", cancel_grace=1e6) as runner:
        await runner.add_workers(desk)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def ask() -> None:
                    async with Client("memory://cancelled-client") as client:
                        await client.request("desk", name="hold")

                tasks.start_soon(ask)
                with anyio.fail_after(60):
                    await desk.begun.wait()
                began = anyio.current_time()
                scope.cancel()
        assert desk.stopped.is_set()
        assert anyio.current_time() - began < 5
