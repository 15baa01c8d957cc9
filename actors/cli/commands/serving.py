"""`actorbus serve` and `actorbus dev`: the HTTP server, and all that is needed to develop with one command."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import click

from actors.cli.command import Command, Invocation, asynchronous
from actors.cli.connection import broker_url, bus_options, store_url
from actors.cli.failures import CommandError, ExitCode, ends_by_itself, understood, usage
from actors.cli.output import emit, log_to_stderr, say
from actors.cli.process import begin, child_option, end, end_with_parent, reloaded
from actors.cli.settings import PORT, settings
from bus.brokers import BROKERS, Broker
from bus.transport.server import redacted

STOPS_WITHIN = 35.0
"""Seconds the server of `dev` may take to end; then it is killed."""

SERVER_SETTINGS = ("host", "port", "token", "read_token")


@click.command(
    cls=Command,
    example="ACTORBUS_TOKEN=... actorbus serve --bus redis://broker:6379 --host 0.0.0.0 --allowed-host api.example.com",
)
@click.option(
    "--allowed-host", "allowed_hosts", multiple=True, help="Name it may be called by. [default: loopback names]"
)
@click.option("--cors-origin", "cors_origins", multiple=True, help="Page in browsers that may ask it, exactly.")
@click.option("--own-runs/--no-own-runs", default=True, show_default=True, help="Do runs here that nobody does.")
@settings(
    "bus", "namespace", "signing_key_env", "run_store", *SERVER_SETTINGS, "drain_timeout", "log_level", "log_format"
)
@settings("imports", "json")
@child_option
@asynchronous
async def serve(
    *,
    ends_with_parent: bool,
    allowed_hosts: tuple[str, ...],
    cors_origins: tuple[str, ...],
    own_runs: bool,
    bus: str | None,
    namespace: str,
    signing_key_env: str | None,
    run_store: str | None,
    host: str,
    port: int,
    log_level: str,
    log_format: str,
    json: bool,
    **limits: Any,
) -> int:
    """Serve runs, workers and events over HTTP until a signal.

    Reachable from this machine only, unless --host says otherwise; then a --token is needed.
    """
    if ends_with_parent:
        end_with_parent()
    try:
        server = import_module("actors.server")
    except ModuleNotFoundError as error:
        raise usage(f"the server needs {error.name}: pip install 'actorbus[server]'") from error
    url = broker_url(bus)
    log_to_stderr(log_level, log_format)
    names = {"allowed_hosts": allowed_hosts} if allowed_hosts else {}
    with understood():
        app = server.create_app(
            url,
            run_store=store_url(run_store, url),
            own_runs=own_runs,
            bus_options=bus_options(namespace, signing_key_env),
            cors_origins=cors_origins,
            **names,
            **limits,
        )
    _check_binding(server, host, limits["token"], allowed_hosts)
    shown = {"server": f"http://{host}:{port}", "bus": redacted(url)}
    if json:
        emit(shown)
    else:
        say(f"actorbus server over {shown['bus']}: {shown['server']} in a moment; Ctrl-C ends it")
    async with ends_by_itself() as signals:
        try:
            await server.listen(app, host, port, log_level=log_level, log_config=None)
        except OSError as error:
            raise usage(f"{host}:{port} cannot be had: {error.strerror or error}; name another --port") from None
        except RuntimeError as error:
            raise CommandError(str(error), ExitCode.UNREACHABLE) from error
    return ExitCode.INTERRUPTED if len(signals) > 1 else ExitCode.OK


def _check_binding(server: Any, host: str, token: str | None, allowed_hosts: tuple[str, ...]) -> None:
    try:
        server.check_binding(host, None)
    except ValueError:
        if token is None:
            raise usage(f"{host} is reached from other machines: set ACTORBUS_TOKEN, or listen at 127.0.0.1") from None
        if not allowed_hosts:
            raise usage(
                f"{host} is reached from other machines: say under which names, as in --allowed-host api.example.com"
            ) from None


@click.command(cls=Command, example="actorbus dev shop:Till")
@click.argument("workers", nargs=-1, envvar="ACTORBUS_WORKERS", metavar="[NAME=]MODULE:CLASS...")
@click.option(
    "--all-from", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Every worker in DIR."
)
@click.option(
    "--broker", type=click.Choice(list(BROKERS)), default="redis", show_default=True, help="The broker to start."
)
@click.option(
    "--broker-port",
    type=PORT,
    default=0,
    show_default=True,
    help="Port of the broker that is started; 0 takes a free one.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the broker keeps its files. [default: nowhere for long]",
)
@click.option("--server/--no-server", default=True, show_default=True, help="Whether to serve HTTP too.")
@settings("bus", "reload_dir", "port", "log_level", "json")
@click.pass_obj
@asynchronous
async def dev(
    invocation: Invocation,
    /,
    *,
    workers: tuple[str, ...],
    folder: Path | None,
    broker: str,
    broker_port: int,
    data: Path | None,
    server: bool,
    bus: str | None,
    reload_dir: str | None,
    port: int,
    log_level: str,
    json: bool,
) -> int:
    """Run all that developing needs: a broker, the workers, started again when a file changes, and the server.

    With --bus, that broker is used and none is started.
    """
    if not workers and folder is None:
        raise usage("no worker is named: give module:Class, or --all-from DIR")
    async with AsyncExitStack() as stack:
        url = bus or stack.enter_context(_broker(broker, broker_port, data)).url
        if json:
            emit({"bus": redacted(url), "server": f"http://127.0.0.1:{port}" if server else None})
        else:
            say(f"actorbus dev over {redacted(url)}; ask from another shell: actorbus ps --bus {redacted(url)}")
        # In its variable the URL is not shown to everybody on this machine, as an argument is.
        environment = {**os.environ, "ACTORBUS_BUS": url}
        before = ["--config", str(invocation.file)] if invocation.file is not None else []
        if server:
            arguments = [*before, "serve", "--port", str(port), "--log-level", log_level]
            await stack.enter_async_context(_program(arguments, environment))
        named = [*workers, *(["--all-from", str(folder)] if folder is not None else [])]
        arguments = [*before, "worker", "start", *named, "--log-level", log_level, "--no-reload"]
        arguments = [*before, "worker", "start", *named, "--log-level", log_level, "--no-reload"]
        return await reloaded(arguments, Path(reload_dir or folder or "."), environment)


def _broker(kind: str, port: int, data: Path | None) -> Broker:
    broker = BROKERS[kind](directory=data.resolve() if data is not None else None)
    broker.port = port or broker.port
    return broker


@asynccontextmanager
async def _program(arguments: list[str], environment: dict[str, str]) -> AsyncIterator[None]:
    """Run `actorbus` with these arguments beside, as long as the block."""
    process = await begin(arguments, environment)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await end(process, STOPS_WITHIN)
