"""How the code is laid out and who may import whom, read from the syntax trees.

A rule is a function from one source file to its violations. Each runs over the tree, and over a bad and a good snippet,
so that none passes because it looks at nothing. The plan of floors and folders is in `tests/house.py`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pytest

import actors
import bus
from tests import house
from tests.house import (
    CODE,
    LONGEST_FILE,
    Source,
    Violation,
    files_are_short,
    imports,
    imports_go_down,
    sources,
)
from tests.support.environment import ROOT, environment

PROGRAMS = (*CODE, "tests", "examples", "benchmarks")
ROOT_FILES = ("pyproject.toml", "Makefile", ".ci/run", "README.md")

SHORTEST_SLEEP = 1.0
NO_NOUNS = {"utils", "helpers", "manager", "base"}

# Who alone may import a library: files, or folders with a slash. The core is pure anyio and light to import.
OWNERS: dict[str, tuple[str, ...]] = {
    "asyncio": (
        "bus/local/home.py",  # a task of the loop's own, and a cancellation without a scope
        "bus/local/tasks.py",
        "actors/testing/",  # a simulation tells what needs asyncio that it has none
        "actors/worker/background.py",  # its tasks are asked like those of asyncio, and raise what those raise
        "bus/redis/",
        "bus/nats/",
    ),  # tasks.py: the asyncio form of the hot path's primitives
    "click": ("actors/cli/",),
    "nats": ("bus/nats/",),
    "opentelemetry": ("actors/observability/telemetry.py",),
    "prometheus_client": ("actors/server/",),
    "redis": ("bus/redis/",),
    "rocksdict": ("actors/runs/stores/rocksdb.py",),
    "sqlite3": ("actors/runs/stores/sqlite.py",),
    "sse_starlette": ("actors/server/",),
    "starlette": ("actors/server/",),
    # Virtual time and the seeded scheduler; a task of the system's own.
    "trio": ("actors/testing/", "bus/local/home.py"),
    "uvicorn": ("actors/server/listening.py",),
    # Only the type, which travels and is kept: ids come from outside.
    "uuid": ("actors/runs/contract/records.py", "bus/wire/packing.py", "bus/wire/values.py"),
    "watchfiles": ("actors/cli/",),
}

# What actors may import from inside bus. All else comes from its public names.
SHARED_MACHINERY = {
    "bus.brokers": "the command line starts one to develop with",
    "bus.errors": "errors of both packages are pickled and copied alike",
    "bus.fixtures": "one plugin for pytest brings the fixtures of both packages",
    "bus.doctor": "the command line looks at a broker",
    "bus.local.deadlines": "one timer heap for the deadlines of both packages",
    "bus.local.home": "a runner lives in a task of its own, as a bus does",
    "bus.local.events": "event handlers are declared alike on workers, runners and registries",
    "bus.local.mailbox": "a worker reads the queue that the bus fills",
    "bus.local.subscriber": "a worker says how messages reach it",
    "bus.local.tasks": "reused tasks: the hot path of both packages",
    "bus.log": "one logger for both packages",
    "bus.memory.broker": "the simulated network keeps its frames in the broker of this process",
    "bus.names": "runs are kept under the namespace of the jobs: one rule makes a part of a key of it",
    "bus.nats.client": "runs are kept on a server over the same kind of link as jobs travel",
    "bus.nats.connection": "as bus.nats.client",
    "bus.nats.layout": "runs are kept under the namespace of the jobs: one rule makes a name of it",
    "bus.redis.admin": "the settings under which a server loses jobs are those under which it loses runs",
    "bus.redis.client": "as bus.nats.client",
    "bus.redis.connection": "as bus.nats.client",
    "bus.simulation.network": "the simulation builds its networks from it",
    "bus.testing": "the contract of run stores speaks in the words of that of transports",
    "bus.transport.server": "the command line shows URLs as the buses do",
    "bus.wire.known": "the types that a handler names in its signature arrive as objects",
}

HEAVY = {
    "click",
    "nats",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
    "redis",
    "rich",
    "rocksdict",
    "sqlite3",
    "sse_starlette",
    "starlette",
    "structlog",
    "tenacity",
    "trio",
    "uvicorn",
    "watchfiles",
}
"""Libraries that `import actors` must not load: they are imported when used."""


def is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def bus_knows_nothing_of_actors(source: Source) -> Iterator[Violation]:
    for line, module, _ in imports(source):
        if is_inside(module, "actors"):
            yield Violation(line, f"bus imports {module}")


def actors_uses_public_names_of_bus(source: Source) -> Iterator[Violation]:
    for line, module, names in imports(source):
        if module == "bus":
            for name in names or ("bus",):
                if name not in bus.__all__:
                    yield Violation(line, f"{name} is not public in bus: import names of bus.__all__, one by one")
        elif is_inside(module, "bus") and not any(is_inside(module, shared) for shared in SHARED_MACHINERY):
            yield Violation(line, f"{module} is inside bus: import the public name, or explain it in SHARED_MACHINERY")


def modules_never_import_their_package_root(source: Source) -> Iterator[Violation]:
    parts = source.module.split(".")
    depth = len(parts) + 1 if source.is_package_root else len(parts)
    roots = {".".join(parts[:end]) for end in range(1, depth)}
    for line, module, _ in imports(source):
        if module in roots:
            yield Violation(
                line, f"{source.module} imports the root {module}: import from the module that has the name"
            )


def libraries_are_imported_by_their_owners(source: Source) -> Iterator[Violation]:
    for line, module, _ in imports(source):
        library = module.partition(".")[0]
        owners = OWNERS.get(library, (source.path,))
        if not any(source.path.startswith(owner) if owner.endswith("/") else source.path == owner for owner in owners):
            yield Violation(line, f"{library} is imported outside {', '.join(owners) or 'every file: nobody may'}")


def randomness_comes_from_outside(source: Source) -> Iterator[Violation]:
    for line, module, names in imports(source):
        if module == "random" and not set(names) <= {"Random"}:
            yield Violation(line, "from random only Random may be imported: its functions share hidden state")
    for node in source.nodes():
        match node:
            case ast.Attribute(value=ast.Name(id="random"), attr=name) if name != "Random":
                yield Violation(node.lineno, f"random.{name} has hidden state: take a random.Random as argument")


def files_are_named_for_a_noun(source: Source) -> Iterator[Violation]:
    for part in PurePosixPath(source.path).with_suffix("").parts:
        if part in NO_NOUNS:
            yield Violation(1, f"{part} says nothing: name the noun")


def a_sleep_in_a_test_is_not_short(source: Source) -> Iterator[Violation]:
    """A short sleep waits for the machine. Ones of a second and more are virtual, or meant as "for ever"."""
    for node in source.nodes():
        match node:
            case ast.Call(
                func=ast.Name(id="sleep") | ast.Attribute(attr="sleep"),
                args=[ast.Constant(value=int() | float() as time)],
            ) if time < SHORTEST_SLEEP:
                yield Violation(node.lineno, f"sleep({time}): wait for an event, or use wait_all_tasks_blocked()")


STARTERS = {
    "anyio": {"open_process", "run_process"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "os": {"popen", "posix_spawn", "posix_spawnp", "system"},
    "pty": {"fork", "spawn"},
    "subprocess": {"Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput", "run"},
}
"""What starts programs, by module."""


def a_program_under_test_has_a_users_environment(source: Source) -> Iterator[Violation]:
    for line, module, names in imports(source):
        for name in STARTERS.get(module, set()).intersection(names):
            yield Violation(line, f"say {module}.{name} where a program is started: so it is seen")
    for node in source.nodes():
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name)) if name in STARTERS.get(module, ()):
                given = next((keyword.value for keyword in node.keywords if keyword.arg == "env"), None)
                if not (isinstance(given, ast.Call) and ast.unparse(given.func) == "environment"):
                    yield Violation(
                        node.lineno, f"{module}.{name} without env=environment(): see tests/support/environment.py"
                    )


MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w|\b[A-Z]:\\\\?\w")
PAGE = re.compile(r"(?<![\w.])(?:\.\./[\w./-]*|[A-Z]{3,}\.md\b)")


def the_project_speaks_of_itself(source: Source) -> Iterator[Violation]:
    for number, line in enumerate(source.text.splitlines(), 1):
        for found in MACHINE_PATH.findall(line):
            yield Violation(number, f"{found!r} is a path of one machine")
        for found in PAGE.findall(line):
            if not (ROOT / found).exists():
                yield Violation(number, f"{found!r} is not in this repository")


def public_names(namespace: dict[str, Any]) -> set[str]:
    """What a package root offers: everything without an underscore that is no module, nor a `__future__` feature."""
    return {
        name
        for name, value in namespace.items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType | type(annotations))
    }


def wrong_exports(module: types.ModuleType) -> list[str]:
    """Where `__all__` and the public names of a package root differ; a name made on demand counts if it can be had."""
    exported = list(module.__all__)
    missing = public_names(vars(module)) - set(exported)
    return [
        *(f"{name} is public and not in __all__" for name in sorted(missing)),
        *(f"{name} is in __all__ and cannot be imported" for name in exported if not hasattr(module, name)),
        *(f"{name} is in __all__ twice" for name in sorted({name for name in exported if exported.count(name) > 1})),
    ]


class Rule(NamedTuple):
    """`folders` is its scope; `bad` and `good` are a path and a text that it must refuse and accept."""

    check: Callable[[Source], Iterable[Violation]]
    folders: tuple[str, ...]
    bad: tuple[str, str]
    good: tuple[str, str]


RULES = (
    Rule(
        bus_knows_nothing_of_actors,
        ("bus",),
        bad=("bus/a.py", "def f():\n    from actors.worker import BaseWorker"),
        good=("bus/a.py", "from bus.errors import BusError\nimport actors_of_others"),
    ),
    Rule(
        actors_uses_public_names_of_bus,
        ("actors",),
        bad=("actors/a.py", "from bus.transport.transport import Outgoing"),
        good=("actors/a.py", "from bus import BusMessage"),
    ),
    Rule(
        actors_uses_public_names_of_bus,
        ("actors",),
        bad=("actors/a.py", "from bus import transport"),
        good=("actors/a.py", "import bus_of_others"),
    ),
    Rule(
        modules_never_import_their_package_root,
        CODE,
        bad=("actors/testing/a.py", "from .. import job"),
        good=("actors/testing/__init__.py", "from actors.testing.a import x"),
    ),
    Rule(
        modules_never_import_their_package_root,
        CODE,
        bad=("bus/a.py", "from bus import BusError"),
        good=("bus/a.py", "from .errors import BusError"),
    ),
    Rule(
        libraries_are_imported_by_their_owners,
        CODE,
        bad=("bus/local/bus.py", "from asyncio.queues import Queue"),
        good=("bus/local/tasks.py", "import asyncio\nimport anyio"),
    ),
    Rule(
        libraries_are_imported_by_their_owners,
        CODE,
        bad=("actors/a.py", "import redis.asyncio as redis"),
        good=("bus/redis/a.py", "import redis.asyncio as redis"),
    ),
    Rule(
        randomness_comes_from_outside,
        CODE,
        bad=("bus/a.py", "import random\nx = random.choice([1])"),
        good=("bus/a.py", "import random\nx = random.Random(1).choice([1])"),
    ),
    Rule(
        randomness_comes_from_outside,
        CODE,
        bad=("bus/a.py", "from random import choice"),
        good=("bus/a.py", "from random import Random"),
    ),
    Rule(
        files_are_short,
        (*CODE, "examples", "benchmarks"),  # a file of tests may list many cases of one thing
        bad=("bus/a.py", "#\n" * (LONGEST_FILE + 1)),
        good=("bus/a.py", "#\n" * LONGEST_FILE),
    ),
    Rule(
        imports_go_down,
        CODE,
        bad=("bus/wire/a.py", "def f():\n    from bus.local.tasks import Tasks"),
        good=("bus/local/a.py", "from bus.local.tasks import Tasks\nfrom bus.wire.codec import encode"),
    ),
    Rule(
        imports_go_down,
        CODE,
        bad=("bus/redis/a.py", "from bus.nats.layout import token"),
        good=("actors/runs/stores/a.py", "from actors.runs.run import Run"),
    ),
    Rule(
        imports_go_down,
        CODE,
        bad=("actors/new/a.py", "x = 1"),
        good=("actors/worker/__init__.py", "from actors.runner.runner import WorkerRunner"),
    ),
    Rule(
        files_are_named_for_a_noun,
        PROGRAMS,
        bad=("bus/helpers/a.py", ""),
        good=("bus/database.py", ""),
    ),
    Rule(
        a_sleep_in_a_test_is_not_short,
        ("tests",),
        bad=("tests/a.py", "async def f():\n    await anyio.sleep(0.1)"),
        good=("tests/a.py", "time.sleep(1)\nsleep(delay)"),
    ),
    Rule(
        a_program_under_test_has_a_users_environment,
        ("tests",),
        bad=("tests/a.py", "subprocess.run([], env={**os.environ})"),
        good=("tests/a.py", "subprocess.run([], env=environment(A='b'))\nanyio.run(main)"),
    ),
    Rule(
        a_program_under_test_has_a_users_environment,
        ("tests",),
        bad=("tests/a.py", "from subprocess import PIPE, Popen"),
        good=("tests/a.py", "from subprocess import PIPE"),
    ),
    Rule(
        the_project_speaks_of_itself,
        (*PROGRAMS, *ROOT_FILES),
        bad=("bus/a.py", "open('/" + "root/x')"),
        good=("bus/a.py", "open('/tmp/x')  # https://example.org/work/x"),
    ),
    Rule(
        the_project_speaks_of_itself,
        (*PROGRAMS, *ROOT_FILES),
        bad=("bus/a.py", "# see NOWHERE" + ".md"),
        good=("bus/a.py", "# see pyproject.toml"),
    ),
)

each_rule = pytest.mark.parametrize(
    "rule", RULES, ids=[f"{rule.check.__name__}-{number}" for number, rule in enumerate(RULES)]
)


@each_rule
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    for folder in rule.folders:
        assert sources(folder), f"no file in {folder}: the rule would look at nothing"
    found = [
        f"{source.path}:{line}: {message}"
        for folder in rule.folders
        for source in sources(folder)
        for line, message in rule.check(source)
    ]
    assert not found, "\n" + "\n".join(found)


@each_rule
def test_the_rule_catches_a_violation(rule: Rule) -> None:
    assert list(rule.check(Source(*rule.bad)))


@each_rule
def test_the_rule_lets_good_code_pass(rule: Rule) -> None:
    assert not list(rule.check(Source(*rule.good)))


def test_the_house_is_in_order() -> None:
    assert list(house.faults()) == []


def test_every_room_of_the_plan_is_there() -> None:
    for package, floors in house.FLOORS.items():
        for room in (room for rooms in floors for room in rooms):
            assert (ROOT / package / room).is_dir() or (ROOT / package / f"{room}.py").is_file(), f"{package}/{room}"


def test_circles_are_found_also_those_for_types_and_inside_functions() -> None:
    circle = [
        Source("bus/wire/a.py", "from bus.wire import b"),
        Source("bus/wire/b.py", "if TYPE_CHECKING:\n    from bus.wire.c import C"),
        Source("bus/wire/c.py", "def f():\n    import bus.wire.a"),
        Source("bus/wire/d.py", "from bus.wire.a import x"),
        Source("bus/wire/__init__.py", "from bus.wire.d import y"),
    ]
    assert house.circles(circle) == [["bus.wire.a", "bus.wire.b", "bus.wire.c"]]
    assert house.circles(circle[:2]) == []


def test_a_reach_into_another_folder_is_found() -> None:
    tree = [
        Source("bus/wire/a.py", "class One:\n    def __init__(self):\n        self._x = 1\n    def _f(self): ...\n"),
        Source("bus/wire/b.py", "def f(a):\n    return a._x, a._f(), a.__dict__"),
        Source("bus/local/c.py", "def f(a):\n    return a._x"),
        Source("bus/local/d.py", "class Four:\n    def f(self, other):\n        self._own = other.part._f()"),
    ]
    found = [(source.path, line) for source, (line, _) in house.nobody_reaches_into_another_folder(tree)]
    assert found == [("bus/local/c.py", 2), ("bus/local/d.py", 3)]


def test_a_crowd_is_found() -> None:
    crowd = [Source(f"bus/wire/file_{number}.py", "") for number in range(house.CROWD + 1)]
    assert list(house.folders_are_not_crowded(crowd)) == [f"bus/wire/ holds {house.CROWD + 1} files"]
    assert list(house.folders_are_not_crowded(crowd[1:])) == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("bus/wire/test_codec.py", "bus/codec/test_codec.py"),
        ("actors/runs/stores/test_sqlite.py", "actors/stores/test_sqlite.py"),
        ("bus/test_names.py", "bus/test_naming.py"),
        ("actors/jobs/__init__.py", "bus/jobs/test_outcomes.py"),
        ("project/test_environment.py", "test_environment.py"),
        ("project/words/test_docs.py", "examples/test_docs.py"),
        ("__init__.py", "bus/codec/helpers.py"),
    ],
)
def test_a_unit_test_that_lies_in_no_room_is_found(good: str, bad: str) -> None:
    assert list(house.tests_lie_in_rooms([f"tests/unit/{good}"])) == []
    (found,) = house.tests_lie_in_rooms([f"tests/unit/{bad}"])
    assert found.startswith(f"tests/unit/{bad}: ")


def test_the_imports_of_the_tree_are_seen() -> None:
    seen = {module for folder in CODE for source in sources(folder) for _, module, _ in imports(source)}
    assert {"__future__", "anyio", "bus", "bus.messages"} <= seen


def test_every_exception_to_the_rules_is_still_needed() -> None:
    for library, owners in OWNERS.items():
        for owner in owners:
            if owner.endswith(".py"):
                used = {module for source in sources(owner) for _, module, _ in imports(source)}
                assert any(is_inside(module, library) for module in used), f"{owner} does not import {library}"
    seen = {module for source in sources("actors") for _, module, _ in imports(source)}
    unused = [shared for shared in SHARED_MACHINERY if not any(is_inside(module, shared) for module in seen)]
    assert not unused, f"actors imports nothing of {unused}: take it out of SHARED_MACHINERY"


@pytest.mark.parametrize("package", [actors, bus], ids=lambda package: package.__name__)
def test_all_equals_what_is_public(package: types.ModuleType) -> None:
    assert len(package.__all__) > 1
    assert wrong_exports(package) == []


def test_a_wrong_all_is_noticed() -> None:
    package = types.ModuleType("package")
    vars(package).update(
        __all__=["a", "a", "gone"], a=1, forgotten=2, _private=3, module=types, annotations=annotations
    )
    assert wrong_exports(package) == [
        "forgotten is public and not in __all__",
        "gone is in __all__ and cannot be imported",
        "a is in __all__ twice",
    ]


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after a statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_importing_actors_loads_no_library_before_it_is_used() -> None:
    loaded = loaded_by("import actors; assert actors.__file__")
    assert {"actors", "bus", "anyio", "msgspec"} <= loaded
    assert not loaded & HEAVY


def test_the_contract_of_run_stores_needs_nothing_that_is_not_installed_with_actors() -> None:
    """Who writes a store of his own need not have what simulates."""
    loaded = loaded_by("from actors.runs.contract import RUN_STORE_CONTRACT; assert RUN_STORE_CONTRACT")
    assert loaded & HEAVY <= {"sqlite3"}


THEY_LOAD_US = {"pytest", "pytest_asyncio"}
"""They are there when they load our fixtures."""

DISTRIBUTIONS = {"nats": "nats-py", "hiredis": "redis[hiredis]"}
"""Of the libraries that are not called as they are imported."""


CHECKERS_BRING = {"typing_extensions"}
"""What type checkers know without its being installed; it is imported for them alone."""


def undeclared(library: str) -> bool:
    """Whether a library is neither Python's nor ours, nor one of those that pyproject.toml names for users."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *(each for extra in extras if extra != "dev" for each in extras[extra])]
    name = DISTRIBUTIONS.get(library, library.replace("_", "-"))
    ours = library in sys.stdlib_module_names or library in {*CODE, *THEY_LOAD_US, *CHECKERS_BRING}
    return not ours and not any(re.match(rf"{re.escape(name)}(\W|$)", each) for each in declared)


def test_every_library_that_is_imported_is_declared() -> None:
    """One that only came along with another is gone when that one changes its mind, as anyio did with sniffio."""
    used = {
        module.partition(".")[0] for folder in CODE for source in sources(folder) for _, module, _ in imports(source)
    }
    assert {"anyio", "nats", "hiredis", "rocksdict"} <= used
    assert [library for library in sorted(used) if undeclared(library)] == []
    assert undeclared("sniffio")


def test_a_loaded_library_is_noticed() -> None:
    assert loaded_by("import rich") & HEAVY == {"rich"}
