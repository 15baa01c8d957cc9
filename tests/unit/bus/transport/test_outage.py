"""What is said while the network fails: at once, for each new kind of reason, and now and then."""

from __future__ import annotations

import anyio
import pytest

from actors import WorkerRunner
from bus import AccessDeniedError, TransportError
from bus.transport.connection import ADVICE, CONNECTING, Outage


def test_the_first_failure_is_said_with_advice_and_others_as_time_goes_by(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(CONNECTING, ADVICE[CONNECTING], 100.0)
    for second in range(100, 1100):
        outage.failed(TransportError("no"), float(second))
    outage.over(1100.0)
    assert caplog.messages == [
        f"connecting to the network failed; trying again{ADVICE[CONNECTING]} error='no'",
        "connecting to the network has failed for 10 seconds; still trying failures=11 error='no'",
        "connecting to the network has failed for 20 seconds; still trying failures=21 error='no'",
        "connecting to the network has failed for 40 seconds; still trying failures=41 error='no'",
        "connecting to the network has failed for 80 seconds; still trying failures=81 error='no'",
        "connecting to the network has failed for 160 seconds; still trying failures=161 error='no'",
        "connecting to the network has failed for 320 seconds; still trying failures=321 error='no'",
        "connecting to the network has failed for 620 seconds; still trying failures=621 error='no'",
        "connecting to the network has failed for 920 seconds; still trying failures=921 error='no'",
        "connecting to the network works, after 1000 seconds failures=1000",
    ]


def test_another_kind_of_reason_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(CONNECTING, ADVICE[CONNECTING], 0.0)
    for error in (TransportError("no"), TransportError("nobody"), AccessDeniedError("who are you?")):
        outage.failed(error, 1.0)
    assert caplog.messages == [
        f"connecting to the network failed; trying again{ADVICE[CONNECTING]} error='no'",
        "connecting to the network failed; trying again error='who are you?'",
    ]


@pytest.mark.anyio
async def test_two_processes_under_one_runner_name_are_told_of_at_both(
    caplog: pytest.LogCaptureFixture, anyio_backend: str
) -> None:
    url = f"memory://twins-{anyio_backend}"
    runners = [WorkerRunner("same", url, heartbeat=0.05, lease=60.0) for _ in range(2)]
    with anyio.fail_after(60):
        async with runners[0], runners[1], WorkerRunner("other", url, heartbeat=0.05, lease=60.0):
            while sum("under one runner name" in message for message in caplog.messages) < 2:
                await anyio.wait_all_tasks_blocked()
    messages = caplog.messages
    for here, there in runners, runners[::-1]:
        assert any(f"here={here.bus.address!r} there={there.bus.address!r}" in message for message in messages)
    assert len(messages) == 2, "once each, and not at the third"


@pytest.mark.anyio
async def test_a_runner_that_is_started_again_under_its_name_is_no_twin(
    caplog: pytest.LogCaptureFixture, anyio_backend: str
) -> None:
    url = f"memory://lives-{anyio_backend}"
    async with WorkerRunner("other", url, heartbeat=0.05, lease=60.0):
        for _ in range(3):
            async with WorkerRunner("same", url, heartbeat=0.05, lease=60.0) as runner:
                while not runner.bus.network_statistics().peers:  # type: ignore[attr-defined]
                    await anyio.wait_all_tasks_blocked()
    assert not caplog.messages
