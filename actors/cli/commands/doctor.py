"""`actorbus doctor`: whether everything that jobs and runs need is there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import anyio
import click

from actors.cli.command import Command, asynchronous
from actors.cli.commands.fleet import UNSEEN
from actors.cli.connection import broker_url, bus_options, connected, kept_from_the_terminal, opened_store
from actors.cli.failures import CommandError, ExitCode, text_of, understood
from actors.cli.output import emit
from actors.cli.settings import CONNECTION, settings
from bus import BusError
from bus.doctor import examine
from bus.transport.server import Finding

KEYS = "ACTORBUS_SIGNING_KEY"
"""Where a bus looks for its signing keys if nothing else is said."""

MARKS = {"ok": "ok", "warning": "WARNING", "failed": "FAILED"}


@click.command(cls=Command, example="actorbus doctor --bus nats://127.0.0.1:4222")
@settings(*CONNECTION, "run_store", "json")
@asynchronous
async def doctor(
    *,
    bus: str | None,
    namespace: str,
    signing_key_env: str | None,
    connect_timeout: float,
    run_store: str | None,
    json: bool,
) -> int:
    """Check the broker (reachable, version, persistence, rights, clock), the keys, the run store and the fleet.

    Each check says what to do about it. Exits 4 if one of them fails; a warning is no failure.
    """
    url = broker_url(bus)
    findings: list[Finding] = []

    def found(each: Finding) -> None:
        findings.append(each)
        if not json:
            click.echo(f"{MARKS[each.state]:<8} {each.check:<12} {each.text}")

    for each in _keys(url, signing_key_env):
        found(each)
    with understood(), kept_from_the_terminal():
        async for each in examine(url, namespace=namespace, patience=connect_timeout):
            found(each)
    if all(each.state != "failed" for each in findings):
        try:
            async with connected(url, namespace, signing_key_env, connect_timeout) as client:
                await anyio.sleep(1)  # the runners answer who appears
                seen = [each for each in client.workers() if not each.worker_name.startswith(UNSEEN)]
            runners = {each.runner for each in seen}
            found(Finding("fleet", "ok", f"{len(seen)} workers on {len(runners)} runners"))
        except (BusError, CommandError) as error:
            found(Finding("fleet", "failed", text_of(error)))
        try:
            async with opened_store(run_store, url, namespace, connect_timeout) as store:
                with anyio.fail_after(connect_timeout):
                    await store.find(limit=1)
            found(Finding("run store", "ok", "it answers"))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was found
            found(Finding("run store", "failed", text_of(error)))
    if json:
        emit(findings)
    return ExitCode.UNREACHABLE if any(each.state == "failed" for each in findings) else ExitCode.OK


def _keys(url: str, signing_key_env: str | None) -> Iterator[Finding]:
    variable = signing_key_env or KEYS
    if signing_key_env is None and not os.environ.get(KEYS):
        if url.startswith(("rediss:", "tls:")):
            yield Finding("keys", "ok", "no signing key; the way to the broker is encrypted")
        else:
            yield Finding("keys", "warning", f"no signing key: who reaches the broker can have jobs done; set {KEYS}")
        return
    try:
        (keys,) = (bus_options(None, variable)["signing_key"],)
    except CommandError as error:
        yield Finding("keys", "failed", text_of(error))
        return
    if any(len(key) < 32 for key in keys):  # noqa: PLR2004 - bytes of a key
        yield Finding(
            "keys", "failed", f"{variable} holds a key of less than 32 bytes: make one with `openssl rand -hex 32`"
        )
    else:
        yield Finding("keys", "ok", f"{len(keys)} in {variable}; the first one signs")
