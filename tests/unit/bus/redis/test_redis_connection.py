"""The connection to a Redis server: whatever is wrong is one error of ours, in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bus import BusError, RedisBus, TransportError
from bus.brokers import free_port
from bus.redis.admin import inspect_server
from bus.redis.client import connections
from bus.redis.connection import RedisLink

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def server(answer: bytes) -> AsyncGenerator[str]:
    """Answers everything with the same bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(answer)
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = anyio.Event()
    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        await gone.wait()  # a link that is dropped has closed its connection


def link_to(url: str) -> RedisLink:
    return RedisLink(*connections(url, None))


async def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    async with server(b"") as url:
        link = link_to(url)
        with pytest.raises(TransportError, match=r"redis at 127\.0\.0\.1:\d+ has not answered for 1 seconds"):
            await link.exchange([("PING",)], patience=1.0)
        assert not link.connected


async def test_a_server_that_is_not_there_is_an_error_of_ours() -> None:
    with pytest.raises(TransportError, match=r"redis at 127\.0\.0\.1"):
        await link_to(f"redis://127.0.0.1:{free_port()}").exchange([("PING",)])


async def test_bytes_that_are_no_answer_are_an_error_of_ours() -> None:
    async with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        with pytest.raises(TransportError):
            await link_to(url).exchange([("PING",)])


async def test_a_refused_command_is_told_in_its_place_or_ends_the_link() -> None:
    async with server(b"-OOM no memory\r\n") as url:
        link = link_to(url)
        (reply,) = await link.exchange([("PING",)])
        assert isinstance(reply, ResponseError)
        assert link.connected
        with pytest.raises(TransportError, match="refused: OOM no memory"):
            await link.checked([("PING",)])
        assert not link.connected


async def test_an_exchange_that_is_cancelled_ends_the_link() -> None:
    async with server(b"") as url, anyio.create_task_group() as tasks:
        link = link_to(url)
        tasks.start_soon(link.exchange, [("PING",)])
        while not link.connected:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert not link.connected


async def test_a_link_that_is_closed_does_not_come_back() -> None:
    async with server(b"+PONG\r\n") as url:
        link = link_to(url)
        assert await link.exchange([("PING",)]) == [b"PONG"]
        await link.close()
        with pytest.raises(TransportError, match="is closed"):
            await link.exchange([("PING",)])


class Told:
    """A link to a server with these settings."""

    where = "redis"

    def __init__(self, *lines: str) -> None:
        self.lines = lines

    async def exchange(self, commands: Any) -> list[bytes]:
        return ["\r\n".join(self.lines).encode()]


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("aof_enabled:0", "appendonly yes"),
        ("maxmemory:1000\r\nmaxmemory_policy:allkeys-lru", "maxmemory-policy noeviction"),
    ],
)
async def test_a_server_that_may_lose_jobs_is_warned_of(
    line: str, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    await inspect_server(cast("RedisLink", Told("redis_version:7.0.15", line)))
    assert [advice in record.getMessage() for record in caplog.records] == [True]


async def test_a_server_that_is_too_old_is_refused_by_its_version() -> None:
    with pytest.raises(BusError, match=r"is version 6\.2\.14: Redis 7\.0 or newer"):
        await inspect_server(cast("RedisLink", Told("redis_version:6.2.14")))


async def test_a_client_lends_its_settings_and_no_retries() -> None:
    make, where = connections(None, Redis(host="example.org", port=1234, db=3, password="secret"))  # noqa: S106
    connection: Any = make()
    assert where == "redis at example.org:1234"
    assert (connection.db, connection.password, connection.socket_timeout) == (3, "secret", None)
    assert connection.retry.get_retries() == 0


@pytest.mark.parametrize("options", [{}, {"url": "redis://a", "redis": Redis()}, {"url": "redis://a?nonsense=1"}])
async def test_an_address_that_is_not_understood_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"url|option"):
        RedisBus(**options)
