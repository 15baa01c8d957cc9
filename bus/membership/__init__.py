"""Who is there: the runners of the fleet, their workers, and who is taken for dead.

`liveness` decides, `membership` announces and listens, `watchdog` speaks for an event loop that is blocked.
"""
