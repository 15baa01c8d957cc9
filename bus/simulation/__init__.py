"""A network that delays, loses, doubles, reorders and cuts, from a seed and in virtual time.

`network` hands out `SimulatedNetwork` and `Faults`.
"""
