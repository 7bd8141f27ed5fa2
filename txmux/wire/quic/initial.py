"""The contents of a client's Initial packets, whose keys follow from the first of them.

It is protected by keys that depend on nothing but the first connection ID (RFC 9001, section 5).
"""

import hmac
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from txmux.wire.cursor import MalformedError
from txmux.wire.quic.header import VERSIONS, LongHeader, UnacceptableError

_SAMPLE_AFTER, _SAMPLE = 4, 16
_RESERVED = 0x0C
_ECB = ECB()  # nosec B305  # noqa: S305 - of a single block, as in the RFC


class ClientKeys:
    """The keys of a client's Initial packets.

    Args:
        version: A number of `VERSIONS`.
        destination: The connection ID that the client's first Initial packet is sent to.
    """

    __slots__ = ("_aead", "_header", "_iv")

    def __init__(self, version: int, destination: bytes) -> None:
        constants = VERSIONS[version]
        initial = hmac.digest(constants.salt, destination, "sha256")
        client = _expand(initial, b"client in", 32)
        key, iv, header = constants.labels
        self._aead = AESGCM(_expand(client, key, 16))
        self._iv = int.from_bytes(_expand(client, iv, 12), "big")
        self._header = Cipher(AES(_expand(client, header, 16)), _ECB)

    def unprotect(
        self, datagram: bytes, at: int, header: LongHeader, largest: int
    ) -> tuple[bytes, int]:
        """Return the frames of a packet, and the largest number until now.

        Args:
            datagram: What it is in.
            at: Where it begins there.
            header: Its header.
            largest: The largest number of an earlier packet of the client; -1 if there is none.

        Raises:
            MalformedError: Another has made it, or it was changed on its way.
            UnacceptableError: The client has set reserved bits (RFC 9000, section 17.2).
        """
        number_at = header.number_at
        sample_at = number_at + _SAMPLE_AFTER
        sample = datagram[sample_at : sample_at + _SAMPLE]
        if sample_at + _SAMPLE > header.end:
            raise MalformedError
        mask = self._header.encryptor().update(sample)
        first = datagram[at] ^ mask[0] & 0x0F
        size = (first & 3) + 1
        protected = int.from_bytes(datagram[number_at : number_at + size], "big")
        cut = protected ^ int.from_bytes(mask[1 : 1 + size], "big")
        payload_at = number_at + size
        associated = b"".join(
            (bytes([first]), datagram[at + 1 : number_at], cut.to_bytes(size, "big"))
        )
        number = _whole_number(cut, 8 * size, largest)
        nonce = (self._iv ^ number).to_bytes(12, "big")
        try:
            frames = self._aead.decrypt(nonce, datagram[payload_at : header.end], associated)
        except InvalidTag:
            raise MalformedError from None
        if first & _RESERVED:
            raise UnacceptableError
        return frames, max(number, largest)


def _whole_number(cut: int, bits: int, largest: int) -> int:
    # Packet numbers are cut off on the wire: it is the one closest to the next (RFC 9000, section 17.1 and appendix A.3).
    window = 1 << bits
    least = max(0, largest + 2 - window // 2)
    return least + (cut - least) % window


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    # HKDF-Expand-Label, of at most one block of the hash (RFC 8446, section 7.1).
    return hmac.digest(secret, _info(label, length), "sha256")[:length]


@lru_cache(maxsize=16)
def _info(label: bytes, length: int) -> bytes:
    full = b"tls13 " + label
    return length.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0\1"
