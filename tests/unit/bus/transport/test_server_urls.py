"""What of a URL is shown, which URLs are refused, and which servers count as here."""

from __future__ import annotations

import traceback
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from bus import NatsBus, RedisBus, open_bus
from bus.transport.server import is_here, redacted


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:1/2", "redis://host:1/2"),
        ("redis://user:secret@host:1/2", "redis://***@host:1/2"),
        ("redis://:secret@host", "redis://***@host"),
        ("redis://host:1/2?password=secret&db=1", "redis://host:1/2"),
        ("redis://user:secret@host?password=secret#secret", "redis://***@host"),
        ("redis://host?password=secret@secret", "redis://***"),
        ("redis://user:sec?ret@host", "redis://***"),
        ("redis://user:sec/ret@host", "redis://***@host"),
        ("redis://user:sec@ret@host", "redis://***@host"),
        ("nats://secret@host:4222", "nats://***@host:4222"),
        ("nats://a:secret@one:1,nats://a:secret@two:2", "nats://***@two:2"),
        ("nats://one:1,two:2", "nats://one:1,two:2"),
        ("nats://user:sec,ret@host", "nats://***@host"),
        ("redis://user:secret", "redis://user:***"),
        ("redis://[2001:db8::1]:6379/0", "redis://[2001:db8::1]:6379/0"),
        ("user:secret@host", "***"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:sec/ret@host:1",
        "redis://user:12/ret@host:1",
        "redis://user:sec#ret@host:1",
        "redis://host:secret",
        "redis://user:secr\u2100et@host",
        "redis://user:secret@[::1",
        "redis://user:secret@host?db=secret",
        "redis://user:secret@host?socket_timeout=secret",
        "redis://user:secret@host?nonsense=secret",
        "nats://user:sec/ret@host:1",
        "nats://user:sec,ret@host:1",
        "nats://user:secret@host:secret",
        "nats://user:secr\u2100et@host",
        "nats://user:secret@one,redis://user:secret@two",
        "tls://user:sec#ret@host:1",
        "user:secret@host",
        "http://user:secret@host",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_showing_any_of_its_secrets(url: str) -> None:
    with pytest.raises(ValueError, match=r"not the URL of|no bus for|option of") as refused:
        open_bus(url)
    told = "".join(traceback.format_exception_only(refused.value))
    causes = []
    cause: BaseException | None = refused.value
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    for part in ("sec", "ret", "12/"):
        assert part not in told.replace("percent-encoded", "")
        assert not any(part in text for text in causes)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),  # noqa: S104 - as an address to connect to
        ("10.0.0.1", False),
        ("::2", False),
        ("localhost.example.org", False),
        ("redis", False),
    ],
)
def test_loopback_is_told_from_the_network(host: str, here: bool) -> None:
    assert is_here(host) is here


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("make", "options", "server"),
    [
        (RedisBus, {"url": "redis://192.0.2.1:6379/0"}, "192.0.2.1"),
        (RedisBus, {"url": "redis://user:secret@[2001:db8::1]:6379"}, "2001:db8::1"),
        (RedisBus, {"redis": Redis(host="192.0.2.1")}, "192.0.2.1"),
        (NatsBus, {"url": "nats://user:secret@192.0.2.1:4222"}, "192.0.2.1"),
        (NatsBus, {"url": "nats://127.0.0.1:4222,192.0.2.1"}, "192.0.2.1"),
        (RedisBus, {"url": "redis://localhost"}, None),
        (RedisBus, {"url": "redis://127.0.0.2"}, None),
        (RedisBus, {"url": "redis://[::1]:1"}, None),
        (RedisBus, {"url": "unix:///tmp/redis.sock"}, None),
        (RedisBus, {"url": "rediss://192.0.2.1"}, None),
        (RedisBus, {"url": "redis://192.0.2.1", "signing_key": b"k" * 32}, None),
        (NatsBus, {}, None),
        (NatsBus, {"url": "tls://192.0.2.1"}, None),
        (NatsBus, {"url": "nats://192.0.2.1", "signing_key": (b"k" * 32, b"l" * 32)}, None),
    ],
)
async def test_a_broker_of_the_network_without_tls_and_key_is_said_once_with_the_settings(
    make: Any, options: dict[str, Any], server: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make(**options)

    async def open_at_once(_node: str) -> None:
        await anyio.lowlevel.checkpoint()
        bus.give_up()

    bus._transport.open = open_at_once
    await bus.start()
    loud = [record.getMessage() for record in caplog.records if "unsigned" in record.getMessage()]
    assert len(loud) == (server is not None)
    for line in loud:
        assert f"server='{server}'" in line
        assert all(word in line for word in ("signing_key", "ACTORBUS_SIGNING_KEY", "rediss://", "tls://"))
        assert "secret" not in line.partition("server=")[2]
