"""Fixtures for pytest that start real brokers; installed with the package, so that a test only names one.

    async def test_my_worker(redis_broker: RedisBroker) -> None:
        async with WorkerRunner(bus=open_bus(redis_broker.url)) as runner: ...

Each test has a broker of its own, which it may kill and start again (see `bus.brokers`). One that cannot be started is
an error of the test, never a reason to skip it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bus.brokers import BROKERS, Broker, NatsBroker, RedisBroker


@pytest.fixture
def redis_broker() -> Iterator[RedisBroker]:
    """A Redis server that writes down what it accepts."""
    with RedisBroker() as broker:
        yield broker


@pytest.fixture
def nats_broker() -> Iterator[NatsBroker]:
    """A NATS server with JetStream."""
    with NatsBroker() as broker:
        yield broker


@pytest.fixture(params=list(BROKERS))
def each_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker of each kind: the test runs once with each."""
    with BROKERS[request.param]() as broker:
        yield broker
