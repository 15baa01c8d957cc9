"""Scripts with a sync client, on real brokers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from signal import SIGINT
from threading import Thread
from time import monotonic

import anyio
import pytest

from actors import BaseWorker, Client, Job, JobTimeoutError, WorkerRunner, job
from actors.runs import RunEventType
from bus import AccessDeniedError, open_bus
from bus.brokers import Broker, NatsBroker, RedisBroker, free_port
from tests.integration.programs.fleet_worker import QUICK
from tests.support.environment import ROOT, environment
from tests.support.processes import DEADLINE, line_of, program, run
from tests.unit.actors.client.test_sync_client import nothing_left

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Desk(BaseWorker):
    def __init__(self) -> None:
        super().__init__("desk")
        self.began = anyio.Event()
        self.stopped = anyio.Event()

    @job
    async def echo(self, job: Job[str]) -> str:
        return job.payload

    @job
    async def hang(self, job: Job[None]) -> None:
        self.began.set()
        try:
            await job.update("hanging")
            await anyio.sleep_forever()
        finally:
            self.stopped.set()


def test_the_two_lines_of_the_readme_work(each_broker: Broker) -> None:
    (lines,) = re.findall(r"```python\n(with Client\.sync.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    script = lines.replace("redis://localhost:6379", each_broker.url)
    assert script != lines
    assert len(script.splitlines()) == 2
    command = [sys.executable, "-m", "examples.fleet.worker", each_broker.url]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL) as worker:
        try:
            done = run("-c", f"from actors import Client\n{script}")
        finally:
            worker.terminate()
    assert (done.stdout, done.stderr) == ("3\n", "")


def use_all(url: str) -> None:
    with program("desk", url, "10"), nothing_left(), Client.sync(url) as client:
        assert client.request("desk", {"nested": [1, b"bytes"]}, name="echo", timeout=60) == {"nested": [1, b"bytes"]}
        assert client.gather("desk", range(300), name="echo", max_concurrency=50) == [*range(300)]
        with client.job("desk", name="echo", payload=5) as job:
            assert list(job) == []
        assert job.response == 5
        assert client.job_group("desk", name="echo", payload=6).result().responses == {"desk": 6}
        assert [each.worker_name for each in client.workers()] == ["desk"]
        submitted = client.submit("desk", name="echo", payload=7)
        assert [event.type for event in submitted.events()][-1] is RunEventType.GROUP_COMPLETED
        assert client.run(submitted.run_id).result(60) == 7
        assert [each.run_id for each in client.runs()] == [submitted.run_id]
        assert client.dead_letters.oldest() == []
        assert client.dead_letters.purge() == 0


def test_a_script_does_all_over_redis_and_leaves_nothing(redis_broker: RedisBroker) -> None:
    use_all(redis_broker.url)


def test_a_script_does_all_over_nats_and_leaves_nothing(nats_broker: NatsBroker) -> None:
    use_all(nats_broker.url)


def test_a_job_that_a_script_waits_for_is_done_by_another_when_its_performer_is_killed(each_broker: Broker) -> None:
    url = each_broker.url
    with (
        program("fleet_worker", "first", url) as first,
        program("fleet_worker", "second", url) as second,
    ):
        assert (line_of(first), line_of(second)) == ("ready\n", "ready\n")
        killed: list[str] = []

        def kill_who_has_it(process: subprocess.Popen[str], name: str) -> None:
            if line_of(process) == "started 1\n":
                process.kill()
                killed.append(name)

        for process, name in (first, "first"), (second, "second"):
            Thread(target=kill_who_has_it, args=(process, name), daemon=True).start()
        with Client.sync(open_bus(url, **QUICK)) as client:
            runner, attempt = client.request("hanging", name="hang", timeout=DEADLINE)
        assert [runner, attempt] == [{"first": "second", "second": "first"}[killed[0]], 2]


@pytest.mark.anyio
@ASYNCIO
async def test_a_job_whose_broker_is_away_ends_at_its_deadline_and_the_client_comes_back(each_broker: Broker) -> None:
    def script() -> None:
        with Client.sync(each_broker.url) as client:
            assert client.request("desk", "before", name="echo", timeout=60) == "before"
            each_broker.kill()
            began = monotonic()
            with pytest.raises(JobTimeoutError):
                client.request("desk", "lost", name="echo", timeout=1.0)
            assert monotonic() - began < 30
            each_broker.start()
            assert client.request("desk", "after", name="echo", timeout=60) == "after"

    async with hosted(each_broker.url):
        await anyio.to_thread.run_sync(script)


@asynccontextmanager
async def hosted(url: str) -> AsyncGenerator[Desk]:
    desk = Desk()
    with anyio.fail_after(DEADLINE):
        async with WorkerRunner(bus=url, handle_sigint=False, handle_sigterm=False, drain_timeout=1.0) as runner:
            await runner.add_workers(desk)
            yield desk


def test_who_is_not_let_in_is_told_and_nothing_is_left() -> None:
    with RedisBroker("requirepass right") as broker, nothing_left():
        client = Client.sync(broker.url)
        with pytest.raises(AccessDeniedError, match="does not let us in"):
            client.__enter__()


@pytest.mark.anyio
@ASYNCIO
async def test_ctrl_c_ends_a_script_that_waits_and_the_job_it_waits_for(each_broker: Broker) -> None:
    async with hosted(each_broker.url) as desk:
        with program("sync_client", "closes", each_broker.url, stderr=subprocess.PIPE) as process:
            await desk.began.wait()
            process.send_signal(SIGINT)
            said, complaint = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=DEADLINE))
        await desk.stopped.wait()
    assert said == "hello\n"
    assert complaint.splitlines()[-1] == "KeyboardInterrupt"
    assert "Error" not in complaint
    assert process.returncode == -SIGINT


@pytest.mark.anyio
@ASYNCIO
async def test_a_script_that_forgets_to_close_ends_and_so_does_what_it_asked_for(each_broker: Broker) -> None:
    async with hosted(each_broker.url) as desk:

        def script() -> tuple[str, str, int]:
            with program("sync_client", "forgets", each_broker.url, stderr=subprocess.PIPE) as process:
                return *process.communicate(timeout=DEADLINE), process.returncode

        assert await anyio.to_thread.run_sync(script) == ("hello\nhanging\n", "", 0)
        await desk.stopped.wait()


def test_a_script_that_forgets_to_close_ends_also_without_a_broker() -> None:
    done = run("-m", "tests.integration.programs.sync_client", "forgets_in_memory", "memory://")
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


@pytest.mark.parametrize("scheme", ["redis", "nats"])
def test_ctrl_c_ends_the_wait_for_a_broker_that_is_not_there(scheme: str) -> None:
    with program("sync_client", "closes", f"{scheme}://127.0.0.1:{free_port()}", stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert "trying again" in process.stderr.readline()
        process.send_signal(SIGINT)
        said, complaint = process.communicate(timeout=DEADLINE)
    assert said == ""
    assert complaint.splitlines()[-1] == "KeyboardInterrupt"
