"""Asking from outside: for code that is no worker, with an event loop or without.

`client` hands out `Client`, `sync` its blocking twin, `job_follower` the events of a fleet.
"""
