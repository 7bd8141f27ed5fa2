"""PROXY protocol headers as proxies in front and servers behind have them, and the addresses by which trials are known."""

from __future__ import annotations

import re
import socket
import struct

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIRST = 256  # of the addresses: neither that of a network nor 127.0.0.1
_LINE = re.compile(rb"PROXY TCP4 (\S+) \S+ \d+ \d+\r\n")

LOOPBACK, CLAIMED = 127, 10
"""The first byte of the addresses of clients, and of those of whom a proxy tells."""
MOST_TRIALS = 2**24 - 2 * _FIRST


def address_of(trial: int, network: int = LOOPBACK) -> str:
    return socket.inet_ntoa(struct.pack(">I", network << 24 | (trial % MOST_TRIALS + _FIRST)))


def trial_at(address: str) -> int:
    """Give the trial of an address; the numbers of trials begin anew after `MOST_TRIALS`."""
    number: int = struct.unpack(">I", socket.inet_aton(address))[0] & 0xFFFFFF
    return number - _FIRST


def encode(trial: int, version: str) -> bytes:
    source, target = address_of(trial, CLAIMED), "192.0.2.1"
    port = 1024 + trial % 60000
    if version == "v1":
        return f"PROXY TCP4 {source} {target} {port} 443\r\n".encode()
    addresses = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack(">HH", port, 443)
    return _SIGNATURE + struct.pack(">BBH", 0x21, 0x11, len(addresses)) + addresses


def decode(data: bytes) -> tuple[int, int] | None:
    """Read a header of either version."""
    if data[:1] == b"P":
        line, end, _ = data.partition(b"\r\n")
        if not end:
            return None
        match = _LINE.fullmatch(line + end)
        if match is None:
            raise ValueError(f"no PROXY header: {line!r}")
        return trial_at(match[1].decode()), len(line) + 2
    if not _SIGNATURE.startswith(data[:12]):
        raise ValueError(f"no PROXY header: {data[:50]!r}")
    if len(data) < 16:
        return None
    kind, family, length = struct.unpack_from(">BBH", data, 12)
    if (kind, family) != (0x21, 0x11):
        raise ValueError(f"a PROXY header of another kind: {data[:28]!r}")
    if len(data) < 16 + length:
        return None
    return trial_at(socket.inet_ntoa(data[16:20])), 16 + length
