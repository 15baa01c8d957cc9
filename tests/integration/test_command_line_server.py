"""The server as it is started from a shell."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from actors.cli.failures import ExitCode
from actors.server.listening import _bind
from bus.brokers import RedisBroker, free_port
from tests.integration.shell import DEADLINE, Shell


@pytest.fixture
def shell(tmp_path: Path, redis_broker: RedisBroker) -> Shell:
    return Shell(tmp_path, redis_broker.url)


def test_a_server_shows_the_fleet_and_ends_well(shell: Shell) -> None:
    port = free_port()
    with shell.worker("shop:Till"):
        server = shell.begin("serve", "--port", str(port), "--run-store", "memory://", "--json")
        try:
            assert server.stdout is not None
            assert json.loads(server.stdout.readline())["server"] == f"http://127.0.0.1:{port}"
            wait_for_port(port)
            assert asked(port, "/readyz") == {"status": "ok"}
            while "Till" not in {each["worker_name"] for each in asked(port, "/workers")["workers"]}:
                time.sleep(1)
            server.terminate()
            out, err = server.communicate(timeout=DEADLINE)
            assert server.returncode == ExitCode.OK, out + err
        finally:
            server.kill()
            server.communicate()


@pytest.mark.parametrize("command", [("serve",), ("worker", "start", "shop:Till"), ("dev", "shop:Till")])
def test_what_is_still_waiting_for_its_broker_ends_at_the_first_signal(shell: Shell, command: tuple[str, ...]) -> None:
    port = () if command[0] == "worker" else ("--port", str(free_port()))
    program = shell.begin(*command, "--bus", f"redis://127.0.0.1:{free_port()}", *port)
    try:
        assert program.stderr is not None
        while "trying again" not in (line := program.stderr.readline()):
            assert line
        program.terminate()
        out, err = program.communicate(timeout=20)
        assert program.returncode == ExitCode.OK, out + err
        assert "Traceback" not in err
    finally:
        program.kill()
        program.communicate()


def wait_for_port(port: int) -> None:
    give_up = time.monotonic() + DEADLINE
    while True:
        with socket.socket() as link:
            if link.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < give_up
        time.sleep(1)


def asked(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return json.load(answer)


def test_a_server_that_others_reach_needs_a_token_and_names(shell: Shell) -> None:
    arguments = ("serve", "--host", "0.0.0.0", "--run-store", "memory://")  # noqa: S104 - it is refused
    assert "set ACTORBUS_TOKEN" in shell.run(*arguments, code=ExitCode.USAGE)
    named = shell.run(*arguments, "--token", "secret", code=ExitCode.USAGE)
    assert "--allowed-host" in named
    assert "cors_origins" in shell.run("serve", "--cors-origin", "*", code=ExitCode.USAGE)


def test_a_port_that_is_taken_is_refused(shell: Shell) -> None:
    taken = shell.bus.rpartition(":")[2]
    process = shell.begin("serve", "--port", taken, "--run-store", "memory://")
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == ExitCode.USAGE
    assert err.endswith("name another --port\n")


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head() -> None:
    kept: list[int] = []

    async def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def main() -> None:
        with _bind("127.0.0.1", 0, 1.0) as bound:
            async with await asyncio.start_server(accepted, sock=bound):
                reader, writer = await asyncio.open_connection(*bound.getsockname())
                await reader.read()
                writer.close()

    asyncio.run(main())
    assert kept
    assert kept[0] != 0
