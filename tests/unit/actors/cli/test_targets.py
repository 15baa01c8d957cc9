"""The workers that a command line names, and those that it cannot have."""

from __future__ import annotations

import json

import pytest

from actors.cli.failures import ExitCode
from tests.support.command_line import SHOP, call, refused, write


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
