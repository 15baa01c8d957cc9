"""How far a job walks in one process: calls, files, and changes from one file to another. Counted, not timed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from actors import BaseWorker, Job, WorkerRunner, job
from tests.support.environment import ROOT

FIELDS = {f"field-{number}": value for number, value in enumerate([1, "two", 3.0, None, True, "six", 7, "8", 9, 10])}

CODE = (str(ROOT / "actors") + "/", str(ROOT / "bus") + "/")


class Echo(BaseWorker):
    @job
    async def echo(self, job: Job[dict[str, Any]]) -> dict[str, Any]:
        return job.payload


class Walk:
    """The calls of functions of this project, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(CODE):
            place = str(Path(frame.f_code.co_filename).relative_to(ROOT))
            self.calls.append((place, frame.f_code.co_qualname))

    @property
    def files(self) -> set[str]:
        return {place for place, _ in self.calls}

    @property
    def changes(self) -> int:
        return sum(one != other for (one, _), (other, _) in pairwise(self.calls))

    def __str__(self) -> str:
        return "\n".join(f"{place} {name}" for place, name in self.calls)


@pytest.fixture
async def asker() -> AsyncIterator[BaseWorker]:
    asking = BaseWorker("asker")
    async with WorkerRunner(handle_sigint=False, handle_sigterm=False) as runner:
        await runner.add_workers(Echo("echo"), asking)
        yield asking


async def entered(asker: BaseWorker, timeout: float | None) -> Any:
    async with asker.job("echo", name="echo", payload=FIELDS, timeout=timeout) as asked:
        pass
    return asked.response


async def awaited(asker: BaseWorker, timeout: float | None) -> Any:
    return await asker.job("echo", name="echo", payload=FIELDS, timeout=timeout)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("timeout", "most"), [(None, (40, 10, 16)), (30.0, (40, 11, 20))])
@pytest.mark.parametrize("ask", [entered, awaited])
async def test_a_job_in_process_walks_no_further_than_it_must(
    asker: BaseWorker,
    ask: Any,
    timeout: float | None,
    most: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "structlog", raising=False)  # a program that does not log has not loaded it
    for _ in range(20):
        await ask(asker, timeout)
    walk = Walk()
    before = sys.getprofile()
    sys.setprofile(walk)
    try:
        answer = await ask(asker, timeout)
    finally:
        sys.setprofile(before)
    assert answer == FIELDS
    assert {"actors/requester/request.py", "actors/performer/execution.py", "bus/local/bus.py"} <= walk.files
    counted = len(walk.calls), len(walk.files), walk.changes
    assert all(one <= bound for one, bound in zip(counted, most, strict=True)), f"{counted}, at most {most}:\n{walk}"
