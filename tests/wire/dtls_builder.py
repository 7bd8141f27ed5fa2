"""Put together the datagrams with which a DTLS client begins (RFC 6347, sections 4.1 and 4.2.2)."""

import itertools

from tests.wire.hello_builder import client_hello, sized

V10, V12, V13 = 0xFEFF, 0xFEFD, 0xFEFC
_BEFORE_SESSION_ID = 4 + 2 + 32


def dtls_body(*extensions: bytes, cookie: bytes = b"", version: int = V12) -> bytes:
    hello = client_hello(*extensions, legacy_version=version)
    behind = _BEFORE_SESSION_ID + 1 + hello[_BEFORE_SESSION_ID]
    return hello[4:behind] + sized(1, cookie) + hello[behind:]


def fragment(
    body: bytes, start: int, end: int, *, message: int = 0, length: int | None = None
) -> bytes:
    header = b"\1" + (len(body) if length is None else length).to_bytes(3, "big")
    place = message.to_bytes(2, "big") + start.to_bytes(3, "big") + (end - start).to_bytes(3, "big")
    return header + place + body[start:end]


def record(
    payload: bytes, *, kind: int = 22, version: int = V10, epoch: int = 0, number: int = 0
) -> bytes:
    place = epoch.to_bytes(2, "big") + number.to_bytes(6, "big")
    return bytes([kind]) + version.to_bytes(2, "big") + place + sized(2, payload)


def hello_datagrams(body: bytes, *cuts: int, message: int = 0) -> list[bytes]:
    places = [0, *cuts, len(body)]
    return [
        record(fragment(body, start, end, message=message), number=number)
        for number, (start, end) in enumerate(itertools.pairwise(places))
    ]
