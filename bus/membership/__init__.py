"""Who is there: the runners of the fleet, their workers, and who is taken for dead.

`liveness` decides who is alive, `membership` exchanges heartbeats and lists of workers, `watchdog` sends heartbeats for
an event loop that is blocked.
"""
