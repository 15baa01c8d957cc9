"""Types named in the signature of a handler or function travel without being registered by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import pytest

from actors import BaseWorker, Client, Function, Job, WorkerRunner, function, job
from actors.worker.handlers import definition_of
from bus import register_type
from bus.wire.known import REGISTERED

pytestmark = pytest.mark.anyio


class Inner(msgspec.Struct):
    number: int


class Outer(msgspec.Struct):
    inner: Inner
    others: tuple[Inner, ...] = ()


@dataclass
class Listed:
    number: int


class Streamed(msgspec.Struct):
    number: int


class Asked(msgspec.Struct):
    number: int


class Bare(msgspec.Struct):
    number: int


class Point(msgspec.Struct):
    x: int


class Speaker(BaseWorker):
    @job
    async def nested(self, _number: int) -> Outer:
        return Outer(Inner(1), (Inner(2),))

    @job
    async def listed(self, _number: int) -> list[Listed] | None:
        return [Listed(1)]

    @job
    async def streamed(self, number: int) -> AsyncIterator[Streamed]:
        yield Streamed(number)

    @job
    async def optional(self, request: Job[Asked | None]) -> int:
        return 0 if request.payload is None else request.payload.number

    @job
    async def bare(self) -> Bare:
        return Bare(1)


@function()
def mirror(point: Point) -> list[Point]:
    return [point, Point(-point.x)]


@pytest.mark.parametrize(
    ("name", "payload", "answer"),
    [
        ("nested", 1, Outer(Inner(1), (Inner(2),))),
        ("listed", 1, [Listed(1)]),
        ("optional", Asked(7), 7),
        ("optional", None, 0),
        ("bare", None, Bare(1)),
    ],
)
async def test_what_a_handler_names_in_its_signature_travels(name: str, payload: object, answer: object) -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Speaker("speaker"))
        assert await client.request("speaker", payload, name=name) == answer


async def test_what_a_handler_streams_travels() -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Speaker("speaker"))
        async with client.job("speaker", name="streamed", payload=3) as stream:
            chunks = [event.data async for event in stream if event.type == event.STREAM_DATA]
        assert chunks == [Streamed(3)]


async def test_what_a_function_names_in_its_signature_travels() -> None:
    assert isinstance(mirror, Function)
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(mirror)
        assert await client.request("mirror", Point(2)) == [Point(2), Point(-2)]


def test_a_type_registered_under_a_tag_of_its_own_keeps_it() -> None:
    class Tagged(msgspec.Struct):
        number: int

    register_type(Tagged, tag="tagged")

    class Other(BaseWorker):
        @job
        async def go(self, value: Tagged) -> Tagged:
            return value

    assert REGISTERED.by_class[Tagged].tag == "tagged"
    assert definition_of(Other).jobs["go"].type is Tagged
