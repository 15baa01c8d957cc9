"""The plan of the house: which file may import which, who may reach into whom, and how large a file may be.

`python -m tests.house` looks at the whole tree and says what breaks the plan; `make check` runs it. A rule is a
function from one source file, or from all of them, to its violations; `tests/unit/project/test_architecture.py` tries
each on a bad and on a good snippet.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CODE = ("bus", "actors")

FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "bus": (
        ("errors", "log"),
        ("messages", "names", "backoff"),
        ("wire",),
        ("local",),
        ("transport",),
        ("membership",),
        ("delivery",),
        ("network",),
        ("memory",),
        ("simulation", "redis", "nats"),
        ("url", "testing", "brokers", "doctor"),
        ("fixtures",),
    ),
    "actors": (
        ("surroundings",),
        ("jobs",),
        ("host",),
        ("observability",),
        ("requester",),
        ("performer",),
        ("worker",),
        ("runner",),
        ("runs",),
        ("client",),
        ("server", "testing"),
        ("cli",),
    ),
}
"""From the ground up: folders and files of a package. A file imports only from lower floors, or its own folder."""

LONGEST_FILE = 600
CROWD = 13
"""Files in one folder, its `__init__.py` included."""

UNIT_TESTS = "tests/unit"
PROJECT = "project"
"""The folder of unit tests for what belongs to no room: the plan, the public names, how the project is checked."""

FOREIGN = frozenset({"sys", "os"})
"""Modules of Python whose documented functions begin with an underscore."""

LEANING = ("bus/nats/client.py", "bus/redis/client.py", "actors/testing/")
"""Who leans on the insides of a library, and says why there."""


class Violation(NamedTuple):
    line: int
    message: str


@dataclass(frozen=True)
class Source:
    """One file: `path` relative to the repository, with forward slashes."""

    path: str
    text: str

    @property
    def module(self) -> str:
        return ".".join(PurePosixPath(self.path).with_suffix("").parts).removesuffix(".__init__")

    @property
    def is_package_root(self) -> bool:
        return self.path.endswith("/__init__.py")

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(ast.parse(self.text, self.path))


class Import(NamedTuple):
    """`names` is empty for `import module`."""

    line: int
    module: str
    names: tuple[str, ...]


def imports(source: Source) -> Iterator[Import]:
    """Every import of a file, also inside functions and for type checkers only, relative ones resolved."""
    for node in source.nodes():
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = PurePosixPath(source.path).parent.parts
                parts = package[: len(package) - node.level + 1]
                module = ".".join((*parts, module)) if module else ".".join(parts)
            yield Import(node.lineno, module, tuple(alias.name for alias in node.names))


def floor_of(module: str) -> tuple[int, str] | None:
    """The floor of a module and the room on it; None for a package root and for what is not in the plan."""
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    for number, rooms in enumerate(FLOORS.get(package, ())):
        if room in rooms:
            return number, room
    return None


def imports_go_down(source: Source) -> Iterator[Violation]:
    """A file imports from lower floors and its own folder; types and imports inside functions count."""
    here = floor_of(source.module)
    package = source.module.partition(".")[0]
    if source.is_package_root:
        return
    if here is None:
        yield Violation(1, f"{source.path} is on no floor: enter it in FLOORS")
        return
    for line, module, names in imports(source):
        targets = (module,) if floor_of(module) is not None else tuple(f"{module}.{name}" for name in names)
        for target in targets:
            there = floor_of(target)
            same = target.partition(".")[0] == package
            if same and there is not None and (there[0] > here[0] or (there[0] == here[0] and there[1] != here[1])):
                yield Violation(line, f"{source.module} imports {target}, which is not below it")


def nobody_reaches_into_another_folder(sources: Iterable[Source]) -> Iterator[tuple[Source, Violation]]:
    """`x._name` is for the folder that defines `_name`; what others need gets a name without an underscore."""
    sources = tuple(sources)
    own: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        own[source.folder] |= set(_defined(source))
    for source in sources:
        if source.path.startswith(LEANING):
            continue
        for node in source.nodes():
            match node:
                case ast.Attribute(value=ast.Name(id=holder), attr=name) if holder in {"self", "cls", *FOREIGN}:
                    continue
                case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name):
                    continue
                case ast.Attribute(attr=name) if re.fullmatch(r"_[a-z]\w*", name) and name not in own[source.folder]:
                    yield source, Violation(node.lineno, f"{ast.unparse(node)} is private to another folder")


def _defined(source: Source) -> Iterator[str]:
    for node in source.nodes():
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("_"):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()) if name.startswith("_"):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)) if name.startswith("_"):
                yield name


def circles(sources: Iterable[Source]) -> list[list[str]]:
    """Modules that import each other, directly or not; imports for types and inside functions count."""
    modules = {source.module: source for source in sources if not source.is_package_root}
    graph = {
        name: {
            target
            for _, module, names in imports(source)
            for target in (module, *(f"{module}.{each}" for each in names))
            if target in modules and target != name
        }
        for name, source in modules.items()
    }
    reached = {name: _reached(name, graph) for name in graph}
    rings = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return sorted((sorted(ring) for ring in rings if len(ring) > 1), key=len, reverse=True)


def _reached(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for after in graph[todo.pop()] - seen:
            seen.add(after)
            todo.append(after)
    return seen


def files_are_short(source: Source) -> Iterator[Violation]:
    length = len(source.text.splitlines())
    if length > LONGEST_FILE:
        yield Violation(length, f"{length} lines, at most {LONGEST_FILE}: a noun is missing")


def folders_are_not_crowded(sources: Iterable[Source]) -> Iterator[str]:
    """Folders with more files than a reader takes in at a glance."""
    count: dict[str, int] = defaultdict(int)
    for source in sources:
        count[source.folder] += 1
    yield from (f"{folder}/ holds {number} files" for folder, number in count.items() if number > CROWD)


def tests_lie_in_rooms(paths: Iterable[str]) -> Iterator[str]:
    """A unit test lies in a folder with the name of the room it tests, or in `project` if it tests none.

    Of a room that is one file, such as `bus/names.py`, the test may lie beside the folders: `bus/test_names.py`.
    """
    for path in paths:
        package, _, below = path.removeprefix(f"{UNIT_TESTS}/").partition("/")
        room = below.partition("/")[0].removesuffix(".py").removeprefix("test_")
        rooms = {room for floor in FLOORS.get(package, ()) for room in floor}
        if package != PROJECT and not path.endswith("/__init__.py") and room not in rooms:
            yield f"{path}: lies in no room of the plan; put it where what it tests lives"


@cache
def sources(scope: str) -> tuple[Source, ...]:
    """The files of a folder, or one file."""
    found = sorted((ROOT / scope).rglob("*.py")) if (ROOT / scope).is_dir() else [ROOT / scope]
    return tuple(Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in found)


def faults() -> Iterator[str]:
    """All that breaks the plan."""
    tree = [source for package in CODE for source in sources(package)]
    yield from (f"circle of {len(ring)}: {' '.join(ring)}" for ring in circles(tree))
    for source in tree:
        for line, message in (*imports_go_down(source), *files_are_short(source)):
            yield f"{source.path}:{line}: {message}"
    for source, (line, message) in nobody_reaches_into_another_folder(tree):
        yield f"{source.path}:{line}: {message}"
    yield from folders_are_not_crowded(tree)
    for source in sources("tests"):
        for line, message in files_are_short(source):
            yield f"{source.path}:{line}: {message}"
    yield from tests_lie_in_rooms(source.path for source in sources(UNIT_TESTS))


if __name__ == "__main__":
    found = list(faults())
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
