"""The server is killed while a run goes on, again and again: the run ends, and its reader misses nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from bus.brokers import free_port
from tests.support.environment import environment
from tests.support.http import Event, events_in, is_up

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

CHUNKS = 400
KILLS = 2
BETWEEN = 60
"""Events seen between two kills."""


@asynccontextmanager
async def server(port: int, folder: Path) -> AsyncGenerator[subprocess.Popen[bytes]]:
    """A server on a port until it is killed, or the block ends."""
    command = [sys.executable, "-m", "tests.integration.programs.http_server", str(port), "runs.db"]
    process = subprocess.Popen(command, cwd=folder, env=environment())  # noqa: ASYNC220 - it takes a moment
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            while not await is_up(client):
                assert process.poll() is None
                await anyio.sleep(1)
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_reader_that_comes_back_after_each_kill_sees_every_event_once(tmp_path: Path) -> None:
    port, place, seen = free_port(), "", list[Event]()
    known: dict[str, Any] = {}
    with anyio.fail_after(110):
        for life in range(KILLS + 1):
            async with server(port, tmp_path) as process, httpx.AsyncClient(timeout=60) as client:
                url = f"http://127.0.0.1:{port}"
                if not place:
                    submission = {"worker_names": ["counter"], "name": "count", "payload": CHUNKS}
                    place = (await client.post(f"{url}/submit", json=submission)).headers["location"]
                headers = {"last-event-id": str(seen[-1].id)} if seen else {}
                before = len(seen)
                async with client.stream("GET", f"{url}{place}/stream", headers=headers) as response:
                    assert response.status_code == 200
                    async for each in events_in(response):
                        seen.append(each)
                        if life < KILLS and len(seen) - before >= BETWEEN:
                            process.kill()
                            break
                if life == KILLS:
                    known = (await client.get(f"{url}{place}")).json()
    assert seen[-1].type == "group_completed"
    assert known["state"] == "completed"
    assert known["attempts"] > 1, "it was over before it was killed"
    ids = [int(str(each.id)) for each in seen]
    assert ids == sorted(set(ids)), "an event came twice, or late"
    last = [each.data["data"] for each in seen if each.type == "stream" and each.data["attempt"] == known["attempts"]]
    assert last == list(range(CHUNKS)), "an event is missing"
