"""The way to the broker: what commands that ask something of a fleet share."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio

from actors.cli.failures import CommandError, ExitCode, understood, usage
from actors.cli.settings import SETTINGS
from actors.client.client import Client
from actors.runs.store import RunStore
from actors.runs.url import open_run_store
from bus import open_bus
from bus.transport.server import redacted

IN_MEMORY = "memory"


def broker_url(bus: str | None) -> str:
    """The URL of a broker that other processes reach too.

    Raises:
        CommandError: None is given, or one that stands for the memory of this process.
    """
    if not bus or urlsplit(bus).scheme == IN_MEMORY:
        given = f"{bus} ends with this process" if bus else "no broker is given"
        raise usage(
            f"{given}: say --bus redis://host:6379 or nats://host:4222, or set ACTORBUS_BUS; `actorbus dev` brings one"
        )
    return bus


def store_url(run_store: str | None, bus: str | None) -> str | None:
    """Where runs are kept: the store that is given, or else the broker; None if there is neither."""
    if run_store:
        return run_store
    return bus if bus and urlsplit(bus).scheme != IN_MEMORY else None


def bus_options(namespace: str | None, signing_key_env: str | None, **options: Any) -> dict[str, Any]:
    """What `open_bus` takes besides the URL; what was not said is left to it.

    Raises:
        CommandError: The variable for the signing keys is not set, or holds none.
    """
    if namespace != SETTINGS["namespace"].default:
        options["namespace"] = namespace
    if signing_key_env:
        keys = os.environ.get(signing_key_env, "")
        try:
            options["signing_key"] = tuple(bytes.fromhex(key) for key in keys.split(",") if key.strip())
        except ValueError:
            raise usage(f"{signing_key_env} holds no keys: write them in hexadecimal, with commas between") from None
        if not options["signing_key"]:
            raise usage(f"{signing_key_env} is not set: put the signing key there, 64 hexadecimal digits or more")
    return {name: value for name, value in options.items() if value is not None}


@asynccontextmanager
async def connected(
    bus: str | None,
    namespace: str | None,
    signing_key_env: str | None,
    connect_timeout: float,
    *,
    run_store: RunStore | None = None,
    **options: Any,
) -> AsyncIterator[Client]:
    """A client at the broker.

    Raises:
        CommandError: The broker is not reached in time; the text says why as far as it is known.
    """
    url = broker_url(bus)
    with understood():
        client = Client(
            open_bus(url, **bus_options(namespace, signing_key_env)),
            own_runs=False,
            run_store=run_store,
            **options,
        )
    with kept_from_the_terminal() as heard, anyio.move_on_after(connect_timeout) as patience:
        async with client:
            patience.deadline = math.inf
            yield client
    if patience.cancelled_caught:
        raise unreachable(url, connect_timeout, heard)


def unreachable(url: str, seconds: float, heard: list[str]) -> CommandError:
    """The broker was not reached."""
    why = f" ({heard[-1]})" if heard else ""
    return CommandError(
        f"no connection to {redacted(url)} within {seconds:g} s{why}: is it running, and is the URL right? "
        "`actorbus doctor` looks closer",
        ExitCode.UNREACHABLE,
    )


@asynccontextmanager
async def opened_store(
    run_store: str | None, bus: str | None, namespace: str, connect_timeout: float
) -> AsyncIterator[RunStore]:
    """The run store; on a server, under the namespace of the bus.

    Raises:
        CommandError: None is given, or it is not reached in time.
    """
    url = store_url(run_store, bus)
    if url is None:
        raise usage(
            "no run store is given: say --run-store URL or --bus URL, or set ACTORBUS_RUN_STORE or ACTORBUS_BUS"
        )
    with understood():
        store = open_run_store(url, namespace=namespace)
    with kept_from_the_terminal() as heard, anyio.move_on_after(connect_timeout) as patience:
        async with store:
            patience.deadline = math.inf
            yield store
    if patience.cancelled_caught:
        raise unreachable(url, connect_timeout, heard)


@contextmanager
def kept_from_the_terminal() -> Iterator[list[str]]:
    """Collect what is logged: a command says one line, not what was tried before it."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard[:] = [*heard[-9:], str(getattr(record, "error", "") or record.getMessage())]

    logger, ear = logging.getLogger("actorbus"), Ear()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(ear)
    try:
        yield heard
    finally:
        logger.removeHandler(ear)
        logger.propagate = propagates
