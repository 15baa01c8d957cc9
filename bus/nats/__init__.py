"""NATS: JetStream, with leases kept by its consumers.

`bus` hands out `NatsBus`. The files have the names of those for Redis, and the same roles.
"""
