"""Testing programs of actors: the real code on a simulated network, under a virtual clock, from a seed."""

from actors.testing.simulation import Simulation, SimulationError
from bus.simulation.network import Faults

__all__ = ["Faults", "Simulation", "SimulationError"]
