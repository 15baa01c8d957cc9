"""What a new user does, from the README alone, on real brokers; and what is said when it goes wrong."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
from contextlib import AsyncExitStack
from signal import SIGINT, SIGTERM, Signals

import anyio
import pytest
import redis

from actors import BaseWorker, Client, JobTimeoutError, WorkerRunner, WorkerUnavailableError, job
from actors.client.client import runner_of
from bus import AccessDeniedError, BusError, open_bus
from bus.brokers import BROKERS, Broker, NatsBroker, RedisBroker, free_port
from bus.redis.admin import RIGHTS
from tests.support.environment import ROOT
from tests.support.processes import DEADLINE, TAKEN, line_of, started

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
README = (ROOT / "README.md").read_text("utf-8")
WORKER = [sys.executable, "-m", "examples.fleet.worker"]
SCRIPT = [sys.executable, "-m", "examples.fleet.script"]


class Counter(BaseWorker):
    @job
    async def count(self, text: str) -> int:
        return len(text.split())


def said_in_the_end(process: subprocess.Popen[str], how: Signals | None = None) -> tuple[str, str]:
    if how is not None:
        process.send_signal(how)
    return process.communicate(timeout=DEADLINE)


# --- it works ---


def lines_for_the_shell(url: str) -> tuple[str, str]:
    """What the README tells to type in the two terminals, with another URL."""
    (block,) = re.findall(r"```sh\n(export ACTORBUS_BUS=.*?)```", README, re.DOTALL)
    setting, worker, script = (line.partition("#")[0].strip() for line in block.splitlines())
    assert setting == "export ACTORBUS_BUS=redis://localhost:6379"
    prefix = f"export ACTORBUS_BUS={url}; exec {shlex.quote(sys.executable)}"
    return prefix + worker.removeprefix(".venv/bin/python"), prefix + script.removeprefix(".venv/bin/python")


@pytest.mark.parametrize("worker_first", [True, False])
def test_the_two_terminals_of_the_readme_work(each_broker: Broker, worker_first: bool) -> None:
    worker_line, script_line = lines_for_the_shell(each_broker.url)
    if worker_first:
        with started(worker_line) as worker:
            assert line_of(worker) == "ann is ready\n"
            with started(script_line) as script:
                assert said_in_the_end(script) == ("3\n", "")
            out, err = said_in_the_end(worker, SIGINT)
            assert out == ""
            assert TAKEN.fullmatch(err)
            assert worker.returncode == 0
    else:
        with started(script_line) as script, started(worker_line) as worker:
            assert said_in_the_end(script) == ("3\n", "")
            out, err = said_in_the_end(worker, SIGTERM)
            assert out == "ann is ready\n"
            assert TAKEN.fullmatch(err)


@pytest.mark.parametrize(("kind", "how"), [("redis", SIGINT), ("nats", SIGTERM)])
def test_the_broker_of_the_readme_starts_and_says_its_url(kind: str, how: Signals) -> None:
    assert "`.venv/bin/python -m bus.brokers redis` (or `nats`)" in README
    with started([sys.executable, "-m", "bus.brokers", kind]) as broker:
        url = re.fullmatch(r"export ACTORBUS_BUS=(\S+)   # until Ctrl-C\n", line_of(broker))
        assert url is not None
        with started([*WORKER, url[1]]) as worker:
            assert line_of(worker) == "ann is ready\n"
            with started([*SCRIPT, url[1]]) as script:
                assert said_in_the_end(script) == ("3\n", "")
            worker.terminate()
            worker.wait(DEADLINE)
        assert said_in_the_end(broker, how) == ("", "")
        assert broker.returncode == 0


def test_an_unknown_kind_of_broker_is_refused_with_those_there_are() -> None:
    with started([sys.executable, "-m", "bus.brokers", "carrots"]) as broker:
        assert said_in_the_end(broker) == ("", "usage: python -m bus.brokers redis|nats\n")
    assert broker.returncode == 2


# --- the URL ---


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("foo", "no bus for the scheme 'foo': use memory://, memory://name, redis://host:port/db, .*nats://host:port"),
        ("localhost:6379", "no bus for the scheme 'localhost:6379': use "),
        ("redis:/localhost", "no bus for the scheme 'redis:/localhost': did you mean redis://[?]"),
        ("redi://localhost:6379", "no bus for the scheme 'redi': did you mean redis://[?]"),
        ("user:secret@host", r"no bus for the scheme '\*\*\*': use "),
        (
            "redis://localhost:6379x",
            r"'redis://localhost:.*' is not the URL of a server: it looks like redis://host:port",
        ),
        ("redis://u:secret@host:1/zero", "is not the URL of a Redis server: .* is the number of its database"),
        ("redis://localhost?secret=1", "an option of the Redis URL or client is not known: .*'secret'"),
        ("nats://", "is not the URL of a NATS server: that is nats://host:port"),
        ("nats://localhost:4222x", "'nats://localhost:.*' is not the URL of a NATS server"),
        (
            "nats://a:secret@b:1/path",
            r"'nats://\*\*\*@b:1/path' is not the URL of .*nothing behind the port",
        ),
        ("nats://b?user=secret", "'nats://b' is not the URL of a NATS server"),
        ("nats://a:4222,nats://b:x", r"nats://b:.*' is not the URL of a NATS server"),
        ("nats://[::1", "is not the URL of a NATS server"),
        ("memory://" + "x" * 129, "memory:// 'x+' is not a valid name"),
    ],
)
def test_a_wrong_url_is_told_with_the_way_out_and_where_it_comes_from(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        open_bus(url)
    assert "secret" not in str(refused.value).replace("'secret'", "")
    assert not hasattr(refused.value, "__notes__")
    monkeypatch.setenv("ACTORBUS_BUS", url)
    with pytest.raises(ValueError, match=told) as refused:
        open_bus()
    assert refused.value.__notes__ == ["The URL of the bus comes from the environment variable ACTORBUS_BUS."]


# --- the broker ---


@pytest.mark.parametrize("scheme", BROKERS)
def test_a_broker_that_is_not_there_is_named_and_ctrl_c_ends_the_wait(scheme: str) -> None:
    port = free_port()
    with started([*WORKER, f"{scheme}://user:secret@localhost:{port}"]) as worker:
        assert worker.stderr is not None
        warning = worker.stderr.readline()
        assert said_in_the_end(worker, SIGINT)[0] == ""
        assert worker.returncode == 0
    assert warning.startswith(
        "connecting to the network failed; trying again. Is the broker running, and is its URL right "
        "(the argument of open_bus, or ACTORBUS_BUS)? error="
    )
    assert f"localhost:{port}" in warning
    assert "secret" not in warning


@pytest.mark.anyio
@ASYNCIO
@pytest.mark.parametrize("scheme", BROKERS)
async def test_a_deadline_bounds_the_wait_for_a_broker_that_is_not_there(scheme: str) -> None:
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        with pytest.raises(TimeoutError), anyio.fail_after(1):
            await stack.enter_async_context(Client(open_bus(f"{scheme}://localhost:{free_port()}")))
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("scheme", BROKERS)
def test_a_host_that_does_not_exist_is_named(scheme: str) -> None:
    with started([*SCRIPT, f"{scheme}://no-such-host.invalid:1"]) as script:
        assert script.stderr is not None
        warning = next(line for line in script.stderr if "trying again" in line)
    assert "no-such-host.invalid:1" in warning
    assert re.search("not known|resolution|nodename", warning)


@pytest.mark.parametrize("kind", BROKERS)
def test_a_broker_that_comes_later_is_waited_for(kind: str) -> None:
    broker = BROKERS[kind]()
    try:
        with started([*SCRIPT, broker.url]) as script, started([*WORKER, broker.url]) as worker:
            for process in script, worker:
                assert process.stderr is not None
                assert "trying again" in process.stderr.readline()
            broker.start()
            assert line_of(script) == "3\n"
            said = said_in_the_end(worker, SIGTERM)
            assert said[0] == "ann is ready\n"
            assert re.match(r"connecting to the network works, after \d+ seconds failures=\d+\n", said[1])
    finally:
        broker.close()


@pytest.mark.anyio
@ASYNCIO
@pytest.mark.parametrize("credentials", ["", ":secret@", "user:secret@", "secret@"])
async def test_a_wrong_password_is_told_apart_from_no_broker(credentials: str) -> None:
    with RedisBroker("requirepass right") as broker:
        url = broker.url.replace("//", f"//{credentials}")
        with pytest.raises(AccessDeniedError, match=f"redis at 127.0.0.1:{broker.port} does not let us in") as refused:
            await Client(url).__aenter__()
        assert "Check user and password in the URL: redis://user:password@host:port/db" in str(refused.value)
        assert "secret" not in str(refused.value)
    with NatsBroker("authorization { user: user, password: right }") as nats:
        url = nats.url.replace("//", f"//{credentials}")
        with pytest.raises(AccessDeniedError, match=rf"nats://.*127.0.0.1:{nats.port} does not let us in") as refused:
            await Client(url).__aenter__()
        assert "Check user and password, or token, in the URL: nats://user:password@host:port" in str(refused.value)
        assert "secret" not in str(refused.value)


@pytest.mark.anyio
@ASYNCIO
async def test_a_missing_right_is_told_at_the_start(redis_broker: RedisBroker) -> None:
    lacking = [right for right in RIGHTS.split() if right != "+script|load"]
    with redis.Redis.from_url(redis_broker.url) as admin:
        admin.execute_command("ACL", "SETUSER", "worker", "on", ">right", "~actorbus:*", *lacking)
    url = redis_broker.url.replace("//", "//worker:right@")
    with pytest.raises(AccessDeniedError, match=r"a right that is needed, see docs/redis-acl.conf: .*script\|load"):
        await Client(url).__aenter__()


@pytest.mark.anyio
@ASYNCIO
async def test_a_right_that_is_taken_away_later_is_an_outage_and_no_end(redis_broker: RedisBroker) -> None:
    with redis.Redis.from_url(redis_broker.url) as admin:
        admin.execute_command("ACL", "SETUSER", "worker", "on", ">right", "~actorbus:*", *RIGHTS.split())
        url = redis_broker.url.replace("//", "//worker:right@")
        bus = open_bus(url)
        gone = anyio.Event()
        bus.add_event_handler("on_disconnected", lambda _bus: gone.set())
        with anyio.fail_after(DEADLINE):
            async with WorkerRunner(bus=bus) as runner, Client(url) as client:
                await runner.add_workers(Counter("ann"))
                admin.execute_command("ACL", "SETUSER", "worker", "<right")
                admin.execute_command("CLIENT", "KILL", "USER", "worker")
                await gone.wait()
                admin.execute_command("ACL", "SETUSER", "worker", ">right")
                assert await client.request("ann", "one two", name="count") == 2


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.parametrize("scheme", BROKERS)
async def test_trio_is_refused_with_what_to_do(scheme: str) -> None:
    with pytest.raises(BusError, match=r"needs asyncio, .*: run the program under asyncio"):
        await Client(f"{scheme}://127.0.0.1:1").__aenter__()


# --- whom to ask ---


@pytest.mark.anyio
@ASYNCIO
async def test_a_mistyped_worker_name_is_answered_with_those_of_the_fleet(each_broker: Broker) -> None:
    url = each_broker.url
    async with WorkerRunner("far", url) as far, WorkerRunner("near", url, ready_timeout=2.0) as near:
        await far.add_workers(Counter("counter"))
        async with Client(near) as client:
            assert await client.request("counter", "a b", name="count", timeout=DEADLINE) == 2
            with pytest.raises(WorkerUnavailableError, match="nobody served 'contuer' within 2 s; did you mean"):
                await client.request("contuer")
            with pytest.raises(WorkerUnavailableError, match=r"nobody served 'z' within 2 s; registered are"):
                await client.request("z")
            with pytest.raises(JobTimeoutError, match="nobody serves 'contuer': did you mean 'counter'"):
                await client.request("contuer", timeout=1.0)


@pytest.mark.anyio
@ASYNCIO
async def test_a_fleet_of_one_is_told_that_nobody_else_was_heard(each_broker: Broker) -> None:
    async with WorkerRunner(bus=each_broker.url, ready_timeout=1.0) as runner, Client(runner) as client:
        with pytest.raises(WorkerUnavailableError, match="no other runner was heard: has it been started, with the"):
            await client.request("ann")


@pytest.mark.anyio
@ASYNCIO
async def test_a_wrong_signing_key_is_told_at_both_ends(each_broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    url = each_broker.url
    async with (
        WorkerRunner("far", url, signing_key=b"a" * 32, heartbeat=0.2) as far,
        WorkerRunner("near", url, signing_key=b"b" * 32, heartbeat=0.2, ready_timeout=2.0) as near,
    ):
        await far.add_workers(Counter("ann"))
        async with Client(near) as client:
            with pytest.raises(WorkerUnavailableError, match=r"no other runner was heard: .* signing key"):
                await client.request("ann")
    for other in far, near:
        told = [message for message in caplog.messages if f"'{other.bus.address}'" in message]
        assert told, other
        assert "compare signing_key (or ACTORBUS_SIGNING_KEY) of both processes" in told[0]


@pytest.mark.anyio
async def test_who_forgets_the_url_is_told_that_the_bus_ends_with_the_process() -> None:
    async with WorkerRunner(ready_timeout=0.1) as runner, Client(runner) as client:
        with pytest.raises(WorkerUnavailableError, match=r"reaches only its own process: .* set ACTORBUS_BUS, or give"):
            await client.request("ann")


@pytest.mark.anyio
@ASYNCIO
async def test_clients_of_other_processes_are_no_workers(each_broker: Broker) -> None:
    url = each_broker.url
    async with WorkerRunner("a", url) as runner, Client(url), Client(url) as client:
        await runner.add_workers(Counter("ann"))
        registry = runner_of(client).registry
        known = anyio.Event()
        registry.listen(lambda _change: known.set() if len(registry.remote_workers) == 2 else None)
        with anyio.fail_after(DEADLINE):
            if len(registry.remote_workers) < 2:
                await known.wait()
        assert [data.worker_name for data in client.workers()] == ["ann"]
