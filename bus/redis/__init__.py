"""Redis and Valkey: streams, and scripts by which the server gives out claims and ends them with their leases.

`bus` hands out `RedisBus`. The files have the names of those for NATS, and the same roles.
"""
