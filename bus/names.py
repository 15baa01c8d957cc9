"""The one grammar for names, and what a mistyped name may have meant."""

from __future__ import annotations

import re
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING

from bus.errors import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_name", "nearest"]


_GRAMMAR = re.compile(r"[A-Za-z0-9_.-]{1,64}")

# A comparison takes up to 20 us: an error message may not hold the event loop for longer than 20 ms.
_MOST_COMPARED = 1000


def check_name(kind: str, name: object) -> str:
    """Return `name` if it follows the grammar: 1 to 64 ASCII letters, digits, `_`, `.` and `-`.

    Args:
        kind: What is named, for the error message: `worker name`, `topic`.
        name: The name.

    Returns:
        The name as a plain `str`.

    Raises:
        InvalidNameError: It does not follow the grammar, or is no string.
    """
    if isinstance(name, str) and _GRAMMAR.fullmatch(name):
        return str.__str__(name)
    raise InvalidNameError(kind, name)


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """Return the candidates that look most like `name`, best first; empty if none comes near.

    Args:
        name: What was asked for.
        candidates: What exists. Only the first 1,000 are compared.
        limit: How many to return at most.
    """
    return get_close_matches(name, list(islice(candidates, _MOST_COMPARED)), n=limit)
