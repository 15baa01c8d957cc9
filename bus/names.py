"""The one rule for names, how a name becomes part of a key, and what a mistyped name may have meant."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote

from bus.errors import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_name", "key_part", "nearest"]


LONGEST_NAME = 128
"""Characters of a name."""

# A comparison takes up to 20 us: an error message may not hold the event loop for longer than 20 ms.
_MOST_COMPARED = 1000


def check_name(kind: str, name: object) -> str:
    """Return `name` if it is one: 1 to 128 printable characters, blanks included.

    Args:
        kind: What is named, for the error message: `worker name`, `topic`.
        name: The name.

    Returns:
        The name as a plain `str`.

    Raises:
        InvalidNameError: It is empty, too long, has a character that cannot be printed, or is no string.
    """
    if isinstance(name, str):
        name = str.__str__(name)
        if 0 < len(name) <= LONGEST_NAME and name.isprintable():
            return name
    raise InvalidNameError(kind, name)


def key_part(name: str) -> str:
    """A name as a part of a key: other parts, wildcards and separators cannot be mistaken for it."""
    return quote(name, safe="")


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """Return the candidates that look most like `name`, best first; empty if none comes near.

    Args:
        name: What was asked for.
        candidates: What exists. Only the first 1,000 are compared.
        limit: How many to return at most.
    """
    return get_close_matches(name, list(islice(candidates, _MOST_COMPARED)), n=limit)
