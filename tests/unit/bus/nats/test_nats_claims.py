"""For how long a claim on a job of a JetStream server is its owner's."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.aio.msg import Msg

from bus.nats.connection import NatsLink
from bus.nats.inbox import Arrivals
from bus.nats.layout import NatsLayout
from bus.nats.queues import RENEWALS, Claim, NatsQueues

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def claim(now: float, until: float) -> Claim:
    return Claim("work", Msg(_client=cast("Any", None), subject="s", reply="r", data=b""), now, until)


@pytest.mark.parametrize(("written", "until"), [(5.0, 9.0), (4.5, 9.0), (3.9, 7.0), (1.0, 5.0), (0.9, -math.inf)])
def test_g35_a_server_that_was_killed_has_forgotten_the_last_renewals_and_parts_of_a_second(
    written: float, until: float
) -> None:
    held = claim(1.0, 6.0)
    held.renew(2.1, 8.0)
    held.renew(4.1, 10.0)
    assert held.until == 10.0
    held.forgotten(written)
    assert held.until == until
    held.renew(12.0, 18.0)
    assert held.until == 18.0
    held.forgotten(11.0)  # killed again before that was written
    assert held.until == until - 1.0


def test_a_claim_may_be_renewed_by_another_thread_while_its_server_turns_out_to_have_been_killed() -> None:
    class Renewing(float):
        def __ge__(self, other: float) -> bool:  # between any two leases that are looked at
            held.renew(12.0, 18.0)
            return float(self) >= other

    held = claim(1.0, 6.0)
    held.renew(2.1, 8.0)
    held.forgotten(Renewing(5.0))
    assert held.until == 7.0


def test_g35_a_claim_of_whose_leases_too_many_are_new_is_not_ours_after_a_kill() -> None:
    held = claim(1.0, 6.0)
    for number in range(RENEWALS):
        held.renew(10.0 + number, 16.0 + number)
    held.forgotten(9.0)
    assert held.until == -math.inf


@pytest.mark.parametrize(("life", "echo_sent", "ours"), [(0, 5.0, True), (7, 5.0, False), (7, 6.5, True)])
async def test_g35_a_server_was_last_alive_when_it_answered_not_when_we_noticed_its_death(
    life: int, echo_sent: float, ours: bool
) -> None:
    queues = NatsQueues(NatsLayout("test", ack_wait=30.0), Arrivals())
    held = claim(4.0, 34.0)
    queues._claims[held] = None
    await queues.maintain(cast("NatsLink", SimpleNamespace(echo_sent=echo_sent)), 9.0)
    queues.reset(life)
    assert (held.until > 9.0) is ours
