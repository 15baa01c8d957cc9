"""Bytes to and from any broker: what a network offers, and what is sent over it, read from it and refused.

`transport` is the port that a broker implements, `node` the port to the bus that uses it.
"""
