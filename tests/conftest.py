"""What all tests share: each asynchronous test runs on asyncio and on trio, and none may hang."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Generator

import pytest

from tests.support.environment import leave_a_users_environment

LONGEST_TEST = 300.0
"""Seconds, set-up and tear-down included: far more than any test takes on a machine ten times too busy."""

PROCESSES = 4
"""That share all the tests, on any machine: many tests wait for a lease or a program, few compute for long."""

terminal = pytest.StashKey[int]()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """One event loop per test, of each kind; a test that needs only one parametrises this argument itself."""
    backend: str = request.param
    return backend


def pytest_configure(config: pytest.Config) -> None:
    """Keep the real stderr: while a test runs, what stands in its place is captured.

    A shell has what it starts in the background ignore SIGINT, and all that this starts: not the programs under test.
    """
    config.stash[terminal] = os.dup(2)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[terminal])


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before anything is imported for the tests, and after pytest has looked how to print.

    Not where tests are only shared out: who runs them begins with the caller's environment, as Python's own variables
    must be there when it starts.
    """
    if hasattr(session.config, "workerinput") or session.config.option.dist == "no":
        leave_a_users_environment()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Share all tests among processes; run a selection in this one, which is there and has the terminal."""
    selected = config.option.keyword or config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    return 0 if selected else PROCESSES


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End the process when a test hangs, with its name and all stacks; among several processes the others go on.

    An exception raised into a hanging test, as plugins do, is swallowed by the very boundaries under test, and on trio
    the event loop lives in another thread; pytest's own `faulthandler_timeout` does not say which test it was.
    """
    watchdog = threading.Timer(LONGEST_TEST, end_the_run, (item.nodeid, item.config.stash[terminal]))
    watchdog.daemon = True
    watchdog.start()
    try:
        return (yield)
    finally:
        watchdog.cancel()


def end_the_run(test: str, stderr: int) -> None:
    os.write(stderr, f"\n{test} hangs: more than {LONGEST_TEST:g} seconds. The stacks of all threads:\n".encode())
    faulthandler.dump_traceback(stderr)
    os._exit(1)
