"""The networks that can carry a bus: each module implements `bus.transport.Transport`."""
