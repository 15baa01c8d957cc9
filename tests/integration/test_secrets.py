"""Secrets in the URL of a broker, while nothing works: no log line, error or text of an object shows one."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from urllib.parse import quote

import anyio
import pytest

from actors import WorkerRunner
from bus import AccessDeniedError, BusError, NetworkBus, open_bus
from bus.brokers import NatsBroker, RedisBroker, free_port

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

SECRET = "hunter2/§@sesame"  # noqa: S105 - it is the one to be looked for
KEY = b"a key that is never shown anywhere"


def redis_with(password: str, place: str) -> str:
    return f"redis://ali-baba:{password}@{place}/0"


def redis_query(password: str, place: str) -> str:
    return f"redis://{place}/0?username=ali-baba&password={password}"


def nats_with(password: str, place: str) -> str:
    return f"nats://ali-baba:{password}@{place}"


def nats_token(password: str, place: str) -> str:
    return f"nats://{password}@{place}"


def nats_cluster(password: str, place: str) -> str:
    return f"nats://ali-baba:{password}@{place},nats://ali-baba:{password}@{place}"


def hidden(text: str) -> bool:
    """Whether nothing of the secrets is in a text, however it is written."""
    parts = ("hunter2", "sesame", "ali-baba", KEY.decode(), KEY.hex(), repr(KEY))
    return not any(part in text for part in parts)


async def failing(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """All that a program is told that cannot connect to `url`."""
    caplog.set_level(logging.DEBUG)
    bus = open_bus(url, signing_key=KEY)
    assert isinstance(bus, NetworkBus)
    told = [repr(bus), str(bus), repr(bus._transport), repr(bus._options.signer), repr(bus._options)]
    with pytest.raises(BusError) as refused:
        await bus._transport.open("node#1")
    told += traceback.format_exception(refused.value)
    told.append(repr(bus._transport))
    gave_up = anyio.Event()

    @bus.event_handler("on_disconnected")
    def on_disconnected(_bus: NetworkBus) -> None:
        gave_up.set()

    async def run() -> None:
        try:
            await runner.run()
        except AccessDeniedError as error:
            told.extend(traceback.format_exception(error))
            gave_up.set()

    async with anyio.create_task_group() as tasks:
        runner = WorkerRunner("runner", bus, handle_sigint=False, handle_sigterm=False)
        tasks.start_soon(run)
        await gave_up.wait()
        told += [repr(bus), repr(bus._transport), repr(runner)]
        tasks.cancel_scope.cancel()
    told += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert any("trying again" in each or "does not let us in" in each for each in told)
    return "\n".join(told)


@pytest.mark.parametrize("url_of", [redis_with, redis_query, nats_with, nats_token, nats_cluster])
async def test_nothing_shows_a_secret_of_the_url_of_a_server_that_is_not_there(
    url_of: Callable[[str, str], str], caplog: pytest.LogCaptureFixture
) -> None:
    with anyio.fail_after(60):
        assert hidden(await failing(url_of(quote(SECRET, safe=""), f"127.0.0.1:{free_port()}"), caplog))


@pytest.mark.parametrize("url_of", [redis_with, redis_query])
async def test_nothing_shows_a_password_that_redis_refuses(
    url_of: Callable[[str, str], str], caplog: pytest.LogCaptureFixture
) -> None:
    with RedisBroker("requirepass another") as broker, anyio.fail_after(60):
        told = await failing(url_of(quote(SECRET, safe=""), f"127.0.0.1:{broker.port}"), caplog)
    assert hidden(told)
    assert f"127.0.0.1:{broker.port}" in told


@pytest.mark.parametrize("url_of", [nats_with, nats_token])
async def test_nothing_shows_a_password_or_token_that_nats_refuses(
    url_of: Callable[[str, str], str], caplog: pytest.LogCaptureFixture
) -> None:
    with NatsBroker("authorization { user: other, password: another }") as broker, anyio.fail_after(60):
        told = await failing(url_of(quote(SECRET, safe=""), f"127.0.0.1:{broker.port}"), caplog)
    assert hidden(told)
    assert f"127.0.0.1:{broker.port}" in told


async def test_a_shown_secret_would_be_found() -> None:
    await anyio.lowlevel.checkpoint()
    assert not hidden("redis://ali-baba:x@host")
    assert not hidden(quote(SECRET))
    assert not hidden(f"{KEY!r}")
