"""Hybrid public key encryption, as far as Encrypted ClientHello needs it (RFC 9180).

Base mode with DHKEM(X25519, HKDF-SHA256) and HKDF-SHA256. `cryptography` opens one message of a sender, and a client whose hello is
answered by a HelloRetryRequest sends a second one in the same context.
"""

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from txmux.wire.cursor import MalformedError

X25519, HKDF_SHA256 = 0x20, 1
AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305 = 1, 2, 3
AEADS: dict[int, tuple[type[AESGCM | ChaCha20Poly1305], int]] = {
    AES_128_GCM: (AESGCM, 16),
    AES_256_GCM: (AESGCM, 32),
    CHACHA20_POLY1305: (ChaCha20Poly1305, 32),
}
"""The ciphers there are, and the bytes of their keys."""

_KEM_SUITE = b"KEM" + X25519.to_bytes(2, "big")


class Context:
    """The messages of one sender, in their order.

    Args:
        shared: The secret of `shared_secret`.
        info: What both know of the purpose.
        aead: One of `AEADS`.
    """

    __slots__ = ("_aead", "_nonce", "_sequence")

    def __init__(self, shared: bytes, info: bytes, aead: int) -> None:
        suite = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (X25519, HKDF_SHA256, aead))
        cipher, size = AEADS[aead]
        of_psk = _extract(suite, b"", b"psk_id_hash", b"")
        schedule = b"\0" + of_psk + _extract(suite, b"", b"info_hash", info)
        secret = _extract(suite, shared, b"secret", b"")
        self._aead = cipher(_expand(suite, secret, b"key", schedule, size))
        self._nonce = int.from_bytes(_expand(suite, secret, b"base_nonce", schedule, 12), "big")
        self._sequence = 0

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """Return the next message.

        Raises:
            MalformedError: It is not that of this sender, or was changed.
        """
        try:
            opened = self._aead.decrypt(self._next_nonce(), sealed, associated)
        except InvalidTag:
            raise MalformedError from None
        self._sequence += 1
        return opened

    def _next_nonce(self) -> bytes:
        return (self._nonce ^ self._sequence).to_bytes(12, "big")


def shared_secret(key: X25519PrivateKey, encapsulated: bytes) -> bytes:
    """Return the secret that a sender has made for the owner of a key; this takes nearly all of the time.

    Raises:
        MalformedError: No client would send this.
    """
    try:
        agreed = key.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    except ValueError:  # not 32 bytes, or a point that gives zero
        raise MalformedError from None
    return kem_secret(agreed, encapsulated, key.public_key().public_bytes_raw())


def kem_secret(agreed: bytes, encapsulated: bytes, public: bytes) -> bytes:
    """Derive the secret from what the key exchange gave (RFC 9180, section 4.1)."""
    secret = _extract(_KEM_SUITE, b"", b"eae_prk", agreed)
    return _expand(_KEM_SUITE, secret, b"shared_secret", encapsulated + public, 32)


def _extract(suite: bytes, salt: bytes, label: bytes, value: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + value, "sha256")


def _expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    # At most one block of the hash.
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(secret, labelled + b"\1", "sha256")[:length]
