"""What a NATS server sends is handed on once and in order, however it is cut, by us or by the library."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError

from bus.nats.client import StraightClient

pytestmark = pytest.mark.anyio

SAID = (
    b"MSG direct 1 5\r\nfirst\r\n"
    b"HMSG inbox.1 2 $JS.ACK.5 30 36\r\nNATS/1.0\r\nNats-Msg-Id: a-1\r\n\r\nsecond\r\n"
    b"PING\r\n"
    b"MSG direct 1 20\r\nMSG direct 1 1\r\nx\r\n\n\r\n"
    b"MSG unknown 9 2\r\nno\r\n"
    b"HMSG inbox.1 2 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"+OK\r\n"
    b"MSG inbox.2 2 answer 0\r\n\r\n"
)
HEARD = [
    b"first",
    ("inbox.1", "$JS.ACK.5", b"second", {"Nats-Msg-Id": "a-1"}),
    b"MSG direct 1 1\r\nx\r\n\n",
    ("inbox.1", "", b"", {"Status": "503"}),
    ("inbox.2", "answer", b"", None),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Connection:
    """What the library reads from."""

    def __init__(self) -> None:
        self._io_reader = asyncio.StreamReader()

    def at_eof(self) -> bool:
        return self._io_reader.at_eof()

    async def read(self, size: int) -> bytes:
        return await self._io_reader.read(size)

    def writelines(self, lines: list[bytes]) -> None:
        pass

    async def drain(self) -> None:
        pass


async def heard(pieces: list[bytes], *, waiting: bool) -> list[Any]:
    """What is handed on when these come; the library is `waiting` for the next when it comes, or has not begun."""
    client, connection = StraightClient(), Connection()
    got: list[Any] = []

    def hear(message: Msg) -> None:
        got.append((message.subject, message.reply, message.data, message.headers))

    client._transport = connection  # type: ignore[assignment]  # as much of one as is needed
    client._flush_queue = asyncio.Queue()
    client.straight[1] = got.append
    client.listeners[2] = hear
    client.read_straight()
    reading = asyncio.get_running_loop().create_task(client._read_loop())
    for piece in pieces:
        connection._io_reader.feed_data(piece)
        if waiting:
            await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    assert b"".join(client._pending) == b"PONG\r\n"
    assert client.stats["in_msgs"] == len(HEARD) + 1
    reading.cancel()
    return got


@pytest.mark.parametrize("waiting", [False, True])
async def test_what_comes_is_handed_on_once_and_in_order_wherever_it_is_cut(waiting: bool) -> None:
    assert await heard([SAID], waiting=waiting) == HEARD
    for cut in range(1, len(SAID)):
        assert await heard([SAID[:cut], SAID[cut:]], waiting=waiting) == HEARD, f"cut at {cut}"
    assert await heard([SAID[place : place + 1] for place in range(len(SAID))], waiting=waiting) == HEARD


async def test_complete_messages_are_handed_on_before_the_library_is_woken() -> None:
    client, connection = StraightClient(), Connection()
    got: list[bytes] = []
    client._transport = connection  # type: ignore[assignment]  # as much of one as is needed
    client.listeners[1] = lambda message: got.append(message.data)
    client.read_straight()
    connection._io_reader.feed_data(b"MSG inbox 1 5\r\nfirst\r\nMSG inbox 1 6\r\nsecond\r\nMSG inbox 1 5\r\nth")
    assert got == [b"first", b"second"]


async def test_what_begins_jobs_is_called_in_a_task_as_beginning_one_needs() -> None:
    client, connection = StraightClient(), Connection()
    tasks: list[Any] = []
    client._transport = connection  # type: ignore[assignment]  # as much of one as is needed
    client.straight[1] = lambda _data: tasks.append(asyncio.current_task())
    client.read_straight()
    reading = asyncio.get_running_loop().create_task(client._read_loop())
    loop = asyncio.get_running_loop()
    loop.call_soon(connection._io_reader.feed_data, b"MSG direct 1 5\r\nfirst\r\n")  # as the socket does
    await wait_all_tasks_blocked()
    assert tasks == [reading]
    reading.cancel()


UNREADABLE = (
    b"MSG direct 1 x5\r\nfirst\r\n",
    b"MSG direct 1 -9\r\nfirst\r\n",
    b"MSG direct 1 \xc2\xb2\r\nfirst\r\n",
    b"MSG\r\n",
    b"MSG in\xff 2 2\r\nno\r\n",
    b"HMSG inbox.1 2 -1 4\r\nno!!\r\n",
    b'INFO {"server_id":\r\n',
    b"INFO []\r\n",
    b"-ERR\r\n",
    b"-ERR '\xff'\r\n",
    b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
    b"\r\n\r\n",
)


async def reads_on(data: bytes, *, whole: bool) -> bool:
    """Whether the connection still counts as one after these bytes; if it does, what comes next has to be heard."""
    client, connection = StraightClient(), Connection()
    lost: list[str] = []
    heard_next: list[bytes] = []

    async def report(_error: Exception) -> None:
        pass

    async def lose() -> None:
        lost.append("lost")

    client._transport = connection  # type: ignore[assignment]  # as much of one as is needed
    client._flush_queue = asyncio.Queue()
    client._status = StraightClient.CONNECTED
    client._error_cb, client._disconnected_cb = report, lose
    client.straight[1] = lambda _data: None
    client.listeners[2] = lambda _message: None
    client.listeners[3] = lambda message: heard_next.append(message.data)
    client.read_straight()
    reading = asyncio.get_running_loop().create_task(client._read_loop())
    for piece in [data] if whole else [data[:3], data[3:]]:
        connection._io_reader.feed_data(piece)
        await wait_all_tasks_blocked()
    for _ in range(30):  # what was swallowed by a length that is wrong may be that much
        connection._io_reader.feed_data(b"MSG next 3 4\r\nnext\r\n")
    await wait_all_tasks_blocked()
    assert reading.done() == bool(lost) == (not client.is_connected), f"deaf, and nobody knows, after {data!r}"
    reading.cancel()
    client._status = StraightClient.CLOSED
    await wait_all_tasks_blocked()
    return bool(heard_next) and not lost


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("data", UNREADABLE)
async def test_g64_bytes_that_cannot_be_read_end_the_connection(data: bytes, whole: bool) -> None:
    assert not await reads_on(data, whole=whole)


@pytest.mark.parametrize("whole", [True, False])
async def test_g64_no_flipped_byte_leaves_a_connection_of_which_nobody_reads(whole: bool) -> None:
    assert await reads_on(SAID, whole=whole)
    rng = Random(7)
    for place in range(len(SAID)):
        for _ in range(3):
            await reads_on(SAID[:place] + bytes([rng.randrange(256)]) + SAID[place + 1 :], whole=whole)


async def test_g60_who_waits_for_the_socket_to_take_more_is_told_when_the_connection_ends() -> None:
    class Full(Connection):
        async def drain(self) -> None:
            await asyncio.Event().wait()

    async def ignore(*_arguments: object) -> None:
        pass

    client = StraightClient()
    client._transport = Full()  # type: ignore[assignment]  # as much of one as is needed
    client._flush_queue = asyncio.Queue(maxsize=2)
    client._status = StraightClient.CONNECTED
    client._max_pending_size = 10
    client._error_cb = client._disconnected_cb = ignore
    flusher = asyncio.get_running_loop().create_task(client._flusher())
    told: list[Exception] = []

    async def publish() -> None:
        try:
            await client.publish("subject", b"more than fits")
        except ConnectionClosedError as error:
            told.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(publish)
        with anyio.move_on_after(0) as scope:
            await client.publish("subject", b"of one who gives up")
        assert scope.cancelled_caught, "a cancellation is not swallowed"
        await wait_all_tasks_blocked()
        assert not told
        flusher.cancel()
        await client._process_op_err(OSError("reset"))
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert len(told) == 5
        tasks.cancel_scope.cancel()
