"""The runner: hosts workers in one process, from the first to the last of them.

`runner` hands out `WorkerRunner`; `roster` holds the tree of workers, `supervisor` makes them again.
"""
