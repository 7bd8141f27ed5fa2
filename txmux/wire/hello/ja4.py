"""The JA4 fingerprint of a TLS client."""

import functools
import hashlib
import struct

from txmux.wire.hello.whole import ALPN, SERVER_NAME, WholeHello

_GREASE = frozenset(0x0A0A + 0x1010 * digit for digit in range(16))
_VERSIONS = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
_NOTHING = "000000000000"
_MOST_CACHED = 256
"""Cached parts of fingerprints: clients are many, but of few kinds."""
_LONGEST_CACHED = 512
"""Longer lists are not cached: only attackers send them."""


def fingerprint(hello: WholeHello, carrier: str = "t") -> str:
    """Compute the JA4 fingerprint of a client that speaks TLS.

    It is written after FoxIO's description of the algorithm (FoxIO-LLC/ja4, technical_details/JA4.md): the carrier, the
    highest version, whether a name is requested, how many cipher suites and extensions there are, two characters of the
    first application protocol; and hashes of the sorted cipher suites, and of the sorted extensions and the signature
    algorithms. Values of GREASE (RFC 8701) are left out everywhere.

    Args:
        hello: What the client has said.
        carrier: ``t`` for TCP, ``q`` for QUIC.
    """
    ordered = tuple(sorted(hello.extensions))
    suites, algorithms = hello.cipher_suites, hello.signature_algorithms
    if len(suites) + len(ordered) + len(algorithms) < _LONGEST_CACHED:
        number, first = _known_suites(suites)
        named, count, second = _known_extensions(ordered, algorithms)
    else:
        number, first = _of_suites(suites)
        named, count, second = _of_extensions(ordered, algorithms)
    version = _highest(hello.versions) if hello.versions else hello.legacy_version
    name = f"{carrier}{_VERSIONS.get(version, '00')}{named}{number}{count}{_ends(hello.alpn)}"
    return f"{name}_{first}_{second}"


def _of_suites(data: bytes) -> tuple[str, str]:
    suites = _numbers(data)
    return _count(suites), _digest(sorted(suites))


def _of_extensions(types: tuple[int, ...], body: bytes) -> tuple[str, str, str]:
    """Return whether there is a name, the count of extensions, and the hash of them and of the signature algorithms."""
    extensions = [kind for kind in types if kind not in _GREASE]
    algorithms = _numbers(body[2:])
    hashed = [kind for kind in extensions if kind not in {SERVER_NAME, ALPN}]
    lists = [hashed, algorithms] if hashed and algorithms else [hashed]
    return "d" if SERVER_NAME in extensions else "i", _count(extensions), _digest(*lists)


_known_suites = functools.lru_cache(_MOST_CACHED)(_of_suites)
_known_extensions = functools.lru_cache(_MOST_CACHED)(_of_extensions)


@functools.lru_cache(_MOST_CACHED)
def _highest(versions: bytes) -> int:
    return max(_numbers(versions), default=0)


def _numbers(data: bytes) -> list[int]:
    """Read a list of numbers of two bytes each, and leave out those of GREASE."""
    count = len(data) // 2
    numbers = struct.unpack_from(f">{count}H", data)
    return [number for number in numbers if number not in _GREASE]


def _ends(alpn: tuple[str, ...]) -> str:
    """Return the first and the last character of the first protocol, or of that in hex if they are not letters or digits."""
    if not alpn:
        return "00"
    first = alpn[0]
    ends = first[0] + first[-1]
    if ends.isascii() and ends.isalnum():
        return ends
    in_hex = first.encode("latin-1").hex()
    return in_hex[0] + in_hex[-1]


def _count(numbers: list[int]) -> str:
    return f"{min(len(numbers), 99):02}"


def _digest(*lists: list[int]) -> str:
    if not lists[0]:
        return _NOTHING
    text = b"_".join(
        struct.pack(f">{len(numbers)}H", *numbers).hex(",", 2).encode() for numbers in lists
    )
    return hashlib.sha256(text).hexdigest()[:12]
