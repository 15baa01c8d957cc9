"""A look at a Redis or Valkey server."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator

import anyio
from redis.exceptions import ResponseError

from bus.checkup import Finding, of_clock
from bus.errors import BusError
from bus.transports.redis_link import Command, RedisLink, connections
from bus.transports.redis_server import OLDEST


async def examine_redis(url: str, namespace: str, patience: float) -> AsyncIterator[Finding]:
    """Look at the server of a URL; see `bus.checkup.examine`."""
    make, label = connections(url, None)
    link = RedisLink(make, (), label)
    try:
        try:
            with anyio.fail_after(patience):
                (answer,) = await link.exchange([("PING",)], patience=patience)
        except (BusError, TimeoutError) as error:
            why = str(error) or "it does not answer"
            yield Finding("broker", "failed", f"{why}: is it running, and is the URL right?")
            return
        if isinstance(answer, ResponseError):
            yield Finding("broker", "failed", f"{label} refuses: {answer}; give user and password in the URL")
            return
        yield Finding("broker", "ok", f"{label} answers")
        (info,) = await link.exchange([("INFO",)])
        if isinstance(info, ResponseError):
            yield Finding("version", "warning", "it does not let us see its settings: allow +info to this user")
        else:
            for finding in _of_settings(info):
                yield finding
        yield await _rights(link, namespace)
        before = time.time()
        (told,) = await link.exchange([("TIME",)])
        after = time.time()
        if isinstance(told, ResponseError):
            yield Finding("clock", "warning", "it does not tell its time: allow +time to this user")
        else:
            theirs = int(told[0]) + int(told[1]) / 1e6
            yield of_clock(theirs - (before + after) / 2, (after - before) / 2)
    finally:
        with anyio.CancelScope(shield=True):
            await link.drop()


def _of_settings(info: bytes) -> list[Finding]:
    told = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    name = f"Valkey {told['valkey_version']}" if "valkey_version" in told else f"Redis {told.get('redis_version', '?')}"
    major = told.get("redis_version", "").partition(".")[0]
    findings = [
        Finding("version", "failed", f"{name}: Redis {OLDEST}.0 or newer is needed, or any Valkey")
        if major.isdigit() and int(major) < OLDEST
        else Finding("version", "ok", name)
    ]
    if told.get("role") not in {"master", None}:
        findings.append(Finding("role", "failed", "it is a replica, which takes nothing: name the primary in the URL"))
    if told.get("aof_enabled") == "1":
        findings.append(Finding("persistence", "ok", "what it accepts is written down (appendonly yes)"))
    else:
        text = "a crash of it loses queued jobs and runs: set appendonly yes, and appendfsync everysec or always"
        findings.append(Finding("persistence", "warning", text))
    policy = told.get("maxmemory_policy", "noeviction")
    if told.get("maxmemory", "0") != "0" and policy != "noeviction":
        text = f"it may evict queued jobs when its memory is full ({policy}): set maxmemory-policy noeviction"
        findings.append(Finding("memory", "warning", text))
    return findings


async def _rights(link: RedisLink, namespace: str) -> Finding:
    """Do once, to keys of our own, everything that a bus does."""
    key = f"{namespace}:doctor:{secrets.token_hex(8)}"
    stream, plain, members, ranking = (f"{key}:{kind}" for kind in ("stream", "plain", "members", "ranking"))
    commands: list[Command] = [
        ("XADD", stream, "1-1", "a", "b"),
        ("XGROUP", "CREATE", stream, "group", "0"),
        ("XREADGROUP", "GROUP", "group", "us", "COUNT", 1, "STREAMS", stream, ">"),
        ("XPENDING", stream, "group"),
        ("XCLAIM", stream, "group", "us", 0, "1-1"),
        ("XINFO", "CONSUMERS", stream, "group"),
        ("XACK", stream, "group", "1-1"),
        ("XRANGE", stream, "-", "+"),
        ("XDEL", stream, "1-1"),
        ("XGROUP", "DELCONSUMER", stream, "group", "us"),
        ("SET", plain, "1", "PX", 60_000),
        ("GET", plain),
        ("EXISTS", plain),
        ("PEXPIRE", plain, 60_000),
        ("SADD", members, "1"),
        ("SMEMBERS", members),
        ("SREM", members, "1"),
        ("ZADD", ranking, 1, "1"),
        ("ZSCORE", ranking, "1"),
        ("ZRANGE", ranking, 0, -1),
        ("ZREMRANGEBYSCORE", ranking, 0, 0),
        ("ZREM", ranking, "1"),
        ("SCRIPT", "LOAD", "return 1"),
        ("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0),  # the script above
        ("DEL", stream, plain, members, ranking),
    ]
    replies = await link.exchange(commands)
    refused = [
        (command, reply) for command, reply in zip(commands, replies, strict=True) if isinstance(reply, ResponseError)
    ]
    if not refused:
        return Finding("rights", "ok", f"all that a bus does is allowed on {namespace}:*")
    words = dict.fromkeys(str(command[0]).lower() for command, _ in refused)
    advice = f"ACL SETUSER name {' '.join(f'+{word}' for word in words)} ~{namespace}:*"
    return Finding("rights", "failed", f"{', '.join(words)} refused ({refused[0][1]}): allow this user to, {advice}")
