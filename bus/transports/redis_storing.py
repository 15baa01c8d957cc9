"""How frames are stored on a Redis server: in as few commands as their order allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bus.transport import Lane, Outgoing
from bus.transports.redis_claims import RedisClaims, claim_of
from bus.transports.redis_inbox import FIELDS, packs
from bus.transports.redis_link import Command
from bus.transports.redis_scripts import ANSWER, GROUP, PUT, SPREAD, call

REMEMBERED = 120.0
"""Seconds for which the ids of queued frames are remembered: longer than a connection takes to be made anew."""


def storing(frames: Sequence[Outgoing], prefix: str, claims: RedisClaims) -> list[tuple[Command, list[Outgoing]]]:
    """The commands that store `frames`, each with those it stores; those to one inbox together, in their order.

    Args:
        frames: The frames.
        prefix: How all keys begin.
        claims: Knows the streams of queues.
    """
    commands: list[tuple[Command, list[Outgoing]]] = []
    batches: dict[tuple[Lane, str], list[Outgoing]] = {}
    spreads = False
    for frame in frames:
        if batches and (frame.lane == "everyone") is not spreads:
            # A goodbye to everyone must not overtake the answers before it, nor what follows it the goodbye.
            commands += _commands(batches, prefix, claims)
            batches = {}
        spreads = frame.lane == "everyone"
        batches.setdefault((frame.lane, frame.to), []).append(frame)
    commands += _commands(batches, prefix, claims)
    return commands


def _commands(
    batches: dict[tuple[Lane, str], list[Outgoing]], prefix: str, claims: RedisClaims
) -> Iterable[tuple[Command, list[Outgoing]]]:
    for (lane, to), frames in batches.items():
        for pack in packs(frames):
            if lane == "queue":
                fields = [part for frame in pack for part in (frame.id, frame.body)]
                yield call(PUT, [claims.new(to)], GROUP, prefix, to, int(1000 * REMEMBERED), *fields), pack
                continue
            fields = [part for frame in pack for part in (FIELDS[lane], frame.body)]
            if lane == "inbox":
                yield _to_inbox(f"{prefix}inbox:{to}", fields, pack, claims.owner), pack
            else:
                yield call(SPREAD, [f"{prefix}nodes"], prefix + "inbox:", *fields), pack


def _to_inbox(inbox: str, fields: list[str | bytes], pack: list[Outgoing], owner: str) -> Command:
    """One entry, and the end of the claims that it answers. A node that is gone has no inbox, and must not get one."""
    streams: dict[str, list[bytes]] = {}
    for frame in pack:
        if frame.settles is not None:
            claim = claim_of(frame.settles)
            streams.setdefault(claim.stream, []).append(claim.id)
    if not streams:
        return ("XADD", inbox, "NOMKSTREAM", "*", *fields)
    ends: list[bytes | int] = []
    for ids in streams.values():
        ends += (len(ids), *ids)
    return call(ANSWER, [inbox, *streams], GROUP, owner, len(fields), *fields, *ends)
