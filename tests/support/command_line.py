"""The command line called in this process."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from click.testing import CliRunner, Result

from actors.cli.failures import ExitCode
from actors.cli.program import actorbus

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
"""A module with workers and what passes for one."""


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
