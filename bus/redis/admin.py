"""What people look after on a Redis or Valkey server: its settings, a user's rights, dead letters, waiting frames."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from re import fullmatch
from typing import NamedTuple

import anyio
from redis.exceptions import ResponseError

from bus.errors import BusError
from bus.local.dead_letters import DeadFrame
from bus.log import log
from bus.redis.client import Command, connections
from bus.redis.connection import RedisLink
from bus.redis.layout import GROUP, LEAVE, RedisLayout, StoredFrame, entries_of
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


class _Settings(NamedTuple):
    """What a server says of itself.

    Attributes:
        name: What it is, with its version.
        version: The version of Redis that it is, or speaks for; empty if it does not say.
        too_old: Whether the scripts do not run on it.
        aof_enabled: `1` if it writes down what it accepts, else `0`; None if it does not say.
        role: `master` if it takes writes; None if it does not say.
        eviction: The policy by which it deletes what it has accepted when its memory is full; empty if it does not.
    """

    name: str
    version: str
    too_old: bool
    aof_enabled: str | None
    role: str | None
    eviction: str


def _settings(info: bytes) -> _Settings:
    """The settings in a reply to INFO."""
    lines = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    version = lines.get("redis_version", "")
    major = version.partition(".")[0]
    policy = lines.get("maxmemory_policy", "noeviction")
    return _Settings(
        name=f"Valkey {lines['valkey_version']}" if "valkey_version" in lines else f"Redis {version or '?'}",
        version=version,
        too_old=major.isdigit() and int(major) < OLDEST,
        aof_enabled=lines.get("aof_enabled"),
        role=lines.get("role"),
        eviction=policy if lines.get("maxmemory", "0") != "0" and policy != "noeviction" else "",
    )


async def inspect_server(link: RedisLink) -> None:
    """Refuse a server that is too old, and warn of settings under which accepted jobs can vanish.

    Raises:
        TransportError: The server cannot be reached.
        BusError: It is too old.
    """
    where = link.where
    (info,) = await link.exchange([("INFO",)])
    if isinstance(info, ResponseError):
        log().warning("the server does not let us see its settings: allow +info to have them checked", server=where)
        return
    settings = _settings(info)
    if settings.too_old:
        raise BusError(f"{where} is version {settings.version}: Redis {OLDEST}.0 or newer is needed, or any Valkey")
    if settings.aof_enabled == "0":
        log().warning(
            "the server does not write down what it accepts: a crash of it loses queued jobs. "
            "Set appendonly yes, and appendfsync everysec or always",
            server=where,
        )
    if settings.eviction:
        log().warning(
            "the server may evict queued jobs when its memory is full. Set maxmemory-policy noeviction",
            server=where,
            maxmemory_policy=settings.eviction,
        )


_ENTRY_ID = r"\d{1,19}-\d{1,19}"
_ENDED_CLAIM = r"(\d+) (\S+) (\w+) (\d{1,19})"
_ENDS = {"nak": "given back", "term": "given up", "expired": "lease ended"}


class RedisDeadFrames:
    """The dead letters of a namespace; about 10,000 are kept, then the oldest is forgotten."""

    def __init__(self, layout: RedisLayout, link: RedisLink) -> None:
        self._key = layout.dead
        self._link = link

    async def oldest(self, most: int, after: str = "") -> Sequence[DeadFrame]:
        """At most `most` dead letters, the oldest first; only such as follow the place `after`.

        Raises:
            TransportError: The server did not answer.
        """
        if after and not fullmatch(_ENTRY_ID, after):
            raise ValueError(f"{after!r} is not where a dead letter is kept")
        read = ("XRANGE", self._key, f"({after}" if after else "-", "+", "COUNT", most)
        (found,) = await self._link.checked([read])
        frames: list[DeadFrame] = []
        for entry in entries_of(found):
            place, frame = entry.id.decode(), StoredFrame.of(entry)
            died_at = int(place.partition("-")[0]) / 1000
            history = [_in_words(line) for line in frame.history.splitlines()]
            frames.append(DeadFrame(place, frame.queue, frame.body, frame.attempts, died_at, history))
        return frames

    async def discard(self, place: str) -> bool:
        """Throw a dead letter away. False if it was not there.

        Raises:
            TransportError: The server did not answer; it may be gone or not.
        """
        if not fullmatch(_ENTRY_ID, place):
            return False
        (deleted,) = await self._link.checked([("XDEL", self._key, place)])
        return bool(deleted)


def _in_words(line: str) -> str:
    """A line of the history of a frame."""
    claim = fullmatch(_ENDED_CLAIM, line)
    if claim is None:  # not written by the scripts
        return line
    attempt, owner, how, when = claim.groups()
    return f"attempt {attempt} on {owner}: {_ENDS.get(how, how)} at {int(when) / 1000:.3f}"


_WAITING_PLACE = rf"[01] {_ENTRY_ID}"
"""Which of the two streams of the queue, and the entry."""


class RedisWaitingFrames:
    """The frames of one queue, claimed ones among them."""

    def __init__(self, layout: RedisLayout, link: RedisLink, queue: str) -> None:
        self._streams = layout.streams([queue])
        self._link = link

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
            frames += [
                WaitingFrame(f"{number} {entry.id.decode()}", StoredFrame.of(entry).body) for entry in entries_of(found)
            ]
        return frames[:most]

    async def discard(self, places: Sequence[str]) -> None:
        """Take frames out, also claimed ones; the queue goes with the last if nobody serves it.

        Raises:
            TransportError: The server did not answer, or refused; they may be gone or not.
        """
        doomed: dict[str, list[str]] = {}
        for place in places:
            number, _, entry = place.partition(" ")
            doomed.setdefault(self._streams[int(number)], []).append(entry)
        deletions = [("XDEL", stream, *entries) for stream, entries in doomed.items()]
        await self._link.checked([*deletions, LEAVE(self._streams, GROUP, "")])


# --- the doctor's checks ---


async def examine_redis(url: str, namespace: str, patience: float) -> AsyncIterator[Finding]:
    """Look at the server of a URL; see `bus.doctor.examine`."""
    link = RedisLink(*connections(url, None))
    try:
        try:
            with anyio.fail_after(patience):
                (answer,) = await link.exchange([("PING",)], patience=patience)
        except (BusError, TimeoutError) as error:
            why = str(error) or "it does not answer"
            yield Finding("broker", "failed", f"{why}: is it running, and is the URL right?")
            return
        if isinstance(answer, ResponseError):
            yield Finding("broker", "failed", f"{link.where} refuses: {answer}; give user and password in the URL")
            return
        yield Finding("broker", "ok", f"{link.where} answers")
        (info,) = await link.exchange([("INFO",)])
        if isinstance(info, ResponseError):
            yield Finding("version", "warning", "it does not let us see its settings: allow +info to this user")
        else:
            for finding in _of_settings(_settings(info)):
                yield finding
        yield await _rights(link, namespace)
        yield await _clock(link)
    finally:
        with anyio.CancelScope(shield=True):
            await link.drop()


def _of_settings(settings: _Settings) -> list[Finding]:
    findings = [
        Finding("version", "failed", f"{settings.name}: Redis {OLDEST}.0 or newer is needed, or any Valkey")
        if settings.too_old
        else Finding("version", "ok", settings.name)
    ]
    if settings.role not in {"master", None}:
        findings.append(Finding("role", "failed", "it is a replica, which takes nothing: name the primary in the URL"))
    if settings.aof_enabled == "1":
        findings.append(Finding("persistence", "ok", "what it accepts is written down (appendonly yes)"))
    else:
        text = "a crash of it loses queued jobs and runs: set appendonly yes, and appendfsync everysec or always"
        findings.append(Finding("persistence", "warning", text))
    if settings.eviction:
        text = f"it may evict queued jobs when its memory is full ({settings.eviction}): "
        text += "set maxmemory-policy noeviction"
        findings.append(Finding("memory", "warning", text))
    return findings


async def _clock(link: RedisLink) -> Finding:
    before = time.time()
    (reply,) = await link.exchange([("TIME",)])
    after = time.time()
    if isinstance(reply, ResponseError):
        return Finding("clock", "warning", "it does not tell its time: allow +time to this user")
    seconds, microseconds = reply
    theirs = int(seconds) + int(microseconds) / 1e6
    return of_clock(theirs - (before + after) / 2, (after - before) / 2)


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
