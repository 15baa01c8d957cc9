"""The doctor looks at real brokers, whole ones and such as lack something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.cli.failures import ExitCode
from bus.brokers import BROKERS, RedisBroker
from tests.integration.shell import DEADLINE, Shell


@pytest.mark.parametrize("scheme", list(BROKERS))
def test_the_doctor_looks_at_the_broker(tmp_path: Path, scheme: str) -> None:
    with BROKERS[scheme]() as broker:
        found = doctors_view(Shell(tmp_path, broker.url))
    assert [found[check][0] for check in ("broker", "version", "persistence", "rights", "clock", "fleet")] == ["ok"] * 6
    assert found["keys"][0] == "warning"


def test_the_doctor_warns_of_a_broker_that_forgets(tmp_path: Path) -> None:
    with RedisBroker("maxmemory 100mb\nmaxmemory-policy allkeys-lru", persistent=False) as broker:
        found = doctors_view(Shell(tmp_path, broker.url))
    assert found["persistence"][0] == found["memory"][0] == "warning"
    assert "set appendonly yes" in found["persistence"][1]


def test_the_doctor_names_rights_that_are_missing(tmp_path: Path) -> None:
    with RedisBroker("user worker on >secret ~actorbus:* +@all -xclaim -time") as broker:
        found = doctors_view(Shell(tmp_path, f"redis://worker:secret@127.0.0.1:{broker.port}"))
    assert found["rights"][0] == "failed"
    assert found["rights"][1].startswith("xclaim refused")
    assert found["clock"][0] == "warning"
    assert "fleet" not in found


def test_the_doctor_names_a_nats_server_without_jetstream_rights(tmp_path: Path) -> None:
    settings = (
        'authorization { users = [{ user: w, password: s, permissions: { publish: ["$JS.API.>", "_INBOX.>"] } }] }'
    )
    with BROKERS["nats"](settings) as broker:
        found = doctors_view(Shell(tmp_path, f"nats://w:s@127.0.0.1:{broker.port}"))
    assert found["rights"][0] == "failed"
    assert "publish" in found["rights"][1].lower()


def test_the_doctor_finds_no_broker_where_there_is_none(tmp_path: Path) -> None:
    shell = Shell(tmp_path, "redis://127.0.0.1:1")
    process = shell.begin("doctor")
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (ExitCode.UNREACHABLE, "")
    assert "FAILED   broker" in out


def doctors_view(shell: Shell) -> dict[str, tuple[str, str]]:
    process = shell.begin("doctor", "--json")
    out, err = process.communicate(timeout=DEADLINE)
    assert not err
    return {each["check"]: (each["state"], each["text"]) for each in json.loads(out)}
