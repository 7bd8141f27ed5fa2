"""The first datagram of a QUIC client, made as an attacker or a browser would make it."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

if TYPE_CHECKING:
    from collections.abc import Iterator

_SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
_SIZE, _HEAD, _TAG = 1200, 11, 16
_CRYPTO = 6


def initials(hello: bytes, count: int) -> Iterator[bytes]:
    """Make Initial packets of version 1, each with keys of its own (RFC 9001, section 5; RFC 9000, section 17.2.2).

    Args:
        hello: A ClientHello of less than 1,100 bytes, without the record around it.
        count: How many.
    """
    for number in range(count):
        yield _initial(number.to_bytes(8, "big"), hello)


def _initial(destination: bytes, hello: bytes) -> bytes:
    secret = _derived(hmac.digest(_SALT, destination, "sha256"), b"client in", 32)
    key, nonce, mask = (
        _derived(secret, name, size)
        for name, size in ((b"quic key", 16), (b"quic iv", 12), (b"quic hp", 16))
    )
    # The number of the packet is 0, in one byte; so the sample begins three bytes after it.
    frames = bytes([_CRYPTO, 0]) + (0x4000 | len(hello)).to_bytes(2, "big") + hello
    frames = frames.ljust(_SIZE - _HEAD - _TAG - len(destination), b"\0")
    head = b"\xc0\0\0\0\1" + bytes([len(destination)]) + destination + b"\0\0"
    head += (0x4000 | (len(frames) + _TAG + 1)).to_bytes(2, "big")
    body = AESGCM(key).encrypt(nonce, frames, head + b"\0")
    protection = Cipher(AES(mask), ECB()).encryptor().update(body[3:19])
    return bytes([head[0] ^ protection[0] & 15]) + head[1:] + bytes([protection[1]]) + body


def _derived(secret: bytes, name: bytes, size: int) -> bytes:
    label = b"tls13 " + name
    info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0\1"
    return hmac.digest(secret, info, "sha256")[:size]
