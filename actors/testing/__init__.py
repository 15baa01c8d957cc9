"""Testing programs of actors: stubs, and the real code on a simulated network, under a virtual clock, from a seed.

`actors.testing.fixtures` is a plugin for pytest, which a project asks for in its conftest.
"""

import typing as _typing

from actors.testing.stub import StubWorker

if _typing.TYPE_CHECKING:
    from actors.testing.simulation import Simulation, SimulationError
    from bus.simulation.network import Faults

__all__ = ["Faults", "Simulation", "SimulationError", "StubWorker"]


def __getattr__(name: str) -> _typing.Any:
    """Import what needs the extra `simulation` when it is used."""
    if name in {"Simulation", "SimulationError"}:
        from actors.testing.simulation import Simulation, SimulationError  # noqa: PLC0415

        return Simulation if name == "Simulation" else SimulationError
    if name == "Faults":
        from bus.simulation.network import Faults  # noqa: PLC0415

        return Faults
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
