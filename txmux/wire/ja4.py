"""The JA4 fingerprint of a TLS client."""

from __future__ import annotations

import hashlib
import struct

__all__ = ["fingerprint"]

_GREASE = frozenset(0x0A0A + 0x1010 * digit for digit in range(16))
_SERVER_NAME, _ALPN, _SIGNATURE_ALGORITHMS, _SUPPORTED_VERSIONS = 0, 16, 13, 43
_VERSIONS = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
_NOTHING = "000000000000"
_two_numbers = struct.Struct(">HH").unpack_from


def fingerprint(message: bytes, alpn: tuple[str, ...]) -> str:
    """Compute the JA4 fingerprint of a client that speaks TLS over TCP.

    It is written after FoxIO's description of the algorithm (FoxIO-LLC/ja4, technical_details/JA4.md): ``t``, the
    highest version, whether a name is asked for, how many cipher suites and extensions there are, two characters of the
    first application protocol; and hashes of the sorted cipher suites, and of the sorted extensions and the signature
    algorithms. Values of GREASE (RFC 8701) are left out everywhere.

    Args:
        message: A ClientHello as `parse_client_hello` has found it to be right, with its header of four bytes.
        alpn: The application protocols that it offers, one character a byte.
    """
    version = message[4] << 8 | message[5]
    at = 4 + 2 + 32
    at += 1 + message[at]
    end = at + 2 + (message[at] << 8 | message[at + 1])
    cipher_suites = _numbers(message[at + 2 : end])
    at = end + 1 + message[end] + 2

    extensions = []
    signature_algorithms: list[int] = []
    while at < len(message):
        kind, size = _two_numbers(message, at)
        at += 4
        if kind == _SIGNATURE_ALGORITHMS:
            signature_algorithms = _numbers(message[at + 2 : at + size])
        elif kind == _SUPPORTED_VERSIONS:
            version = max(_numbers(message[at + 1 : at + size]), default=0)
        if kind not in _GREASE:
            extensions.append(kind)
        at += size

    named = "d" if _SERVER_NAME in extensions else "i"
    counts = f"{min(len(cipher_suites), 99):02}{min(len(extensions), 99):02}"
    beginning = f"t{_VERSIONS.get(version, '00')}{named}{counts}{_ends(alpn)}"
    extensions = [kind for kind in sorted(extensions) if kind not in {_SERVER_NAME, _ALPN}]
    lists = (
        [extensions, signature_algorithms] if extensions and signature_algorithms else [extensions]
    )
    return f"{beginning}_{_digest(sorted(cipher_suites))}_{_digest(*lists)}"


def _numbers(data: bytes) -> list[int]:
    """Read a list of numbers of two bytes each, and leave out those of GREASE."""
    count = len(data) // 2
    numbers = struct.unpack_from(f">{count}H", data)
    return [number for number in numbers if number not in _GREASE]


def _ends(alpn: tuple[str, ...]) -> str:
    """Give the first and the last character of the first protocol, or of that in hex if they are no letters or digits."""
    if not alpn:
        return "00"
    first = alpn[0]
    ends = first[0] + first[-1]
    if ends.isascii() and ends.isalnum():
        return ends
    in_hex = first.encode("latin-1").hex()
    return in_hex[0] + in_hex[-1]


def _digest(*lists: list[int]) -> str:
    if not lists[0]:
        return _NOTHING
    text = b"_".join(
        struct.pack(f">{len(numbers)}H", *numbers).hex(",", 2).encode() for numbers in lists
    )
    return hashlib.sha256(text).hexdigest()[:12]
