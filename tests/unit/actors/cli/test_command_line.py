"""The command line without a broker: arguments, configuration, errors, help."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

import actors.server
from actors.cli.command import Command, failed
from actors.cli.commands.serving import _check_binding
from actors.cli.entry import main
from actors.cli.failures import MEANINGS, CommandError, ExitCode, understood
from actors.cli.output import encoded, pretty
from actors.cli.program import actorbus
from actors.jobs.errors import HandlerError, JobError, JobTimeoutError, WorkerUnavailableError
from actors.runs.errors import RunFailedError, RunNotFoundError, RunStoreError
from actors.runs.run import RunState, RunStatus
from actors.runs.stores.record import is_id
from bus import BrokerError, BusError, DecodeError, InvalidNameError, TransportError
from tests.support.command_line import SHOP, call, refused, write
from tests.support.environment import ROOT, environment


def commands(
    group: click.Group = actorbus, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = list(commands())
each_command = pytest.mark.parametrize(("path", "command"), ALL, ids=["-".join(path) for path, _ in ALL])


def test_the_commands_that_are_promised_are_there() -> None:
    assert {" ".join(path) for path, _ in ALL} == {
        "worker start",
        "serve",
        "dev",
        "ps",
        "invoke",
        "submit",
        "runs list",
        "runs show",
        "runs cancel",
        "runs tail",
        "events",
        "dead-letters list",
        "dead-letters show",
        "dead-letters requeue",
        "dead-letters purge",
        "doctor",
        "schema",
        "config show",
    }


@each_command
def test_the_help_of_every_command_ends_with_an_example_of_it(path: tuple[str, ...], command: click.Command) -> None:
    result = call(*path, "--help")
    assert result.exit_code == ExitCode.OK
    _, _, example = result.stdout.partition("Example:\n")
    assert " ".join(("actorbus", *path)) in example
    assert isinstance(command, Command)
    assert command.help


@each_command
def test_the_example_of_every_command_is_one(path: tuple[str, ...], command: click.Command) -> None:
    assert isinstance(command, Command)
    words = itertools.takewhile(lambda word: word not in {"|", ">"}, shlex.split(command.example))
    program, *arguments = itertools.dropwhile(lambda word: "=" in word, words)
    assert [program, *arguments[: len(path)]] == ["actorbus", *path]
    context = command.make_context(path[-1], arguments[len(path) :])
    if path == ("serve",):
        _check_binding(actors.server, context.params["host"], "a token", context.params["allowed_hosts"])
    for run_id in arguments[2:3] if path[0] == "runs" and path[-1] != "list" else ():
        assert is_id(run_id)


@pytest.mark.parametrize("path", [(), ("worker",), ("runs",), ("dead-letters",), ("config",)])
def test_the_help_of_a_group_shows_the_examples_of_its_commands(path: tuple[str, ...]) -> None:
    shown = call(*path, "--help").stdout
    inner = [command.example for each, command in ALL if each[:-1] == path and isinstance(command, Command)]
    assert inner
    for example in inner:
        assert f"\n  {example}\n" in shown


@each_command
def test_every_command_can_print_json(path: tuple[str, ...], command: click.Command) -> None:
    assert "json" in {parameter.name for parameter in command.params}


@each_command
def test_every_option_of_every_command_is_explained(path: tuple[str, ...], command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@each_command
def test_every_command_refuses_an_option_it_does_not_know_in_one_line(
    path: tuple[str, ...], command: click.Command
) -> None:
    assert refused(*path, "--no-such-option").endswith(f"(see: {' '.join(('actorbus', *path))} --help)")


def test_the_help_shows_the_table_of_exit_codes() -> None:
    shown = call("--help").stdout
    assert set(MEANINGS) == set(ExitCode)
    for code, meaning in MEANINGS.items():
        assert f"{code.value:>4}  {meaning}\n" in shown


LOST = RunStatus(run_id="r", state=RunState.FAILED, worker_names=("a",))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobError("it failed"), ExitCode.FAILED),
        (JobTimeoutError("too late"), ExitCode.FAILED),
        (RunFailedError(LOST), ExitCode.FAILED),
        (DecodeError("no frame"), ExitCode.FAILED),
        (click.UsageError("no"), ExitCode.USAGE),
        (InvalidNameError("worker name", "a b"), ExitCode.USAGE),
        (HandlerError("no handler"), ExitCode.USAGE),
        (WorkerUnavailableError("nobody"), ExitCode.NOT_FOUND),
        (RunNotFoundError("r"), ExitCode.NOT_FOUND),
        (TransportError("gone"), ExitCode.UNREACHABLE),
        (RunStoreError("gone"), ExitCode.UNREACHABLE),
        (BrokerError("no server"), ExitCode.UNREACHABLE),
        (BusError("too old"), ExitCode.UNREACHABLE),
        (TimeoutError("too late"), ExitCode.TIMED_OUT),
        (OSError(28, "No space left on device"), ExitCode.FAILED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ExceptionGroup("one", [TransportError("gone")]), ExitCode.UNREACHABLE),
        (CommandError("nobody", ExitCode.NOT_FOUND), ExitCode.NOT_FOUND),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.name,
)
def test_an_error_is_one_line_and_its_exit_code(
    error: BaseException, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failed(error) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_an_error_that_nobody_foresaw_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(ValueError("unforeseen")) == ExitCode.DEFECT
    assert "Traceback" not in capsys.readouterr().out
    assert failed(ZeroDivisionError("unforeseen")) == ExitCode.DEFECT
    assert "ZeroDivisionError: unforeseen" in capsys.readouterr().err


def test_a_value_that_a_constructor_refuses_is_bad_usage() -> None:
    with pytest.raises(CommandError, match="too small") as caught, understood():
        raise ValueError("too small")
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({(1, 2): [{None: b"x"}]}, '{"(1, 2)":[{"None":"eA=="}]}'),
        ({"a": "half \ud800"}, '{"a":"half ?"}'),
        (RunState.FAILED, '"failed"'),
    ],
)
def test_every_answer_can_be_printed(value: object, line: str) -> None:
    assert encoded(value) == line
    assert pretty("half \ud800") == "half ?"


@pytest.mark.parametrize("option", [("ps", "--connect-timeout"), ("ps", "--listen"), ("invoke", "Till", "--timeout")])
def test_a_number_of_seconds_is_one(option: tuple[str, ...]) -> None:
    result = call(*option, "nan")
    assert result.exit_code == ExitCode.USAGE
    assert "nan is no number of seconds" in result.stderr


def test_what_others_wrote_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    failed(JobError("red \x1b[31m\nand more"))
    assert capsys.readouterr().err == "actorbus: red  [31m and more\n"


# --- what is printed ---


def test_the_schema_says_what_handlers_take_and_give() -> None:
    write("shop.py", SHOP)
    document = json.loads(call("schema", "shop:Till", "--json").stdout)
    assert document["workers"]["Till"]["charge"] == {
        "description": "Charge for an order.",
        "payload": {"$ref": "#/$defs/Order"},
        "answer": {"type": "number"},
    }
    assert document["workers"]["Till"]["count"]["streams"] == {"type": "integer"}
    assert document["$defs"]["Order"]["required"] == ["item"]


def test_the_schema_of_pydantic_models_is_theirs() -> None:
    write(
        "models.py",
        """
        from pydantic import BaseModel
        from actors import BaseWorker, job

        class Line(BaseModel):
            item: str

        class Bill(BaseModel):
            lines: list[Line]

        class Till(BaseWorker):
            @job
            async def pay(self, bill: Bill) -> None: ...
        """,
    )
    document = json.loads(call("schema", "models:Till", "--json").stdout)
    assert document["workers"]["Till"]["pay"]["payload"]["properties"]["lines"]["items"] == {"$ref": "#/$defs/Line"}
    assert document["$defs"]["Line"]["required"] == ["item"]


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    write("shop.py", SHOP)
    result = call("schema", "shop:Till", "shop:greet", "--asyncapi", "--title", "Shop", "--version", "2")
    document = json.loads(result.stdout)
    assert (document["asyncapi"], document["info"]) == ("3.0.0", {"title": "Shop", "version": "2"})
    assert set(document["operations"]) == {"Till.charge", "Till.count", "greet.job"}
    references = list(references_in(document))
    assert references
    for reference in references:
        value = document
        for part in reference.removeprefix("#/").split("/"):
            value = value[part]


def references_in(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references_in(inner)


@pytest.mark.parametrize(
    "arguments",
    [
        ("worker", "start", "a:B"),
        ("ps",),
        ("invoke", "a"),
        ("submit", "a"),
        ("events",),
        ("doctor",),
        ("dead-letters", "list"),
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("bus", ["", "memory://", "memory://name"])
def test_a_bus_that_ends_with_this_process_is_refused(arguments: tuple[str, ...], bus: str) -> None:
    assert "--bus redis://host:6379" in refused(*arguments, **({"ACTORBUS_BUS": bus} if bus else {}))


def test_a_module_to_import_that_is_not_there_is_refused() -> None:
    arguments = ("runs", "list", "--run-store", "memory://")
    assert "there is no module 'nowhere'" in refused(*arguments, "--import", "nowhere")
    write("shop.py", SHOP)
    assert call(*arguments, "--import", "shop").exit_code == ExitCode.OK
    assert call(*arguments, ACTORBUS_IMPORTS="shop shop").exit_code == ExitCode.OK
    assert "there is no module 'gone'" in refused(*arguments, ACTORBUS_IMPORTS="shop gone")


def test_runs_need_a_store() -> None:
    assert "say --run-store URL or --bus URL" in refused("runs", "list")
    assert "no run store for" in refused("runs", "list", "--run-store", "paper://here")


def test_a_run_that_is_not_there_is_not_found() -> None:
    for arguments in (("show", "r1"), ("cancel", "r1"), ("tail", "r1")):
        result = call("runs", *arguments, "--run-store", "memory://")
        assert (result.exit_code, result.stdout) == (ExitCode.NOT_FOUND, "")
        assert result.stderr.startswith("actorbus: there is no run 'r1'")


def test_a_list_of_nothing_is_one() -> None:
    assert call("runs", "list", "--run-store", "memory://", "--json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-p", "{bad"), "the payload is no JSON"),
        (("-p", "@missing.json"), "the payload cannot be read"),
        (("-p", "1", "-t", "one"), "give either --payload or --text"),
    ],
)
def test_a_payload_that_is_none_is_refused_before_anything_is_sent(arguments: tuple[str, ...], words: str) -> None:
    assert words in refused("invoke", "a", *arguments, "--bus", "redis://127.0.0.1:1")


@pytest.mark.parametrize(
    ("keys", "words"),
    [("", "MY_KEY is not set"), ("no hex", "MY_KEY holds no keys")],
)
def test_signing_keys_that_are_none_are_refused(keys: str, words: str) -> None:
    assert words in refused("ps", "--bus", "redis://127.0.0.1:1", "--signing-key-env", "MY_KEY", MY_KEY=keys)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "nats://127.0.0.1:1"])
def test_a_broker_that_is_not_there_is_told_with_the_reason(url: str) -> None:
    result = call("ps", "--bus", url, "--connect-timeout", "1")
    assert (result.exit_code, result.stdout) == (ExitCode.UNREACHABLE, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"actorbus: no connection to {url} within 1 s (")
    assert "`actorbus doctor` looks closer" in line


def test_without_click_the_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "actors.cli.program")
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit, match=r"pip install 'actorbus\[cli\]'"):
        main()


def test_without_the_server_serve_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "actors.server", None)
    assert "pip install 'actorbus[server]'" in refused("serve", "--bus", "redis://127.0.0.1:1")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    write("shop.py", SHOP)
    process = subprocess.Popen(
        [sys.executable, "-m", "actors.cli", "schema", "shop:Till"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == ExitCode.OK
    process.stderr.close()


# --- what is written about it ---


def test_what_is_written_of_commands_and_exit_codes_is_so() -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for code, meaning in MEANINGS.items():
        assert f"| {code.value} | {meaning} |\n" in text
    for name in actorbus.commands:
        assert re.search(rf"`(actorbus )?{name}[` ]", text), name
