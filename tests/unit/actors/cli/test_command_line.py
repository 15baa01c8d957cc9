"""The command line without a broker: arguments, configuration, errors, help."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import actors.server
from actors.cli.command import Command, failed
from actors.cli.commands.serving import _check_binding
from actors.cli.entry import main
from actors.cli.failures import MEANINGS, CommandError, ExitCode, understood
from actors.cli.output import encoded, pretty
from actors.cli.program import actorbus
from actors.cli.settings import SETTINGS, shown
from actors.jobs.errors import HandlerError, JobError, JobTimeoutError, WorkerUnavailableError
from actors.runs.errors import RunFailedError, RunNotFoundError, RunStoreError
from actors.runs.run import RunState, RunStatus
from actors.runs.stores.record import is_id
from bus import BrokerError, BusError, DecodeError, InvalidNameError, TransportError
from tests.support.environment import ROOT, environment

SHOP = """
    from collections.abc import AsyncIterator
    from dataclasses import dataclass
    from actors import BaseWorker, function, job

    @dataclass
    class Order:
        item: str
        count: int = 1

    class Till(BaseWorker):
        @job
        async def charge(self, order: Order) -> float:
            '''Charge for an order.'''
            return 2.5 * order.count

        @job
        async def count(self, upto: int) -> AsyncIterator[int]:
            yield upto

    class Named(BaseWorker):
        def __init__(self):
            super().__init__("desk")

    class Register(BaseWorker):
        def __init__(self, currency, drawer):
            super().__init__()

    class Broken(BaseWorker):
        def __init__(self):
            raise RuntimeError("no paper")

    def till():
        return Till("made")

    def nothing():
        return 7

    @function()
    def greet(name: str) -> str:
        return name

    standing = Till()
    number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in, and modules that are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    path, modules = sys.path.copy(), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(textwrap.dedent(text), "utf-8")


def call(*arguments: str, **environment: str) -> Result:
    before = dict(os.environ)
    result = CliRunner().invoke(actorbus, arguments, env=environment)
    assert dict(os.environ) == before, "a command wrote to the environment"
    return result


def refused(*arguments: str, **environment: str) -> str:
    """The one line that a command says that is used wrongly."""
    result = call(*arguments, **environment)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("actorbus: ")
    return line.removeprefix("actorbus: ")


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


# --- workers that are named ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shop", "names no worker: write module:Class or name=module:Class"),
        ("=shop:Till", "names no worker"),
        ("shop:", "names no worker"),
        ("nowhere:Till", "there is no module 'nowhere': run actorbus where it lies"),
        ("shop.inner:Till", "there is no module 'shop.inner'"),
        ("shop:Tell", "module 'shop' has no 'Tell': it has Till"),
        ("shop:Order", "is no worker but the class Order: name a BaseWorker subclass"),
        ("shop:number", "is no worker but a int"),
        ("shop:standing", "is a worker, which lives once: name its class"),
        ("shop:nothing", "makes no worker but a int: for a function that does a job, put @function() over it"),
        ("shop:Register", "it needs currency, drawer: give these defaults"),
        ("shop:Broken", "cannot be made: RuntimeError: no paper ("),
        ("a\nb=shop:Till", "worker name 'a\\nb' is not a valid name"),
        ("raising:Till", "module 'raising' cannot be imported: ZeroDivisionError: division by zero ("),
        ("misspelt:Till", "module 'misspelt' cannot be imported: SyntaxError"),
        ("lacking:Till", "module 'lacking' cannot be imported: No module named 'not_there'"),
    ],
)
def test_a_worker_that_cannot_be_had_is_named_with_the_way_out(text: str, words: str) -> None:
    write("shop.py", SHOP)
    write("raising.py", "1 / 0")
    write("misspelt.py", "def")
    write("lacking.py", "import not_there")
    assert words in refused("schema", text)


def test_two_workers_of_one_name_are_refused() -> None:
    write("shop.py", SHOP)
    line = refused("schema", "shop:Till", "Till=shop:Named")
    assert (
        line
        == "two workers are named 'Till', shop:Till and shop:Named: give one another name, as in other-name=shop:Named"
    )
    assert call("schema", "shop:Till", "other=shop:Till").exit_code == ExitCode.OK


def names_of(*arguments: str) -> dict[str, list[str]]:
    result = call("schema", *arguments, "--json")
    assert result.exit_code == ExitCode.OK, result.output
    return {name: list(jobs) for name, jobs in json.loads(result.stdout)["workers"].items()}


def test_classes_functions_and_factories_can_be_named() -> None:
    write("shop.py", SHOP)
    found = names_of("shop:Till", "shop:till", "shop:greet", "hail=shop:greet")
    assert found == {"Till": ["charge", "count"], "made": ["charge", "count"], "greet": [""], "hail": [""]}


def test_all_from_a_folder_takes_what_its_modules_define() -> None:
    write(
        "work/one.py", "from actors import BaseWorker, job\nclass A(BaseWorker):\n    @job\n    async def a(self): ..."
    )
    write(
        "work/two.py", "from one import A\nfrom actors import *\n@function()\ndef b(x: int) -> int: ...\nB2 = b\n_C = A"
    )
    write("work/inner/__init__.py", "")
    write(
        "work/inner/three.py",
        "from actors import BaseWorker, job\nclass C(BaseWorker):\n    @job\n    async def c(self): ...",
    )
    assert names_of("--all-from", "work") == {"A": ["a"], "C": ["c"], "b": [""]}


def test_all_from_a_package_imports_it_under_its_name() -> None:
    write("pack/__init__.py", "")
    write(
        "pack/one.py", "from actors import BaseWorker, job\nclass P(BaseWorker):\n    @job\n    async def p(self): ..."
    )
    write("pack/two.py", "from pack.one import P")
    assert names_of("--all-from", "pack") == {"P": ["p"]}


def test_all_from_says_what_is_wrong() -> None:
    write("empty/one.py", "x = 1")
    assert "no module in empty defines a worker" in refused("schema", "--all-from", "empty")
    write("bad/three_broken.py", "1 / 0")
    assert "module 'three_broken' cannot be imported: ZeroDivisionError" in refused("schema", "--all-from", "bad")
    write("hidden/textwrap.py", "")
    assert "module 'textwrap' of " in (line := refused("schema", "--all-from", "hidden"))
    assert line.endswith("give its file another name")
    assert "does not exist" in refused("schema", "--all-from", "nowhere")
    assert refused("schema") == "no worker is named: give module:Class, or --all-from DIR"


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
