"""The bus over a transport, whatever the broker.

`bus` hands out `NetworkBus`, `session` is all that lives from its start to its stop, `inbox` reads what comes.
"""
