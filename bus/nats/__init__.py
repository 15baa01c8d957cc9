"""NATS: streams of JetStream, whose consumers give out claims and end them with their leases.

`bus` hands out `NatsBus`. The files have the names of those for Redis, and the same roles.
"""
