"""Bytes to and from any broker: the port that a broker implements, and what a bus does with it whatever the broker.

`transport` is that port, `node` the port to the rest of the bus. Nothing here knows of jobs but what a frame says.
"""
