"""What a job is part of travels with it: from who asks to who does it, and into what that asks for."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import pytest

from actors import BaseWorker, Client, Job, Trace, WorkerRunner, job, tracing
from actors.client.client import runner_of
from bus import BusJobRequestMessage
from bus.wire.codec import decode, decode_header, encode
from tests.support.running import TasksBegun, running
from tests.support.workers import quiet

pytestmark = pytest.mark.anyio

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"

OLD_FRAME = (
    "010000003d9cb44275734a6f62526571756573744d657373616765a131a561736b6572a6776f726b6572a3612331a0a56a6f622d310100cb40"
    "14000000000000c0a084a86a6f625f6e616d65a46563686fa677696e646f77cd0100a76c696e6561676591a3614062a77061796c6f6164a568"
    "656c6c6f"
)
"""A request as it was sent before a trace had a state, and a job a run."""

each_delivery = pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
Delivery = Literal["at_least_once", "at_most_once"]


class Traced(BaseWorker):
    """Says what its jobs are part of."""

    @job
    async def tell(self, job: Job[Any]) -> list[Any] | None:
        return told(job.trace)

    @job
    async def pass_on(self, job: Job[str]) -> list[Any]:
        inner = await self.job(job.payload, name="tell", delivery=job.request.delivery)  # type: ignore[arg-type]
        return [told(job.trace), inner]

    @job
    async def replace(self, job: Job[str]) -> list[Any]:
        with tracing(OTHER):
            inside = await self.job(job.payload, name="tell")
        return [inside, await self.job(job.payload, name="tell")]

    @job
    def in_a_thread(self, job: Job[Any]) -> list[Any] | None:
        return told(job.trace)


def told(trace: Trace | None) -> list[Any] | None:
    return None if trace is None else [trace.parent, trace.state, trace.run]


async def known(runner: WorkerRunner, name: str) -> None:
    ready = anyio.Event()
    await runner.registry.watch(name, lambda _: ready.set())
    await ready.wait()


NUMBERS = itertools.count()


@asynccontextmanager
async def two_runners() -> AsyncGenerator[tuple[WorkerRunner, WorkerRunner, Client]]:
    """`first` on one runner, `second` on another, and a client on a third one."""
    place = f"memory://trace-{next(NUMBERS)}"
    runners = [quiet(label, bus=place) for label in ("a", "b", "c")]
    with anyio.fail_after(60):
        async with runners[0], runners[1], runners[2], Client(runners[2]) as client:
            await runners[0].add_workers(Traced("first"))
            await runners[1].add_workers(Traced("second"))
            for runner in runners:
                for name in ("first", "second"):
                    await known(runner, name)
            yield runners[0], runners[1], client


async def test_a_job_tells_what_it_is_part_of_and_one_outside_is_part_of_nothing() -> None:
    async with running(Traced("first")) as runner, Client(runner) as client:
        with tracing(PARENT, STATE, run="run-1"):
            assert await client.request("first", name="tell") == [PARENT, STATE, "run-1"]
            assert await client.request("first", name="in_a_thread") == [PARENT, STATE, "run-1"]
        assert await client.request("first", name="tell") is None


@each_delivery
async def test_a_trace_crosses_the_network_and_reaches_jobs_inside_jobs(delivery: Delivery) -> None:
    async with two_runners() as (_, _, client):
        with tracing(PARENT, STATE, run="run-1"):
            answer = await client.request("first", "second", name="pass_on", delivery=delivery)
        assert answer == [[PARENT, STATE, "run-1"]] * 2
        answer = await client.request("first", "second", name="pass_on", delivery=delivery)
        assert answer == [None, None]


async def test_a_block_inside_a_handler_replaces_the_trace_for_its_own_jobs_and_keeps_the_run() -> None:
    async with two_runners() as (_, _, client):
        with tracing(PARENT, STATE, run="run-1"):
            answer = await client.request("first", "second", name="replace")
    assert answer == [[OTHER, None, "run-1"], [PARENT, STATE, "run-1"]]


async def test_blocks_inside_each_other_change_what_they_say_and_take_it_back() -> None:
    async with running(Traced("first")) as runner, Client(runner) as client:
        with tracing(run="run-1"):
            with tracing(PARENT):
                assert await client.request("first", name="tell") == [PARENT, None, "run-1"]
            with tracing(run="run-2"):
                assert await client.request("first", name="tell") == [None, None, "run-2"]
            with tracing(PARENT, STATE), tracing(run="run-3"):
                assert await client.request("first", name="tell") == [PARENT, STATE, "run-3"]
            assert await client.request("first", name="tell") == [None, None, "run-1"]
        assert await client.request("first", name="tell") is None


async def test_jobs_at_the_same_time_keep_their_own_trace() -> None:
    async with two_runners() as (_, _, client), anyio.create_task_group() as tasks:

        async def ask(number: int) -> None:
            with tracing(run=f"run-{number}"):
                inner = [None, None, f"run-{number}"]
                assert await client.request("first", "second", name="pass_on") == [inner, inner]

        for number in range(50):
            tasks.start_soon(ask, number)


async def test_a_group_carries_its_trace_to_each_member() -> None:
    async with two_runners() as (_, _, client):
        with tracing(PARENT):
            group = await client.job_group("first", "second", name="tell")
    assert group.responses == {"first": [PARENT, None, None], "second": [PARENT, None, None]}


async def test_a_runner_that_is_started_inside_a_trace_does_not_give_it_to_its_workers() -> None:
    class Hooked(BaseWorker):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.answer: Any = "none"
            self.answered = anyio.Event()

        async def on_activated(self, args: Any) -> None:
            self.answer = await self.job("first", name="tell")
            self.answered.set()

    hooked = Hooked("hooked")
    with tracing(PARENT, run="run-1"):
        async with running(Traced("first"), hooked):
            await hooked.answered.wait()
    assert hooked.answer is None


async def test_tasks_that_ran_traced_jobs_are_used_again() -> None:
    async with running(Traced("first")) as runner, Client(runner) as client:
        await client.request("first", name="tell")
        begun = TasksBegun(runner)
        for number in range(20):
            with tracing(PARENT, run=f"run-{number}"):
                await client.request("first", name="tell")
        assert begun.count == 0
        assert await client.request("first", name="tell") is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"traceparent": "00-abc"}, "traceparent must be 00-, 32 hex.* got '00-abc'"),
        ({"traceparent": PARENT.replace("4bf", "4BF")}, "traceparent must be"),
        ({"traceparent": "ff" + PARENT[2:]}, "traceparent must be"),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}, "traceparent must be"),
        ({"traceparent": f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01"}, "traceparent must be"),
        ({"traceparent": PARENT + "\n"}, "traceparent must be"),
        ({"traceparent": PARENT + "x" * 1_000_000}, "traceparent must be"),
        ({"traceparent": PARENT, "tracestate": "x" * 513}, "tracestate must be 1 to 512"),
        ({"traceparent": PARENT, "tracestate": "a=\u00e9"}, "tracestate must be"),
        ({"tracestate": STATE}, "give both"),
        ({"run": ""}, "run must be 1 to 128 .* got ''"),
        ({"run": "x" * 129}, "run must be"),
        ({"run": "a b"}, "run must be"),
        ({"run": "a\nb"}, "run must be"),
        ({"run": 7}, "run must be .* got 7"),
    ],
)
async def test_what_cannot_be_a_trace_is_refused_where_it_is_said(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught, tracing(**options):
        raise AssertionError
    assert len(str(caught.value)) < 300


async def test_the_longest_of_each_is_taken() -> None:
    async with running(Traced("first")) as runner, Client(runner) as client:
        with tracing(PARENT, "x" * 512, run="r" * 128):
            assert await client.request("first", name="tell") == [PARENT, "x" * 512, "r" * 128]


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({"trace": "garbage", "trace_state": STATE, "run": "run-1"}, [None, None, "run-1"]),
        ({"trace": PARENT, "trace_state": "x" * 513, "run": "x" * 100_000}, [PARENT, None, None]),
        ({"trace": "x" * 100_000}, None),
        ({"trace_state": STATE}, None),
    ],
)
async def test_what_others_send_that_is_no_trace_is_left_out_and_the_job_is_done(
    fields: dict[str, Any], seen: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_runners() as (_, _, client):
        post = runner_of(client).bus.post

        def forging(message: Any, *, force: bool = False) -> Any:
            if isinstance(message, BusJobRequestMessage):
                for name, value in fields.items():
                    setattr(message, name, value)
            return post(message, force=force)

        monkeypatch.setattr(runner_of(client).bus, "post", forging)
        assert await client.request("first", name="tell") == seen


def frame(**fields: Any) -> bytes:
    message = BusJobRequestMessage(source="a", target="b", job_id="j", payload=1, **fields)
    return encode(message, id="1", origin="a#1")


def test_a_frame_carries_all_of_it_and_one_without_costs_no_byte() -> None:
    header, body = decode_header(frame(trace=PARENT, trace_state=STATE, run="run-1"))
    message: Any = decode(header, body)
    assert (message.trace, message.trace_state, message.run) == (PARENT, STATE, "run-1")
    assert header.trace == PARENT
    assert b"trace" not in frame()
    assert b"run" not in frame()


def test_a_frame_of_before_there_were_traces_is_read() -> None:
    old = bytes.fromhex(OLD_FRAME)
    message: Any = decode(*decode_header(old))
    assert (message.payload, message.trace, message.trace_state, message.run) == ("hello", None, None, None)
