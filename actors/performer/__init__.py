"""Doing: which job may start, how its handler is run, and how it is answered once.

`admission` takes requests, `execution` runs them, `job` is what a handler sees.
"""
