"""Signatures of frames: keyed BLAKE2b over the raw bytes."""

from __future__ import annotations

import hashlib
import hmac
import os

__all__ = ["ENVIRONMENT", "MAC_BYTES", "Signer", "signer_for"]


ENVIRONMENT = "ACTORBUS_SIGNING_KEY"
"""The environment variable for the keys: hexadecimal, with commas between several, the one that signs first."""

MAC_BYTES = 32
"""Length of a signature in bytes."""

_LEAST_KEY_BYTES = 32


class Signer:
    """Signs with the first of its keys and verifies with any of them, so that keys can be rotated.

    To rotate, add the new key in second place everywhere, then move it to first place, then drop the old one.

    Args:
        keys: One key or several, each of at least 32 random bytes.

    Raises:
        ValueError: No key, or one that is not bytes or is too short.
    """

    __slots__ = ("_states", "key_id")

    def __init__(self, keys: bytes | tuple[bytes, ...]) -> None:
        given: tuple[object, ...] = (keys,) if isinstance(keys, bytes) else tuple(keys)
        if not given:
            msg = "a signer needs at least one key"
            raise ValueError(msg)
        # The keys themselves are not kept: nothing that prints this object can show them.
        self._states = {}
        for place, key in enumerate(given):
            if not isinstance(key, bytes) or len(key) < _LEAST_KEY_BYTES:
                size = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
                msg = (
                    f"signing key {place} is {size}: use at least {_LEAST_KEY_BYTES} random bytes, "
                    "e.g. secrets.token_bytes(32)"
                )
                raise ValueError(msg)
            # BLAKE2b takes keys of up to 64 bytes; its digest of a longer one is as strong.
            usable = key if len(key) <= hashlib.blake2b.MAX_KEY_SIZE else hashlib.blake2b(key).digest()
            key_id = hashlib.blake2b(usable, digest_size=8, person=b"bus key id").hexdigest()
            self._states[key_id] = hashlib.blake2b(key=usable, digest_size=MAC_BYTES, person=b"bus frame")
        self.key_id = next(iter(self._states))
        """Id of the key that signs: a short digest of it."""

    def knows(self, key_id: str) -> bool:
        """Whether one of the keys has that id."""
        return key_id in self._states

    def sign(self, data: bytes, way: str = "") -> bytes:
        """Return the signature of `data`, for the way it goes, under the first key."""
        state = self._states[self.key_id].copy()
        state.update(data)
        state.update(way.encode())
        return state.digest()

    def verify(self, key_id: str, data: bytes | memoryview, mac: bytes | memoryview, way: str = "") -> bool:
        """Say whether `mac` signs `data` for that way under the key `key_id`, in time that does not tell how nearly.

        An unknown key id is never valid.
        """
        known = self._states.get(key_id)
        if known is None:
            return False
        state = known.copy()
        state.update(data)
        state.update(way.encode())
        return hmac.compare_digest(state.digest(), mac)

    def __repr__(self) -> str:
        return f"<Signer key_ids={list(self._states)}>"


def signer_for(keys: bytes | tuple[bytes, ...] | None) -> Signer | None:
    """The signer for keys, or for those of the environment variable `ACTORBUS_SIGNING_KEY`; None if there are none.

    Args:
        keys: As for `Signer`; None reads the variable. That holds one key or several with commas between them, each of
            at least 64 hexadecimal digits, as `openssl rand -hex 32` prints them.

    Raises:
        ValueError: A key is unfit, or the variable is set to something that is no key. No key is shown.
    """
    if keys is not None:
        return Signer(keys)
    text = os.environ.get(ENVIRONMENT)
    if text is None:
        return None
    parts = text.split(",")
    try:
        return Signer(tuple(bytes.fromhex(part) for part in parts))
    except ValueError:
        place = next((place for place, part in enumerate(parts, 1) if not _is_key(part)), 0)
        raise ValueError(
            f"key {place} of {len(parts)} in the environment variable {ENVIRONMENT} is not one: it takes at least "
            "64 hexadecimal digits, as `openssl rand -hex 32` prints them, with commas between several keys. "
            "Unset it to send unsigned frames"
        ) from None


def _is_key(text: str) -> bool:
    try:
        return len(bytes.fromhex(text)) >= _LEAST_KEY_BYTES
    except ValueError:
        return False
