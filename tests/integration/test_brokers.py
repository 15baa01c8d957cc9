"""Brokers of one's own: how they start, what they print, and that they end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio
import nats
import pytest
import redis

import bus.brokers
from bus import BrokerError
from bus.brokers import BROKERS, Broker, NatsBroker, RedisBroker
from tests.support.environment import ROOT, environment
from tests.support.processes import DEADLINE, wait_for_its_end

ANNOUNCE = """
import sys, time
from bus.brokers import BROKERS
with BROKERS[sys.argv[1]]() as broker:
    print(broker.port, broker._directory, flush=True)
    time.sleep(1000)
"""


def listens(broker: Broker) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", broker.port)) == 0


@pytest.fixture(params=BROKERS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_a_broker_runs_as_long_as_its_block_and_leaves_nothing(kind: str) -> None:
    with BROKERS[kind]() as broker:
        assert broker.url == f"{kind}://127.0.0.1:{broker.port}"
        assert listens(broker)
        directory = broker._directory
        assert os.getpgid(broker.pid) != os.getpgid(0), "Ctrl-C on a terminal would end it with the program"
        os.kill(broker.pid, 0)
    assert not listens(broker)
    assert broker.pid == 0
    assert not directory.exists()


def test_a_redis_broker_keeps_what_it_accepted_until_it_is_wiped(redis_broker: RedisBroker) -> None:
    with redis.Redis.from_url(redis_broker.url) as client:
        client.set("key", "value")
        redis_broker.restart()
        assert client.get("key") == b"value"
        with pytest.raises(BrokerError, match="stop it before its files are deleted"):
            redis_broker.wipe()
        redis_broker.stop()
        redis_broker.wipe()
        redis_broker.start()
        assert client.get("key") is None


def test_a_nats_broker_keeps_what_it_accepted(nats_broker: NatsBroker) -> None:
    async def use() -> int:
        client = await nats.connect(nats_broker.url, allow_reconnect=False)
        stream = client.jetstream()
        await stream.add_stream(name="kept", subjects=["kept"])
        count = await stream.publish("kept")
        await client.close()
        return count.seq

    assert anyio.run(use) == 1
    nats_broker.restart()
    assert anyio.run(use) == 2


def test_a_directory_of_the_user_is_not_deleted(kind: str, tmp_path: Path) -> None:
    for _ in range(2):
        with BROKERS[kind](directory=tmp_path / "with space"):
            pass
    assert (tmp_path / "with space" / "data").is_dir()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_broker_ends_with_the_process_that_started_it(kind: str, how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ANNOUNCE, kind],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        port, _, directory = process.stdout.readline().strip().partition(" ")
        try:
            with socket.create_connection(("127.0.0.1", int(port)), DEADLINE) as link:
                process.send_signal(how)
                wait_for_its_end(link)
            end = time.monotonic() + DEADLINE
            while Path(directory).exists():  # the server has ended a moment before
                assert time.monotonic() < end, "its files are left"
                time.sleep(1)
        finally:
            process.kill()
            shutil.rmtree(directory, ignore_errors=True)


def test_a_directory_of_the_user_outlives_a_process_that_is_killed(kind: str, tmp_path: Path) -> None:
    program = ANNOUNCE.replace("[sys.argv[1]]()", "[sys.argv[1]](directory=pathlib.Path(sys.argv[2]))")
    program = program.replace("broker._directory", "broker._keeper.pid")
    with subprocess.Popen(
        [sys.executable, "-c", f"import pathlib\n{program}", kind, str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        port, keeper = map(int, process.stdout.readline().split())
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as link:
            process.kill()
            wait_for_its_end(link)
        end = time.monotonic() + DEADLINE
        while is_there(keeper):
            assert time.monotonic() < end
            time.sleep(1)
    assert (tmp_path / "data").is_dir()


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_broker_that_stands_still_is_killed_when_it_does_not_stop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus.brokers, "STOPS_WITHIN", 0.1)
    with BROKERS[kind]() as broker:
        os.kill(broker.pid, signal.SIGSTOP)
        broker.stop()
        assert not listens(broker)


def test_a_broker_whose_keeper_is_gone_is_killed_all_the_same(kind: str) -> None:
    with BROKERS[kind]() as broker:
        assert broker._keeper is not None
        broker._keeper.kill()
        broker._keeper.wait()
        with socket.create_connection(("127.0.0.1", broker.port), DEADLINE) as link:
            broker.stop()
            wait_for_its_end(link)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [("redis", "no such thing", "Bad directive"), ("nats", "no such {", "Parse error")],
    ids=BROKERS,
)
def test_a_broker_that_does_not_start_says_why(kind: str, settings: str, words: str) -> None:
    broker = BROKERS[kind](settings)
    with pytest.raises(BrokerError, match=rf"(?s)did not start at port {broker.port}:.*{words}"), broker:
        pass
    assert broker.pid == 0
    assert not broker._directory.exists()


def test_a_machine_without_a_server_is_told_what_to_install(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_arguments, **_keywords: None)
    monkeypatch.setattr(bus.brokers, "find_spec", lambda _name: None)
    with pytest.raises(BrokerError, match=r"pip install 'actorbus\[brokers\]'"), BROKERS[kind]():
        pass
