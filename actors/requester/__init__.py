"""Asking: what was asked for, what came back, and who waits for it.

`contexts` is what users enter or await, `group` is behind it.
"""
