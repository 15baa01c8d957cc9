"""The worker: its life, verbs, hooks and handlers, and what each message does to it.

`worker` hands out `BaseWorker`, `handlers` the decorators, `function` the one for plain functions.
"""
