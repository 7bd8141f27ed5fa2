"""Servers that are asked by checks: for each protocol a healthy one and a picky one, each of which may be slow."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.interop.servers import make_certificate

Answer = Callable[[socket.socket], None]
SLOWNESS = 1.5  # seconds


def slow(answer: Answer) -> Answer:
    def talk(connection: socket.socket) -> None:
        time.sleep(SLOWNESS)
        answer(connection)

    return talk


def replying(*replies: tuple[bytes, bytes], greeting: bytes = b"") -> Answer:
    """Answer a request by what belongs to the first text in it that is known."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(greeting)
        heard = b""
        while piece := connection.recv(4096):
            heard += piece
            for text, reply in replies:
                if text in heard:
                    connection.sendall(reply)
                    heard = b""
                    break

    return talk


def resetting(connection: socket.socket) -> None:
    """Reset a connection, but not so soon that it depends on the moment whether it was there."""
    time.sleep(0.05)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _tls(folder: Path, *, needs_name: bool) -> Answer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = make_certificate(folder, f"{needs_name}.example".lower())
    context.load_cert_chain(certificate.chain, certificate.key)
    if needs_name:
        refused = ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        context.sni_callback = lambda _socket, name, _context: None if name else refused

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    return talk


def _http(needs: bytes) -> Answer:
    good, bad = b"HTTP/1.0 200 OK\r\n\r\nready", b"HTTP/1.0 400 Bad Request\r\n\r\n"

    def talk(connection: socket.socket) -> None:
        heard = b""
        while b"\r\n\r\n" not in heard and (piece := connection.recv(4096)):
            heard += piece
        connection.sendall(good if needs in heard.lower() else bad)

    return talk


_MYSQL = b"\x0a8.0.36\x00" + bytes(12)
_LDAP = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01%b\x04\x00\x04\x00"
_SSL_REQUEST, _VERSION = b"\x04\xd2\x16\x2f", b"\x00\x03\x00\x00"


def protocols(folder: Path) -> Mapping[str, tuple[Answer, Answer]]:
    """Return the healthy server of each protocol, and the picky one."""
    refused = b"E\x00\x00\x00\x1bSFATAL\x00C28000\x00Mno\x00\x00"
    return {
        "tcp": (replying(), resetting),
        "http": (_http(b""), _http(b"host: a.example")),
        "redis": (
            replying((b"PING\r\n", b"+PONG\r\n"), (b"\r\n", b"-ERR unknown command\r\n")),
            replying((b"\r\n", b"-NOAUTH Authentication required.\r\n")),
        ),
        "postgres": (
            replying((_SSL_REQUEST, b"N"), (_VERSION, b"R\x00\x00\x00\x08\x00\x00\x00\x00")),
            replying((_SSL_REQUEST, b"N"), (_VERSION, refused)),
        ),
        "mysql": (
            replying(greeting=len(_MYSQL).to_bytes(3, "little") + b"\x00" + _MYSQL),
            replying(greeting=b"\x07\x00\x00\x00\xff\x69\x04#HY000"),
        ),
        "smtp": (
            replying((b"HELO", b"250 a\r\n"), (b"QUIT", b"221 a\r\n"), greeting=b"220 a\r\n"),
            replying((b"HELO", b"250 a\r\n"), (b"QUIT", b"221 a\r\n"), greeting=b"554 a\r\n"),
        ),
        "ldap": (
            replying((b"\x60\x07", _LDAP % b"\x00")),
            replying((b"\x60\x07", _LDAP % b"\x30")),
        ),
        "tls": (_tls(folder, needs_name=False), _tls(folder, needs_name=True)),
    }
