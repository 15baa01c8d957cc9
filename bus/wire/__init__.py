"""Bytes: the values that may travel, and messages as frames. Everything here is pure.

`codec` is what the rest uses: a message in, a frame out, and back.
"""
