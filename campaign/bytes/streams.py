"""The bytes of one direction of a connection: made when they are sent, and once more when they arrive."""

from __future__ import annotations

import functools
import hashlib
import re

import attrs
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

MOST_AT_ONCE = 2**18
"""Bytes that can be made in one go."""
HEADER_SIZE = 19
"""Bytes with which each client begins: the way, the seed and the trial, so that a server knows whom it should hear."""

_ZEROS = memoryview(bytes(MOST_AT_ONCE))
_HEADER = re.compile(rb"([A-Z])([0-9a-f]{8})!([0-9a-f]{8})\n")


@functools.lru_cache(16)
def _key(seed: int) -> AES:
    return AES(hashlib.sha256(str(seed).encode()).digest()[:16])


class Stream:
    """Bytes that follow from three numbers, and look as if they came by chance.

    They are the key stream of AES-CTR, so those of any two directions have nothing in common, and a byte that is lost, doubled
    or from elsewhere makes nearly all that follow wrong.
    """

    __slots__ = ("_head", "_make", "position")

    def __init__(self, seed: int, trial: int, direction: int, head: bytes = b"") -> None:
        start = (trial << 1 | direction).to_bytes(8, "big") + bytes(8)
        self._make = Cipher(_key(seed), CTR(start)).encryptor().update
        self._head = head
        self.position = 0

    def take(self, count: int) -> bytes:
        """Give the next bytes, `MOST_AT_ONCE` at most."""
        self.position += count
        if not self._head:
            return self._make(_ZEROS[:count])
        head, self._head = self._head[:count], self._head[count:]
        return head + self._make(_ZEROS[: count - len(head)])

    def is_next(self, data: bytes) -> bool:
        """Tell whether just these bytes come next."""
        view = memoryview(data)
        while view:
            piece, view = view[:MOST_AT_ONCE], view[MOST_AT_ONCE:]
            if self.take(len(piece)) != piece:
                return False
        return True


@attrs.frozen
class Header:
    """With what a client begins."""

    way: str
    seed: int
    trial: int

    def encode(self) -> bytes:
        """Give `HEADER_SIZE` bytes."""
        return f"{self.way}{self.seed:08x}!{self.trial:08x}\n".encode()

    @classmethod
    def decode(cls, data: bytes) -> Header | None:
        """Read it, if this is one."""
        match = _HEADER.fullmatch(data)
        return cls(match[1].decode(), int(match[2], 16), int(match[3], 16)) if match else None
