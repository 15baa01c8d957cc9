"""Settings of the command line: where each comes from, and what of it is shown."""

from __future__ import annotations

import json

import pytest

from actors.cli.failures import ExitCode
from actors.cli.settings import SETTINGS, shown
from tests.support.command_line import call, refused, write


def origins(*arguments: str, **environment: str) -> dict[str, tuple[object, str]]:
    result = call(*arguments, "config", "show", "--json", **environment)
    assert result.exit_code == ExitCode.OK, result.output
    return {each["setting"]: (each["value"], each["origin"]) for each in json.loads(result.stdout)}


def test_a_setting_comes_from_argument_then_environment_then_file_then_default() -> None:
    assert origins()["concurrency"] == (None, "default")
    write("actorbus.toml", "concurrency = 1\nheartbeat-seconds = 0.5")
    assert origins()["concurrency"] == (1, "file actorbus.toml")
    assert origins()["heartbeat_seconds"] == (0.5, "file actorbus.toml")
    assert origins(ACTORBUS_CONCURRENCY="2")["concurrency"] == (2, "environment ACTORBUS_CONCURRENCY")
    result = call("config", "show", "--json", "--concurrency", "3", ACTORBUS_CONCURRENCY="2")
    assert {"setting": "concurrency", "value": 3, "origin": "argument"} in json.loads(result.stdout)


def test_every_setting_is_shown_with_its_origin() -> None:
    assert list(origins()) == list(SETTINGS)


def test_pyproject_is_read_where_there_is_no_file_of_our_own() -> None:
    write("pyproject.toml", "[tool.actorbus]\nport = 1234")
    assert origins()["port"] == (1234, "file pyproject.toml")
    write("actorbus.toml", "host = '::1'")
    assert origins()["port"] == (8000, "default")


def test_a_pyproject_of_others_says_nothing() -> None:
    write("pyproject.toml", "[tool.other]\nport = 1234")
    assert origins()["port"] == (8000, "default")


def test_the_file_can_be_named() -> None:
    write("other/mine.toml", "port = 1")
    assert origins("--config", "other/mine.toml")["port"] == (1, "file other/mine.toml")
    assert origins(ACTORBUS_CONFIG="other/mine.toml")["port"] == (1, "file other/mine.toml")
    assert "missing.toml" in refused("--config", "missing.toml", "config", "show")


def test_a_table_of_the_file_speaks_to_one_command() -> None:
    write("actorbus.toml", "concurrency = 1\n[worker.start]\nconcurrency = 0\n[config.show]\nconcurrency = 7")
    assert origins()["concurrency"] == (7, "file actorbus.toml")
    assert "0 is not in the range x>=1; it comes from actorbus.toml" in refused("worker", "start", "a:B")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("port = [", "actorbus.toml cannot be read"),
        ("prot = 1", "there is no setting 'prot': use "),
        ("[worker.begin]\nport = 1", "[worker] there is no table 'begin': use start"),
        ("[worker.start]\ncolour = 1", "[worker.start] there is no setting 'colour'"),
        ("[pss]", "there is no table 'pss': use ps"),
        ("port = 'many'", "it comes from actorbus.toml"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(content: str, words: str) -> None:
    write("actorbus.toml", content)
    assert words in refused("config", "show")


def test_what_is_wrong_in_the_environment_is_named() -> None:
    line = refused("config", "show", ACTORBUS_PORT="many")
    assert "it comes from the environment variable ACTORBUS_PORT" in line


SECRETS = {"ACTORBUS_BUS": "redis://user:hunter2@host:1/0?x=hunter2", "ACTORBUS_TOKEN": "hunter2"}


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_secrets_are_not_shown(form: list[str]) -> None:
    told = call("config", "show", "--read-token", "hunter2", *form, **SECRETS).stdout
    assert "redis://***@host:1/0" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("bus", "redis://host:6379/0", "redis://host:6379/0"),
        ("bus", "redis://:secret@host", "redis://***@host"),
        ("bus", "redis://:secret", "redis://:***"),
        ("run_store", "nats://token@host:4222", "nats://***@host:4222"),
        ("run_store", "redis://user:se/cret@host", "redis://***@host"),
        ("run_store", "sqlite:///runs.db", "sqlite:///runs.db"),
        ("token", "secret", "***"),
        ("read_token", "secret://secret", "***"),
        ("host", "127.0.0.1", "127.0.0.1"),
        ("bus", None, None),
    ],
)
def test_a_setting_is_shown_without_what_is_secret(name: str, value: str | None, seen: str | None) -> None:
    assert shown(name, value) == seen
