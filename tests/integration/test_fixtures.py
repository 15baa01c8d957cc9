"""The fixtures that start real brokers for a test of a user."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.support.environment import ROOT
from tests.support.processes import run

TEST_OF_A_USER = """
import socket

def test_one(each_broker):
    socket.create_connection(("127.0.0.1", each_broker.port)).close()

def test_two(redis_broker, nats_broker):
    assert (redis_broker.url[:5], nats_broker.url[:5]) == ("redis", "nats:")
"""


BROKEN = """
from bus.brokers import NatsBroker, RedisBroker
NatsBroker._configuration = RedisBroker._configuration = lambda self, data: "no such {"
"""


def test_the_fixtures_start_real_brokers(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(TEST_OF_A_USER)
    ended = run("-m", "pytest", "-p", "no:asyncio", "-p", "bus.fixtures", "-v", "test_user.py", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout
    for test in ("test_one[redis]", "test_one[nats]", "test_two"):
        assert f"{test} PASSED" in ended.stdout


def test_a_broker_that_does_not_start_fails_the_test_and_does_not_skip_it(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(TEST_OF_A_USER)
    (tmp_path / "conftest.py").write_text(BROKEN)
    ended = run("-m", "pytest", "-p", "no:asyncio", "-p", "bus.fixtures", "test_user.py", cwd=tmp_path)
    assert ended.returncode == 1
    assert "3 errors" in ended.stdout
    assert "did not start at port" in ended.stdout


def test_no_plugin_is_loaded_by_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "pytest11" not in project.get("entry-points", {})
