"""The bus of one process: who can be reached, what waits for whom, and the tasks and timers under it.

`bus` hands out `WorkerBus` and `AsyncQueueBus`. It needs anyio only, and knows of no network.
"""
