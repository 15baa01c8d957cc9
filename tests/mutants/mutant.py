"""What a planted fault is, and the checks that catch those of several files."""

from __future__ import annotations

import msgspec


class Mutant(msgspec.Struct, frozen=True):
    """One planted fault.

    Attributes:
        name: What is broken.
        file: Where.
        old: The text that is replaced; stands once in the file.
        new: What replaces it.
        check: Arguments of `python -m` that must fail on it.
    """

    name: str
    file: str
    old: str
    new: str
    check: tuple[str, ...]


def unit(*tests: str) -> tuple[str, ...]:
    """A check by unit tests, stopping at the first that fails."""
    return ("pytest", "-q", "-x", "-p", "no:cacheprovider", *(f"tests/{test}" for test in tests))


SIMULATION = ("tests.simulation", "--seeds", "60", "--processes", "1")
FLEET = unit("simulation/test_fleet.py")
FAULTS = unit("simulation/test_pauses_and_outages.py")
ERRORS = unit("unit/actors/jobs/test_errors.py")
EVENTS = unit("unit/actors/worker/test_events.py")
