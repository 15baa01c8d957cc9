"""A server asked without a network, and one asked over a port of this machine."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import httpx
from starlette.applications import Starlette

from actors import function
from actors.server import listen
from bus.brokers import free_port

LONGEST_WAIT = 250.0


@function()
def greet(name: str, times: int = 1) -> str:
    """Greet somebody."""
    return f"hello {name}" * times


@function()
async def double(number: int) -> int:
    return 2 * number


@asynccontextmanager
async def asking(app: Starlette, **options: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of an app that runs as long as the block; answers come when they are complete."""
    options = {"base_url": "http://localhost", **options}
    with anyio.fail_after(LONGEST_WAIT):
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), **options) as client,
        ):
            yield client


@asynccontextmanager
async def listening(app: Starlette, **options: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of an app that listens on a free port as long as the block."""
    port = free_port()
    stop = anyio.Event()

    async def run() -> None:
        await listen(app, port=port, stop=stop, log_config=None)
        ended.set()

    ended = anyio.Event()
    with anyio.fail_after(LONGEST_WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            limits = httpx.Limits(max_connections=None)
            options = {"base_url": f"http://127.0.0.1:{port}", "timeout": LONGEST_WAIT, "limits": limits, **options}
            async with httpx.AsyncClient(**options) as client:
                while not await is_up(client):
                    await anyio.lowlevel.checkpoint()
                yield client
            stop.set()
            await ended.wait()


async def is_up(client: httpx.AsyncClient) -> bool:
    try:
        await client.get("/livez")
    except httpx.ConnectError:
        return False
    return True


class Event:
    """A server-sent event as its reader sees it."""

    def __init__(self, lines: list[str]) -> None:
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        self.id = fields.get("id")
        self.type = fields.get("event")
        self.data = json.loads(fields["data"])


def events_of(text: str) -> list[Event]:
    """The events of a whole stream."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return [Event(block) for block in blocks if any(line.startswith("data: ") for line in block)]


async def events_in(response: httpx.Response) -> AsyncIterator[Event]:
    """The events of a stream, each as it comes."""
    lines: list[str] = []
    async for line in response.aiter_lines():
        if line:
            lines.append(line)
        else:
            block, lines = lines, []
            if any(each.startswith("data: ") for each in block):
                yield Event(block)


async def until_it_says(client: httpx.AsyncClient, path: str, status: int, text: str = "") -> httpx.Response:
    """Ask until the answer has that status, and that text in it."""
    with anyio.fail_after(60):
        while True:
            response = await client.get(path)
            if response.status_code == status and text in response.text:
                return response
            await anyio.sleep(1)
