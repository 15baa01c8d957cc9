"""A look at a Redis or Valkey server."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from re import fullmatch

import anyio
from redis.exceptions import ResponseError

from bus.errors import BusError
from bus.local.dead_letters import DeadFrame
from bus.log import log
from bus.redis.client import Command, connections
from bus.redis.connection import RedisLink
from bus.redis.layout import GROUP, LEAVE, call
from bus.redis.queues import COUNT, RedisClaims
from bus.transport.server import Finding, of_clock
from bus.transport.transport import WaitingFrame

OLDEST = 7
"""The first major version of Redis that the scripts run on; Valkey calls itself 7.2 and newer."""

RIGHTS = (
    "+info +script|load +evalsha +xadd +xreadgroup +xack +xdel +xclaim +xpending +xrange "
    "+xgroup|create +xgroup|createconsumer +xgroup|delconsumer +xinfo|consumers +exists +set +get +del +pexpire "
    "+sadd +srem +smembers +srandmember +zadd +zrem +zremrangebyscore +zrange +zscore +time"
)
"""All that a user of the server needs to be allowed, beside the keys of the namespace and the choice of a database:
`ACL SETUSER worker on >password ~actorbus:* +select` and this."""


async def inspect_server(link: RedisLink, label: str) -> None:
    """Refuse a server that is too old, and warn of settings under which accepted jobs can vanish.

    Raises:
        TransportError: The server cannot be reached.
        BusError: It is too old.
    """
    (reply,) = await link.exchange([("INFO",)])
    if isinstance(reply, ResponseError):
        log().warning("the server does not let us see its settings: allow +info to have them checked", server=label)
        return
    told = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
    version = told.get("redis_version", "")
    if version.partition(".")[0].isdigit() and int(version.partition(".")[0]) < OLDEST:
        raise BusError(f"{label} is version {version}: Redis {OLDEST}.0 or newer is needed, or any Valkey")
    if told.get("aof_enabled") == "0":
        log().warning(
            "the server does not write down what it accepts: a crash of it loses queued jobs. "
            "Set appendonly yes, and appendfsync everysec or always",
            server=label,
        )
    policy = told.get("maxmemory_policy", "noeviction")
    if told.get("maxmemory", "0") != "0" and policy != "noeviction":
        log().warning(
            "the server may evict queued jobs when its memory is full. Set maxmemory-policy noeviction",
            server=label,
            maxmemory_policy=policy,
        )


_CLAIM = r"(\d+) (\S+) (\w+) (\d{1,19})"
_PLACE = r"\d{1,19}-\d{1,19}"


class RedisDeadFrames:
    """The dead letters of a namespace; about 10,000 are kept, then the oldest is forgotten."""

    def __init__(self, link: RedisLink, prefix: str) -> None:
        self._link = link
        self._key = prefix + "dead"

    async def oldest(self, most: int, after: str = "") -> Sequence[DeadFrame]:
        """At most `most` letters, the oldest first; only such as follow the place `after`.

        Raises:
            TransportError: The server did not answer.
        """
        if after and not fullmatch(_PLACE, after):
            raise ValueError(f"{after!r} is not where a dead letter is kept")
        read = ("XRANGE", self._key, f"({after}" if after else "-", "+", "COUNT", most)
        (found,) = await self._link.checked([read])
        return [_frame(entry, fields) for entry, fields in found]

    async def discard(self, place: str) -> bool:
        """Throw a letter away. False if it was not there.

        Raises:
            TransportError: The server did not answer; it may be gone or not.
        """
        if not fullmatch(_PLACE, place):
            return False
        (gone,) = await self._link.checked([("XDEL", self._key, place)])
        return bool(gone)


def _frame(entry: bytes, fields: Sequence[bytes]) -> DeadFrame:
    told = dict(zip(fields[::2], fields[1::2], strict=True))
    place = entry.decode()
    history = []
    for line in told.get(b"h", b"").decode(errors="replace").splitlines():
        claim = fullmatch(_CLAIM, line)
        if claim is None:  # not written by the scripts
            history.append(line)
            continue
        attempt, owner, how, when = claim.groups()
        history.append(f"attempt {attempt} on {owner}: {_WORDS.get(how, how)} at {int(when) / 1000:.3f}")
    died_at = int(place.partition("-")[0]) / 1000
    attempts = told.get(b"a", b"")
    return DeadFrame(
        place,
        told.get(b"q", b"").decode(errors="replace"),
        told.get(b"b", b""),
        int(attempts) if fullmatch(COUNT, attempts) else 0,
        died_at,
        history,
    )


_WORDS = {"nak": "given back", "term": "given up", "expired": "lease ended"}

_WAITING_PLACE = r"[01] \d{1,19}-\d{1,19}"
"""Which of the two streams of the queue, and the entry."""


class RedisWaitingFrames:
    """The frames of one queue, claimed ones among them."""

    def __init__(self, link: RedisLink, claims: RedisClaims, queue: str) -> None:
        self._link = link
        self._streams = claims.streams([queue])

    async def oldest(self, most: int, after: str = "") -> Sequence[WaitingFrame]:
        """At most `most` frames, in the order in which they are read; only such as follow the place `after`.

        Raises:
            TransportError: The server did not answer, or refused.
        """
        if after and not fullmatch(_WAITING_PLACE, after):
            raise ValueError(f"{after!r} is not where a frame waits")
        first, _, last = after.partition(" ")
        frames: list[WaitingFrame] = []
        for number in range(int(first or 0), len(self._streams)):
            start = f"({last}" if after and number == int(first) else "-"
            (found,) = await self._link.checked([("XRANGE", self._streams[number], start, "+", "COUNT", most)])
            for entry, fields in found:
                told = dict(zip(fields[::2], fields[1::2], strict=True))
                frames.append(WaitingFrame(f"{number} {entry.decode()}", told.get(b"b", b"")))
        return frames[:most]

    async def discard(self, places: Sequence[str]) -> None:
        """Take frames out, also claimed ones; the queue goes with the last if nobody serves it.

        Raises:
            TransportError: The server did not answer, or refused; they may be gone or not.
        """
        gone: dict[str, list[str]] = {}
        for place in places:
            number, _, entry = place.partition(" ")
            gone.setdefault(self._streams[int(number)], []).append(entry)
        deletions = [("XDEL", stream, *entries) for stream, entries in gone.items()]
        await self._link.checked([*deletions, call(LEAVE, self._streams, GROUP, "")])


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
