"""A broker within this process, with queues, leases and redelivery: `memory://name`.

`transport` hands out `MemoryTransport`; the broker is also what the simulated network stores its frames in.
"""
