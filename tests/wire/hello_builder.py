"""Put together the first message of a TLS client, right or wrong, and send it byte by byte.

The format is that of RFC 8446, sections 4.1.2, 4.2 and 5.1.
"""

from collections.abc import Iterable

from txmux.wire.client_hello import HelloReader, parse_client_hello

KEY_SHARE = 51
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")

PADDING = 21
"""An extension that says nothing (RFC 7685)."""


def sized(width: int, body: bytes) -> bytes:
    """Put the length of a field before it, in `width` bytes."""
    return len(body).to_bytes(width, "big") + body


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + sized(2, body)


def server_name(*names: str, kind: int = 0) -> bytes:
    """Make the extension of RFC 6066, section 3; all names of one kind."""
    return extension(
        0, sized(2, b"".join(bytes([kind]) + sized(2, name.encode("latin-1")) for name in names))
    )


def alpn(*protocols: bytes) -> bytes:
    """Make the extension of RFC 7301, section 3.1."""
    return extension(16, sized(2, b"".join(sized(1, protocol) for protocol in protocols)))


def versions(*numbers: int) -> bytes:
    """Make the extension of RFC 8446, section 4.2.1."""
    return extension(43, sized(1, b"".join(number.to_bytes(2, "big") for number in numbers)))


def client_hello(
    *extensions: bytes,
    legacy_version: int = 0x0303,
    session_id: bytes = b"",
    cipher_suites: bytes = b"\x13\x01",
    compression_methods: bytes = b"\x00",
    with_extensions: bool = True,
    kind: int = 1,
) -> bytes:
    body = legacy_version.to_bytes(2, "big") + bytes(range(32)) + sized(1, session_id)
    body += sized(2, cipher_suites) + sized(1, compression_methods)
    if with_extensions:
        body += sized(2, b"".join(extensions))
    return bytes([kind]) + sized(3, body)


def sslv2_hello(
    *,
    version: int = 0x0301,
    cipher_suites: bytes = bytes.fromhex("00002f 000035 00000a 010080 0000ff 000005 000004"),
    session_id: bytes = b"",
    challenge: bytes = bytes(range(16)),
) -> bytes:
    """Make a hello in the format of SSL 2.0 (RFC 5246, appendix E.2)."""
    parts = (cipher_suites, session_id, challenge)
    body = b"\x01" + version.to_bytes(2, "big")
    body += b"".join(len(part).to_bytes(2, "big") for part in parts) + b"".join(parts)
    return (0x8000 | len(body)).to_bytes(2, "big") + body


def records(message: bytes, size: int | Iterable[int] = 16384) -> bytes:
    """Put a message into records.

    Args:
        message: What they carry.
        size: How many bytes each carries, or the first of them; the last such size serves for the rest.
    """
    sizes = iter([size] if isinstance(size, int) else size)
    made, current = b"", 1
    while message:
        current = next(sizes, current)
        made += b"\x16\x03\x01" + sized(2, message[:current])
        message = message[current:]
    return made


def byte_by_byte(data: bytes) -> tuple[HelloReader, int]:
    """Send a sample byte by byte; gives the last answer and the byte that decided, or their number."""
    reader = HelloReader()
    for length in range(1, len(data) + 1):
        reader = parse_client_hello(data[:length], reader)
        if reader.malformed or reader.hello:
            return reader, length
    return reader, len(data)


def server_hello(random: bytes = RETRY_RANDOM, kind: int = 2) -> bytes:
    """Make the beginning of a ServerHello, which is enough to tell a HelloRetryRequest."""
    return bytes([kind]) + sized(3, b"\3\3" + random + b"\0\x13\1\0\0\0")
