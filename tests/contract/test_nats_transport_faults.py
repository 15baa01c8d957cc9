"""The transport over NATS when the server, the link or a node fails in ways that the contract cannot ask for."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
import anyio.to_thread
import nats
import pytest
from anyio.abc import SocketAttribute, SocketStream

from bus.brokers import NatsBroker
from bus.errors import BusError, DataLostError, PartlySentError, TransportError
from bus.nats.transport import NatsTransport
from bus.transport.transport import Delivery, Outgoing, Settlement

pytestmark = pytest.mark.anyio

LONGEST_WAIT = 60.0

ids = count()


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(scope="module")
def server() -> Iterator[NatsBroker]:
    with NatsBroker() as server:
        yield server


@pytest.fixture
def namespace() -> str:
    return f"faults{next(ids)}"


@asynccontextmanager
async def node(url: str, namespace: str, address: str, **options: Any) -> AsyncIterator[NatsTransport]:
    transport = NatsTransport(url, namespace=namespace, **options)
    await transport.open(address)
    try:
        yield transport
    finally:
        await transport.close()


async def put(transport: NatsTransport, lane: str, to: str, *bodies: bytes) -> None:
    """Send, trying again with the same ids as the bus does."""
    frames = [Outgoing(lane, to, f"frame-{next(ids)}", body) for body in bodies]  # type: ignore[arg-type]
    while True:
        try:
            return await transport.send(frames)
        except TransportError:
            await receive(transport)


async def receive(transport: NatsTransport) -> Sequence[Delivery]:
    """Read, trying again as the bus does."""
    try:
        return await transport.receive()
    except TransportError:
        await anyio.lowlevel.checkpoint()
        return []


async def forever(function: Callable[[], Awaitable[object]]) -> NoReturn:
    while True:
        await function()


async def take(transport: NatsTransport, many: int) -> list[Delivery]:
    taken: list[Delivery] = []
    with anyio.fail_after(LONGEST_WAIT):
        while len(taken) < many:
            taken += await receive(transport)
    return taken


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


async def test_streams_and_consumers_that_are_deleted_are_made_again(server: NatsBroker, namespace: str) -> None:
    client = await nats.connect(server.url)
    manager = client.jsm()
    async with node(server.url, namespace, "a#1") as a:
        a.demand("work", 100)
        await put(a, "queue", "work", b"1")
        await put(a, "inbox", "a#1", b"2")
        assert sorted(bodies(await take(a, 2))) == [b"1", b"2"]
        await manager.delete_consumer(f"{namespace}_jobs", "work")
        await put(a, "queue", "work", b"3")
        assert sorted(bodies(await take(a, 2))) == [b"1", b"3"]  # the server has forgotten who had the first
        for stream in ("jobs", "inbox", "dead"):
            await manager.delete_stream(f"{namespace}_{stream}")
        await put(a, "queue", "work", b"4")
        await put(a, "inbox", "a#1", b"5")
        with anyio.fail_after(LONGEST_WAIT):
            seen: list[bytes] = []
            while not {b"4", b"5"} <= set(seen):
                seen += bodies(await receive(a))
    await client.close()


async def test_what_was_sent_while_a_node_was_cut_off_arrives_once_and_in_order(
    server: NatsBroker, namespace: str
) -> None:
    async with (
        node(server.url, namespace, "a#1") as a,
        relay(server.port) as link,
        node(link.url, namespace, "b#1") as b,
    ):
        expected = [b"%d" % number for number in range(1000)]
        got: list[bytes] = []
        with anyio.fail_after(LONGEST_WAIT):
            for cut in range(5):
                first = 200 * cut
                await put(a, "inbox", "b#1", *expected[first : first + 100])
                if cut % 2:
                    got += bodies(await receive(b))
                await link.cut()
                await put(a, "inbox", "b#1", *expected[first + 100 : first + 200])
                while b.statistics().connections < cut + 2:
                    got += bodies(await receive(b))
            while len(got) < len(expected):
                got += bodies(await receive(b))
        assert got == expected


async def test_a_link_that_holds_still_is_left(server: NatsBroker, namespace: str) -> None:
    async with relay(server.port) as link, node(link.url, namespace, "b#1") as b:
        link.frozen = True
        with anyio.fail_after(LONGEST_WAIT), pytest.raises(TransportError, match="has not answered"):
            await forever(b.receive)
        link.frozen = False
        await put(b, "inbox", "b#1", b"back")
        assert bodies(await take(b, 1)) == [b"back"]
        assert b.statistics().connections == 2


async def test_g35_a_job_that_lay_unread_for_longer_than_its_lease_is_not_handed_over(
    server: NatsBroker, namespace: str
) -> None:
    async with (
        node(server.url, namespace, "a#1", ack_wait=3.0) as a,
        node(server.url, namespace, "b#1", ack_wait=3.0) as b,
    ):
        a.demand("work", 1)
        await a.receive()  # it has asked for work, and the server keeps that in mind for as long as a lease
        await put(b, "queue", "work", b"job")
        await anyio.sleep(3.5)
        b.demand("work", 1)
        (claim,) = await take(b, 1)
        assert claim.attempt == 2
        assert await b.settle([(claim, Settlement.ACK)]) == [True]
        assert list(await a.receive()) == []
        assert a.statistics().queues.late == 1
        await put(b, "queue", "work", b"next")
        assert bodies(await take(a, 1)) == [b"next"], "what came too late has not used up the demand"


async def test_g35_a_job_that_lay_unread_has_the_rest_of_its_lease(server: NatsBroker, namespace: str) -> None:
    async with node(server.url, namespace, "a#1", ack_wait=6.0) as a:
        a.demand("work", 1)
        await a.receive()
        await put(a, "queue", "work", b"job")
        given = anyio.current_time()
        await anyio.sleep(2.0)  # it is here, and nobody takes it
        (claim,) = await take(a, 1)
        assert given - 2.0 < claim.since <= given


async def test_g37_what_was_read_is_handed_over_although_the_link_breaks_before_it_can_be_confirmed(
    server: NatsBroker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(server.url, namespace, "a#1") as a:
        link = a._link
        assert link is not None
        publish = link.publish

        async def broken(subject: str, *more: Any) -> None:
            if subject == "receipt":
                raise TransportError("cut off")
            await publish(subject, *more)

        monkeypatch.setattr(link, "publish", broken)
        a._arrivals.put(Delivery("inbox", "", b"frame"))
        a._arrivals.put("receipt")
        assert bodies(await a.receive()) == [b"frame"]


async def test_g37_a_message_is_read_although_a_killed_server_has_given_it_the_number_of_one_that_was_read(
    namespace: str, tmp_path: Path
) -> None:
    """What it had handed out and not yet written is lost to it: its files are those of a moment before."""
    with NatsBroker(directory=tmp_path / "server") as server:
        async with node(server.url, namespace, "a#1") as a, node(server.url, namespace, "b#1") as b:
            await put(b, "inbox", "a#1", b"first")
            assert bodies(await take(a, 1)) == [b"first"]
            await anyio.to_thread.run_sync(server.kill)
            shutil.copytree(tmp_path / "server" / "data", tmp_path / "before")
            await anyio.to_thread.run_sync(server.start)
            for body in (b"second", b"third"):
                await put(b, "inbox", "a#1", body)
                assert body in bodies(await take(a, 1))
            await anyio.to_thread.run_sync(server.kill)
            server.wipe()
            shutil.copytree(tmp_path / "before", tmp_path / "server" / "data")
            await anyio.to_thread.run_sync(server.start)
            await put(b, "inbox", "a#1", b"fourth")
            seen: list[bytes] = []
            with anyio.fail_after(LONGEST_WAIT):
                while b"fourth" not in seen:
                    seen += bodies(await receive(a))


async def test_g36_what_is_given_up_on_is_kept_with_its_history(server: NatsBroker, namespace: str) -> None:
    async with node(server.url, namespace, "a#1") as a:
        a.demand("some.work", 1)
        await put(a, "queue", "some.work", b"poison")
        (claim,) = await take(a, 1)
        assert await a.settle([(claim, Settlement.TERM)]) == [True]
        assert await a.settle([(claim, Settlement.ACK)]) == [False]
    client = await nats.connect(server.url)
    letter = await client.jsm().get_msg(f"{namespace}_dead", seq=1)
    assert letter.data == b"poison"
    assert letter.headers is not None
    assert (letter.headers["Actorbus-Queue"], letter.headers["Actorbus-Attempt"]) == ("some.work", "1")
    jobs = await client.jsm().stream_info(f"{namespace}_jobs")
    assert jobs.state.messages == 1  # the mark of the server's life
    await client.close()


async def test_a_node_leaves_nothing_behind(server: NatsBroker, namespace: str) -> None:
    tasks = len(asyncio.all_tasks())
    async with node(server.url, namespace, "a#1") as a:
        a.demand("work", 5)
        await a.receive()
        a.demand("work", 0)
        await a.receive()
        await put(a, "inbox", "a#1", *[b"unread"] * 10)
        assert a.statistics().state == "connected"
    assert a.statistics().state == "closed"
    with pytest.raises(TransportError, match="not open"):
        await a.receive()
    client = await nats.connect(server.url)
    inboxes = await client.jsm().stream_info(f"{namespace}_inbox")
    assert (inboxes.state.messages, inboxes.state.consumer_count) == (0, 0)
    await client.close()
    assert len(asyncio.all_tasks()) == tasks


async def test_a_client_of_the_user_is_used_and_not_closed(server: NatsBroker, namespace: str) -> None:
    client = await nats.connect(server.url)
    transport = NatsTransport(client=client, namespace=namespace)
    await transport.open("a#1")
    await put(transport, "inbox", "a#1", b"here")
    assert bodies(await take(transport, 1)) == [b"here"]
    await client.force_reconnect()
    await put(transport, "inbox", "a#1", b"again")
    assert bodies(await take(transport, 1)) == [b"again"]
    await transport.close()
    assert client.is_connected
    await client.close()


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_on_another_event_loop_the_error_says_so(anyio_backend: str) -> None:
    with pytest.raises(BusError, match="needs asyncio"):
        await NatsTransport("nats://127.0.0.1:1").open("a#1")


class Relay:
    """A way to the server that can be cut, and can hold still."""

    def __init__(self, port: int, target: int) -> None:
        self.url = f"nats://127.0.0.1:{port}"
        self.frozen = False
        self._target = target
        self._open: dict[SocketStream, None] = {}

    async def cut(self) -> None:
        for stream in tuple(self._open):
            await anyio.aclose_forcefully(stream)

    async def serve(self, near: SocketStream) -> None:
        far = await anyio.connect_tcp("127.0.0.1", self._target)
        self._open[near] = self._open[far] = None
        async with near, far, anyio.create_task_group() as tasks:
            tasks.start_soon(self._pass, near, far, tasks)
            tasks.start_soon(self._pass, far, near, tasks)
        del self._open[near], self._open[far]

    async def _pass(self, source: SocketStream, sink: SocketStream, tasks: anyio.abc.TaskGroup) -> None:
        was_frozen = self.frozen
        try:
            async for data in source:
                was_frozen = was_frozen or self.frozen
                if not was_frozen:  # what held still once is dead for good
                    await sink.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def relay(target: int) -> AsyncIterator[Relay]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port: int = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django here
    through = Relay(port, target)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, through.serve)
        yield through
        tasks.cancel_scope.cancel()


async def test_a_queue_that_is_full_does_not_keep_other_frames_from_being_stored(
    server: NatsBroker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.nats.layout.QUEUE_BOUND", 2)
    async with node(server.url, namespace, "node#1") as transport:
        frames = [Outgoing("queue", "full", f"{namespace}-{number}", b"job") for number in range(4)]
        frames += [Outgoing("inbox", "node#1", f"{namespace}-inbox", b"mine")]
        with pytest.raises(PartlySentError, match="maximum messages per subject") as caught:
            await transport.send(frames)
        assert caught.value.missing == (f"{namespace}-2", f"{namespace}-3")
        assert bodies(await take(transport, 1)) == [b"mine"]


async def test_a_frame_without_an_answer_does_not_keep_other_frames_from_being_stored(
    server: NatsBroker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(server.url, namespace, "node#1") as transport:
        lost = transport._layout.job_subject("nobody")
        monkeypatch.setattr(transport._layout, "job_subject", lambda _queue: lost.replace("jobs", "elsewhere"))
        listener = await nats.connect(server.url)
        await listener.subscribe(lost.replace("jobs", "elsewhere"))
        await listener.flush()
        frames = [Outgoing("queue", "silent", "no answer", b"job"), Outgoing("inbox", "node#1", "mine", b"mine")]
        with pytest.raises(PartlySentError, match="got no answer") as caught:
            await transport.send(frames)
        assert caught.value.missing == ("no answer",)
        assert bodies(await take(transport, 1)) == [b"mine"]
        await listener.close()


async def test_g33_an_answer_does_not_count_while_what_led_up_to_it_is_refused(
    server: NatsBroker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its requester, who takes both in order, waits for ever if the performer dies now: the job is gone."""
    monkeypatch.setattr("bus.nats.inbox.PACK_BYTES", 50)  # each a message of its own
    async with node(server.url, namespace, "a#1") as a:
        a.demand("work", 1)
        await put(a, "queue", "work", b"job")
        (claim,) = await take(a, 1)
        client = await nats.connect(server.url)
        config = (await client.jetstream().stream_info(f"{namespace}_inbox")).config
        await client.jetstream().update_stream(config.evolve(max_msg_size=150))
        event = Outgoing("inbox", "b#1", "event", bytes(200))
        with pytest.raises(PartlySentError) as caught:
            await a.send([event, Outgoing("inbox", "b#1", "answer", b"answer", settles=claim)])
        assert sorted(caught.value.missing) == ["answer", "event"]
        assert a.statistics().queues.claims == 1
        await client.close()


async def test_g37_a_server_that_has_lost_what_it_had_stored_is_told_of_once(
    server: NatsBroker, namespace: str
) -> None:
    async with node(server.url, namespace, "node#1") as transport:
        client = await nats.connect(server.url)
        for stream in await client.jetstream().streams_info():
            await client.jetstream().delete_stream(stream.config.name or "")
        told = 0
        with anyio.fail_after(LONGEST_WAIT):
            while not told:
                try:
                    await transport.receive()
                except DataLostError:
                    told += 1
                except TransportError:
                    await anyio.lowlevel.checkpoint()
        await put(transport, "inbox", "node#1", b"again")
        assert bodies(await take(transport, 1)) == [b"again"]
        await client.close()


async def test_g33_an_attempt_has_a_number_of_its_own_although_the_server_was_killed_before_it_wrote_that_down(
    namespace: str,
) -> None:
    with NatsBroker() as server, anyio.fail_after(LONGEST_WAIT):
        async with (
            node(server.url, namespace, "first#1", ack_wait=2.0) as first,
            node(server.url, namespace, "second#1", ack_wait=2.0) as second,
        ):
            latest = 0
            await put(first, "queue", "work", b"old")
            for taker, other in ((first, second), (second, first), (first, second)):
                taker.demand("work", 1)
                (delivery,) = await take(taker, 1)
                assert delivery.attempt > latest
                assert delivery.count < 1000
                latest = delivery.attempt
                lives = [each.statistics().connections for each in (taker, other)]
                server.restart()  # at once: it may have forgotten the delivery, or not
                while any(
                    each.statistics().connections == life for each, life in zip((taker, other), lives, strict=True)
                ):
                    assert not [*await receive(taker), *await receive(other)]
                assert await taker.extend([delivery]) == [False]
                assert await taker.settle([(delivery, Settlement.ACK)]) == [False]
            await put(first, "queue", "fresh", b"new")
            second.demand("fresh", 1)
            (delivery,) = await take(second, 1)
            assert delivery.attempt == 1


async def test_a_claim_that_the_server_has_written_down_outlives_it(namespace: str) -> None:
    with NatsBroker() as server, anyio.fail_after(LONGEST_WAIT):
        async with node(server.url, namespace, "first#1", ack_wait=30.0) as first:
            await put(first, "queue", "work", b"long")
            first.demand("work", 1)
            (delivery,) = await take(first, 1)
            for _ in range(4):  # a second each
                assert not await receive(first)
            server.restart()
            while first.statistics().connections == 1:
                assert not await receive(first)
            assert await first.extend([delivery]) == [True]
            assert await first.settle([(delivery, Settlement.ACK)]) == [True]


async def test_g35_a_claim_that_outlives_its_server_has_ended_when_another_is_given_the_job(namespace: str) -> None:
    """The server that was killed knows in which second the lease began, not when in it."""
    with NatsBroker() as server, anyio.fail_after(LONGEST_WAIT):
        async with (
            node(server.url, namespace, "first#1", ack_wait=6.0) as first,
            node(server.url, namespace, "second#1", ack_wait=6.0) as second,
        ):
            first.demand("work", 1)
            while time.time() % 1 < 0.8:
                await anyio.lowlevel.checkpoint()
            await put(first, "queue", "work", b"long")
            (delivery,) = await take(first, 1)
            for _ in range(3):  # a second each: it is written down
                assert not await receive(first)
            server.restart()
            second.demand("work", 1)
            async with anyio.create_task_group() as reading:
                reading.start_soon(forever, partial(receive, first))
                assert bodies(await take(second, 1)) == [b"long"]
                assert await first.settle([(delivery, Settlement.ACK)]) == [False]
                reading.cancel_scope.cancel()


@asynccontextmanager
async def forgetful(server: NatsBroker, namespace: str, **limits: Any) -> AsyncIterator[None]:
    """Messages of inboxes are dropped beyond these limits, as their operator wants it."""
    client = await nats.connect(server.url)
    await client.jetstream().add_stream(
        name=f"{namespace}_inbox", subjects=[f"{namespace}.inbox.*"], duplicate_window=2.0, **limits
    )
    try:
        yield
    finally:
        await client.close()


@asynccontextmanager
async def one_behind_a_relay(
    server: NatsBroker, namespace: str, **limits: Any
) -> AsyncIterator[tuple[NatsTransport, Relay, NatsTransport]]:
    """A node, and another whose link can be cut, on a server that forgets what is past its limits."""
    async with (
        forgetful(server, namespace, **limits),
        node(server.url, namespace, "a#1") as a,
        relay(server.port) as link,
        node(link.url, namespace, "b#1") as b,
    ):
        yield a, link, b


async def losses_until(transport: NatsTransport, body: bytes) -> list[str]:
    """What is told of losses until a message arrives, which has to be the first one."""
    told: list[str] = []
    with anyio.fail_after(LONGEST_WAIT):
        while not (taken := await read_and_note(transport, told)):
            pass
    assert taken == [body]
    return told


async def read_and_note(transport: NatsTransport, told: list[str]) -> list[bytes]:
    """Read, and note what is told of losses."""
    try:
        return bodies(await transport.receive())
    except DataLostError as error:
        told.append(str(error))
    except TransportError:
        await anyio.lowlevel.checkpoint()
    return []


async def test_g37_who_was_away_for_so_long_that_messages_for_it_were_dropped_is_told_once(
    server: NatsBroker, namespace: str
) -> None:
    async with one_behind_a_relay(server, namespace, max_age=2.0) as (a, link, b):
        await b.receive()
        await link.cut()
        await put(a, "inbox", "b#1", b"dropped")
        await anyio.sleep(4.0)
        await put(a, "inbox", "b#1", b"kept")
        (told,) = await losses_until(b, b"kept")
        assert "was away for" in told
        await link.cut()
        await put(a, "inbox", "b#1", b"next")
        assert await losses_until(b, b"next") == []


async def test_g37_who_was_away_while_more_came_for_it_than_is_kept_is_told_once(
    server: NatsBroker, namespace: str
) -> None:
    async with one_behind_a_relay(server, namespace, max_msgs_per_subject=10) as (a, link, b):
        await b.receive()
        await link.cut()
        for body in (*[b"dropped"] * 10, b"kept"):
            await put(a, "inbox", "b#1", body)
        told: list[str] = []
        with anyio.fail_after(LONGEST_WAIT):
            while b"kept" not in await read_and_note(b, told):
                pass
        assert ["more messages came" in each for each in told] == [True]
        await link.cut()
        await put(a, "inbox", "b#1", b"next")
        assert await losses_until(b, b"next") == []


async def test_who_reads_on_is_not_told_of_losses_although_all_it_has_read_was_dropped_long_ago(
    server: NatsBroker, namespace: str
) -> None:
    async with one_behind_a_relay(server, namespace, max_age=2.0) as (a, link, b):
        await put(a, "inbox", "b#1", b"first")
        assert await losses_until(b, b"first") == []
        for _ in range(4):  # a second each
            assert not await b.receive()
        await link.cut()
        await put(a, "inbox", "b#1", b"second")
        assert await losses_until(b, b"second") == []
