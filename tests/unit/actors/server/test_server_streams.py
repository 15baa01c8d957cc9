"""The streams of the server, over a port: who comes back, who does not read, and how many there may be."""

from __future__ import annotations

import logging
import math
import signal
import socket
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.applications import Starlette

from actors import WorkerRunner
from actors.runner.runner import core_of_runner
from actors.server import create_app, listen, serve
from actors.server import listening as listening_module
from actors.server.app import service_of
from actors.server.streams import KEPT, Feed, FleetEvent
from tests.support.http import Event, asking, double, events_in, events_of, listening
from tests.support.workers import Desk

pytestmark = pytest.mark.anyio

over_a_port = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # uvicorn knows no other

READERS = 200
EVENTS = 12


async def until(condition: Any) -> None:
    """Wait for something that no event tells of."""
    while not condition():
        await anyio.lowlevel.checkpoint()


async def submitted(client: httpx.AsyncClient, name: str, payload: Any = None) -> str:
    response = await client.post("/submit", json={"worker_names": ["desk"], "name": name, "payload": payload})
    place: str = response.headers["location"]
    return place


@over_a_port
async def test_a_stream_goes_on_after_each_event_without_gap_or_repeat() -> None:
    async with listening(serve(workers=[Desk()])) as client:
        place = await submitted(client, "count", 20)
        seen: list[Event] = []
        while not seen or seen[-1].type != "group_completed":
            headers = {"last-event-id": str(seen[-1].id)} if seen else {}
            async with client.stream("GET", f"{place}/stream", headers=headers) as response:
                assert response.status_code == 200
                async for each in events_in(response):
                    seen.append(each)
                    break  # the reader is cut off after each event, while the run goes on
        assert [each.id for each in seen] == [str(number) for number in range(len(seen))]
        assert [each.data["data"] for each in seen if each.type == "stream"] == list(range(20))
        last = {"last-event-id": str(seen[-1].id)}
        assert (await client.get(f"{place}/stream", headers=last)).status_code == 204


@over_a_port
async def test_a_live_stream_has_signs_of_life_and_ends_with_its_run() -> None:
    desk = Desk()
    async with listening(serve(workers=[desk], ping=0.01)) as client:
        place = await submitted(client, "hold")
        # Without a ping of its own, the first would come after 15 seconds, and the third after 45.
        async with client.stream("GET", f"{place}/stream", timeout=10) as response:
            pings, lines = 0, response.aiter_lines()
            async for line in lines:
                pings += line.startswith(": ping")
                if pings == 3:
                    desk.open.set()
                if line == "event: group_completed":
                    break
            assert pings >= 3


@over_a_port
@pytest.mark.parametrize("headers", [{}, {"accept": "text/event-stream"}], ids=["answer", "stream"])
async def test_who_leaves_an_invocation_cancels_it(headers: dict[str, str]) -> None:
    desk = Desk()
    app = serve(workers=[desk])
    async with listening(app) as client:
        async with anyio.create_task_group() as tasks:

            async def leave() -> None:
                await desk.begun.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(leave)
            await client.post("/invoke/desk:hold", headers=headers)
        await desk.stopped.wait()
        await until(lambda: not len(service_of(app).streams))
        await until(lambda: not service_of(app)._working)


@over_a_port
async def test_many_readers_of_which_some_stall_all_see_everything_and_none_holds_up_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every tenth does not read; it is ended, and its connection with it."""

    def narrow(*arguments: Any) -> socket.socket:
        bound = bind(*arguments)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # else the system takes in megabytes for each
        return bound

    bind = listening_module._bind
    monkeypatch.setattr(listening_module, "_bind", narrow)
    app = serve(workers=[Desk()], send_timeout=3.0, max_streams=READERS)
    big = "x" * 50_000
    async with listening(app) as client:
        counts: list[int] = []

        async def read(number: int) -> None:
            if number % 10 == 0:
                stalled.append(stall(client, "/events/stream"))
                return
            async with client.stream("GET", "/events/stream") as response:
                reading.append(number)
                got = 0
                async for each in events_in(response):
                    got += each.type == "noise"
                    if got == EVENTS:
                        break
                counts.append(got)

        stalled: list[socket.socket] = []
        reading: list[int] = []
        service = service_of(app)
        async with anyio.create_task_group() as tasks:
            for number in range(READERS):
                tasks.start_soon(read, number)
            await until(lambda: service.feed.readers == READERS)
            over = await client.get("/events/stream")
            assert (over.status_code, over.json()["code"]) == (429, "too_many_streams")
            for number in range(EVENTS):
                service.feed.put(FleetEvent("noise", float(number), big))
                await anyio.lowlevel.checkpoint()
        assert counts == [EVENTS] * (READERS - len(stalled))
        await until(lambda: not len(service.streams))
        assert service.streams.stalled <= len(stalled)  # of some the system may have been the first to end it
        assert service.feed.readers == 0
        for each in stalled:
            each.close()


def stall(client: httpx.AsyncClient, path: str) -> socket.socket:
    """A reader that asks and never reads."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    reader.connect((client.base_url.host, client.base_url.port))
    reader.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return reader


@over_a_port
async def test_what_happens_in_the_fleet_is_seen() -> None:
    desk = Desk()
    async with WorkerRunner(handle_sigint=False, handle_sigterm=False) as runner:
        app = create_app(runner)
        async with listening(app) as client, client.stream("GET", "/events/stream") as response:
            await until(lambda: service_of(app).feed.readers)
            await runner.add_workers(desk)
            assert (await client.post("/invoke/desk:echo", json=1)).status_code == 200
            await client.post("/invoke/desk:refuse", json="x")
            place = await submitted(client, "echo", 1)
            await client.get(f"{place}/result?timeout=50")
            await runner.remove_worker("desk")
            kinds: dict[str, list[Any]] = {}
            async for each in events_in(response):
                kinds.setdefault(str(each.type), []).append(each.data["data"])
                done = len(kinds.get("job_completed", ())) == 2 and "job_failed" in kinds
                if done and kinds.keys() >= {"worker_lost", "group_completed"}:
                    break
            assert [each["worker_name"] for each in kinds["worker_ready"]] == ["desk"]
            assert {each["job_name"] for each in kinds["job_started"]} == {"echo", "refuse"}
            assert [each["run"] for each in kinds["job_completed"]] == [None, place.rpartition("/")[2]]
            assert [each["error"]["message"] for each in kinds["job_failed"]] == ["x"]
            assert kinds["agent_completed"][0]["event"]["data"] == 1
            assert kinds["group_completed"][0]["run_id"] in place


async def test_a_runner_that_a_server_has_left_tells_nobody_of_its_jobs() -> None:
    async with WorkerRunner(handle_sigint=False, handle_sigterm=False) as runner:
        async with asking(create_app(runner)):
            assert core_of_runner(runner).job_events.wanted
        assert not core_of_runner(runner).job_events.wanted


async def test_the_feed_goes_on_behind_an_event_and_says_what_was_missed() -> None:
    feed = Feed("life")

    async def taken(after: str | None, count: int) -> list[tuple[str, str, Any]]:
        found: list[tuple[str, str, Any]] = []
        events = feed.read(after)
        while len(found) < count:
            number, each = await anext(events)
            found.append((number, each.type, each.data))
        await events.aclose()
        return found

    for number in range(5):
        feed.put(FleetEvent("e", 0.0, number))
    assert await taken("life-3", 2) == [("life-4", "e", 3), ("life-5", "e", 4)]
    assert await taken("other-3", 1) == [("life-5", "missed", None)]
    for absurd in ("life--1", "life-x", "-", "3", "life-" + "9" * 5000):
        assert (await taken(absurd, 1))[0][1] == "missed"
    slow = feed.read()
    for number in range(5, KEPT + 8):
        feed.put(FleetEvent("e", 0.0, number))
    assert await taken("life-3", 2) == [("life-8", "missed", 5), ("life-9", "e", 8)]
    assert [(await anext(slow))[1].type for _ in range(2)] == ["missed", "e"]
    await slow.aclose()
    assert feed.readers == 0
    assert await taken("life-" + "9" * 15, 0) == []


@over_a_port
async def test_it_tells_its_readers_to_come_back_and_ends() -> None:
    desk = Desk()
    app = serve(workers=[desk])
    answers: list[httpx.Response] = []
    async with listening(app) as client, anyio.create_task_group() as tasks:

        async def ask() -> None:
            answers.append(await client.post("/invoke/desk:hold"))

        async def read() -> None:
            async with client.stream("GET", "/events/stream") as response:
                async for _ in response.aiter_lines():
                    pass
            ended.set()

        ended = anyio.Event()
        tasks.start_soon(ask)
        tasks.start_soon(read)
        await desk.begun.wait()
        await until(lambda: service_of(app).feed.readers)
        tasks.start_soon(service_of(app).drain)
        await ended.wait()
        refused = await client.post("/invoke/desk:echo", json=1)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        desk.open.set()
    assert answers[0].json()["result"] == "held"


@over_a_port
async def test_it_does_not_listen_to_others_without_a_token_and_fails_when_its_app_does() -> None:
    with pytest.raises(ValueError, match="without a token"):
        await listen(serve(functions=[double]), "0.0.0.0")  # noqa: S104 - to be refused

    runner = WorkerRunner()
    async with runner:
        pass
    with anyio.fail_after(50), pytest.raises(RuntimeError, match="did not start"):
        await listen(create_app(runner), port=0, log_config=None)


@over_a_port
async def test_cancelling_it_ends_it_in_order() -> None:
    desk = Desk()
    app = serve(workers=[desk], drain_timeout=1)
    with anyio.fail_after(50):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(listen, app, port=0, log_config=None))
            await until(lambda: service_of(app).alive)
            tasks.cancel_scope.cancel()
    assert not service_of(app).alive


class HalfWritten(logging.Handler):
    """Has a signal come in the middle of a line, where no other can be written: so it is with a buffered stream."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.is_writing = False

    def emit(self, record: logging.LogRecord) -> None:
        if self.is_writing:
            raise RuntimeError("reentrant call")
        self.is_writing = True
        if record.msg == "a line":
            signal.raise_signal(signal.SIGTERM)
        self.lines.append(record.msg)
        self.is_writing = False


@over_a_port
async def test_a_signal_in_the_middle_of_a_line_of_the_log_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logger, handler = logging.getLogger("actorbus"), HalfWritten()
    app = serve(functions=[double])
    logger.addHandler(handler)
    try:
        with anyio.fail_after(50):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(listen, app, port=0, log_config=None))
                await until(lambda: service_of(app).alive)
                logger.info("a line")
    finally:
        logger.removeHandler(handler)
    assert handler.lines == ["a line", "signal: draining, once more to stop at once signal='SIGTERM'"]


@over_a_port
async def test_no_limit_is_a_limit_too() -> None:
    stop = anyio.Event()
    app = serve(functions=[double], drain_timeout=math.inf, send_timeout=math.inf)
    with anyio.fail_after(50):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(listen, app, port=0, stop=stop, log_config=None))
            await until(lambda: service_of(app).alive)
            stop.set()


async def test_a_head_of_a_stream_does_not_open_it() -> None:
    app: Starlette = serve(functions=[double])
    async with asking(app) as client:
        assert (await client.head("/events/stream")).status_code == 200
        assert service_of(app).feed.readers == 0
        assert events_of("") == []


@over_a_port
@pytest.mark.parametrize("sent", [b"", b"GET /livez HTT", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_who_does_not_say_what_he_wants_is_not_waited_for(sent: bytes) -> None:
    async with listening(serve(functions=[double], body_timeout=0.2)) as client:
        assert client.base_url.port is not None
        complete = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for before in (b"", complete)[: 1 + len(sent)]:  # also not on a connection that had made itself known
            async with await anyio.connect_tcp(client.base_url.host, client.base_url.port) as connection:
                await connection.send(before)
                if before:
                    assert b"200 OK" in await connection.receive()
                await connection.send(sent)
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await connection.receive()


@over_a_port
async def test_an_invocation_may_take_longer_than_its_request() -> None:
    desk = Desk()
    async with listening(serve(workers=[desk], body_timeout=0.2)) as client, anyio.create_task_group() as tasks:

        async def let_go() -> None:
            await desk.begun.wait()
            await anyio.sleep(1)
            desk.open.set()

        tasks.start_soon(let_go)
        assert (await client.post("/invoke/desk:hold")).json()["result"] == "held"


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such limit")
def test_the_system_gives_up_on_a_reader_that_was_given_up() -> None:
    with listening_module._bind("127.0.0.1", 0, 0.5) as bound:
        assert bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 500
