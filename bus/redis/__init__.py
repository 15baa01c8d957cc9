"""Redis and Valkey: streams, with claims and leases kept by scripts on the server.

`bus` hands out `RedisBus`. The files have the names of those for NATS, and the same roles.
"""
