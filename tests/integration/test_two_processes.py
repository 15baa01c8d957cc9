"""A worker in one process, who asks in another, a real broker between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import anyio
import pytest

from actors import Client
from bus.brokers import BROKERS
from tests.support.processes import program

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
    pytest.mark.parametrize("scheme", ["redis", "nats"]),
]


@contextmanager
def desk(scheme: str, concurrency: int) -> Iterator[str]:
    """A broker, and a process that serves `desk` on it."""
    with BROKERS[scheme]() as broker, program("desk", broker.url, str(concurrency)) as process:
        try:
            yield broker.url
            assert process.poll() is None
        finally:
            process.terminate()
            assert process.wait(60) == 0


async def test_an_echo_job_goes_there_and_back(scheme: str) -> None:
    with desk(scheme, 1) as url:
        async with Client(url) as client:
            for payload in ("hello", {"nested": [1, 2.5, None, b"bytes"]}, ""):
                assert await client.request("desk", payload, name="echo", timeout=60) == payload


@pytest.mark.parametrize(("concurrency", "batches"), [(10, 1), (2, 4)])
async def test_eight_naps_take_as_long_as_the_concurrency_of_the_runner_says(
    scheme: str, concurrency: int, batches: int
) -> None:
    with desk(scheme, concurrency) as url, anyio.fail_after(110):
        async with Client(url) as client:
            await client.request("desk", name="echo", timeout=60)
            began = monotonic()
            at_once = await client.gather("desk", [0.5] * 8, name="nap", timeout=60)
            took = monotonic() - began
    print(f"{scheme}: 8 naps of 0.5 s with concurrency {concurrency} took {took:.2f} s")
    assert len(at_once) == 8
    assert took >= 0.5 * batches
    assert 2 <= max(at_once) <= concurrency, "neither one after the other nor all at once"
