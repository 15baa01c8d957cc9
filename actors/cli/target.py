"""Targets: the workers that a command line names, found in modules and made."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from actors.cli.failures import CommandError, one_line, usage
from actors.worker.function import Function
from actors.worker.verbs import core_of
from actors.worker.worker import BaseWorker
from bus import check_name, nearest


class Target(NamedTuple):
    """A worker to be run.

    Attributes:
        name: What it is asked under.
        text: Where it is defined, as `module:Class`.
        make: Makes it; called again for each restart.
        source: Its class, or the function it serves.
    """

    name: str
    text: str
    make: Callable[[], BaseWorker]
    source: type[BaseWorker] | Function[Any, Any]


def targets(texts: Sequence[str], folder: Path | None) -> list[Target]:
    """Find workers and make each of them once.

    Args:
        texts: `module:Class`, `module:function`, or either with `name=` in front. What is named may be a worker class,
            a function marked with `@function()`, or a function without arguments that makes a worker.
        folder: Where to take every worker and function that its modules define; None for nowhere.

    Raises:
        CommandError: Something cannot be found, imported or made, or two workers have one name.
    """
    if not texts and folder is None:
        raise usage("no worker is named: give module:Class, or --all-from DIR")
    found = [_named(text) for text in texts]
    if folder is not None:
        found += [_target("", f"{module}:{name}", value) for module, name, value in _all_from(folder)]
        if len(found) == len(texts):
            raise usage(
                f"no module in {folder} defines a worker: name a folder whose modules have a BaseWorker subclass"
            )
    by_name: dict[str, Target] = {}
    for each in found:
        other = by_name.setdefault(each.name, each)
        if other is not each:
            raise usage(
                f"two workers are named {each.name!r}, {other.text} and {each.text}: "
                f"give one another name, as in other-name={each.text}"
            )
    return found


def _named(text: str) -> Target:
    name, equals, place = text.rpartition("=")
    module_name, colon, attribute = place.partition(":")
    if (equals and not name) or not (colon and module_name and attribute):
        raise usage(f"{text!r} names no worker: write module:Class or name=module:Class")
    module = imported(module_name)
    value = getattr(module, attribute, None)
    if value is None:
        offered = [key for key, found in vars(module).items() if _is_worker(found)]
        close = nearest(attribute, offered) or offered
        there = f"it has {', '.join(close)}" if close else "it defines no worker"
        raise usage(f"module {module_name!r} has no {attribute!r}: {there}")
    return _target(name, place, value)


def _target(name: str, text: str, value: Any) -> Target:
    if name:
        try:
            check_name("worker name", name)
        except ValueError as error:
            raise usage(str(error)) from None
    if isinstance(value, Function):
        served: Function[Any, Any] = value
        return Target(name or served.name, text, lambda: served.worker(name or None), served)
    if isinstance(value, BaseWorker):
        raise usage(f"{text} is a worker, which lives once: name its class, or a function that makes one")
    if not callable(value) or (isinstance(value, type) and not issubclass(value, BaseWorker)):
        raise usage(
            f"{text} is no worker but {_what(value)}: name a BaseWorker subclass, or a function under @function()"
        )
    first = _made(text, value)
    name = name or (first.name if core_of(first).named else getattr(value, "__name__", ""))
    kept = [first]

    def make() -> BaseWorker:
        worker = kept.pop() if kept else _made(text, value)
        core_of(worker).name = name
        return worker

    return Target(name, text, make, type(first))


def _made(text: str, make: Callable[[], Any]) -> BaseWorker:
    try:
        inspect.signature(make).bind()
    except TypeError:
        needed = [
            each.name
            for each in inspect.signature(make).parameters.values()
            if each.default is each.empty and each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
        ]
        raise usage(
            f"{text} cannot be made, it needs {', '.join(needed)}: give these defaults, "
            "or name a function without arguments that returns the worker"
        ) from None
    try:
        worker = make()
    except Exception as error:
        raise usage(f"{text} cannot be made: {_text(error)}; the constructor has to work without arguments") from error
    if not isinstance(worker, BaseWorker):
        if inspect.iscoroutine(worker):
            worker.close()
        raise usage(
            f"{text} makes no worker but {_what(worker)}: for a function that does a job, put @function() over it"
        )
    return worker


def imported(name: str) -> ModuleType:
    """A module, also one that lies in this folder.

    Raises:
        CommandError: It cannot be imported.
    """
    look_here()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise usage(
                f"there is no module {error.name!r}: run actorbus where it lies, or put that folder on PYTHONPATH"
            ) from None
        raise usage(
            f"module {name!r} cannot be imported: {error} ({_place(error)}); is it installed in {sys.prefix}?"
        ) from error
    except CommandError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise usage(f"module {name!r} cannot be imported: {_text(error)}; repair it, then try again") from error


def look_here() -> None:
    """Find modules of this folder, as `python -m` does."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def _all_from(folder: Path) -> Iterator[tuple[str, str, Any]]:
    folder = folder.resolve()
    top = folder
    while (top / "__init__.py").exists():
        top = top.parent
    prefix = "".join(f"{part}." for part in folder.relative_to(top).parts)
    if str(top) not in sys.path:
        sys.path.insert(0, str(top))
    names = [each.name for each in pkgutil.walk_packages([str(folder)], prefix, onerror=_walk_failed)]
    for module_name in sorted(name for name in names if not name.endswith("__main__")):
        module = imported(module_name)
        file = Path(module.__file__ or "").resolve()
        if not file.is_relative_to(folder):
            raise usage(f"module {module_name!r} of {folder} is hidden by {file}: give its file another name")
        for name, value in vars(module).items():
            own = _is_worker(value) and value.__module__ == module_name and not name.startswith("_")
            if own and name == getattr(value, "__name__", name):  # else it is a second name of the same
                yield module_name, name, value


def _walk_failed(name: str) -> None:
    imported(name)  # says what is wrong with it


def _is_worker(value: object) -> bool:
    if isinstance(value, Function):
        return True
    return isinstance(value, type) and issubclass(value, BaseWorker) and not inspect.isabstract(value)


def _what(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _text(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error} ({_place(error)})")


def _place(error: BaseException) -> str:
    """Where it was raised: the last line that is not of the import machinery."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<frozen")]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "nowhere"
