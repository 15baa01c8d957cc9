"""Names as people give them, over real brokers."""

from __future__ import annotations

from typing import Literal

import anyio
import pytest

from actors import BaseWorker, Job, WorkerRunner, job
from bus import open_bus
from bus.brokers import Broker
from tests.integration.programs.fleet_worker import QUICK

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

LONGEST_WAIT = 60.0
NAMES = ["voice agent", "session:123", "user/42", "agent#1", "a@b", "Größe 大", "x*>.?", "%40", "{tag}", "$SYS.>"]
ANSWER = "tools/get weather"


class Relay(BaseWorker):
    """It answers with its own name, or with what the next worker answers."""

    @job(name=ANSWER)
    async def answer(self, job: Job[bool]) -> str:
        if not job.payload:
            return self.name
        following = NAMES[(NAMES.index(self.name) + 1) % len(NAMES)]
        answer: str = await self.job(following, name=ANSWER, payload=False, timeout=LONGEST_WAIT)
        return answer


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
async def test_a_printable_name_serves_for_workers_handlers_runners_and_namespaces(
    each_broker: Broker, delivery: Literal["at_least_once", "at_most_once"]
) -> None:
    def runner(name: str) -> WorkerRunner:
        bus = open_bus(each_broker.url, namespace="my fleet: 1 {a}>*", delivery=delivery, **QUICK)
        return WorkerRunner(name, bus, handle_sigint=False, handle_sigterm=False)

    serving, asking = runner("run #1: x"), runner("run #2/é")
    await serving.add_workers(*map(Relay, NAMES))
    asker = BaseWorker("asker@home")
    await asking.add_workers(asker)
    async with serving, asking:
        with anyio.fail_after(LONGEST_WAIT):
            for name, following in zip(NAMES, NAMES[1:] + NAMES[:1], strict=True):
                answer = await asker.job(name, name=ANSWER, payload=True, timeout=LONGEST_WAIT)
                assert answer == following
