"""Clients that speak TLS: many handshakes, full or resumed, and one long download."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benchmarks.children import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_AT_ONCE = 8
_PATIENCE = 60.0
_PIECE = 2**18
_ASKED = b"GET %s HTTP/1.0\r\nHost: www.example.com\r\n\r\n"


def make_certificate(path: Path, name: str = "www.example.com") -> None:
    """Write a certificate with a key on the curve P-256, and the key."""
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:P-256", "-days", "30", "-subj", f"/CN={name}"]
    command += ["-addext", f"subjectAltName=DNS:{name}"]
    key = path.with_suffix(".key")
    try:
        subprocess.run(
            [*command, "-keyout", str(key), "-out", str(path)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchmarkError(f"openssl made no certificate: {error}") from None
    path.write_text(path.read_text() + key.read_text())


def client_context() -> ssl.SSLContext:
    """Make what clients share that speak TLS 1.3, and trust everyone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


@contextlib.contextmanager
def _asking(
    port: int, context: ssl.SSLContext, path: bytes, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", port), _PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="www.example.com", session=session) as client,
    ):
        client.sendall(_ASKED % path)
        yield client


def handshakes(port: int, count: int, *, resumed: bool) -> set[str]:
    """Make connections, some at a time, each for a short answer.

    Args:
        port: Where to on 127.0.0.1.
        count: How many.
        resumed: Whether they go on with a session that they had; else each begins anew.

    Returns:
        The cipher suites.

    Raises:
        BenchmarkError: A client was not served, or a session was not resumed.
    """

    def some(number: int) -> set[str]:
        context, session, found = client_context(), None, set()
        for _ in range(number):
            with _asking(port, context, b"/", session) as client:
                if not client.recv(1024).startswith(b"HTTP/1.1 200"):
                    raise BenchmarkError("a client was not answered")
                if resumed and session is not None and not client.session_reused:
                    raise BenchmarkError("a session was not resumed")
                if resumed:
                    session = client.session
                found.add((client.cipher() or ("none",))[0])
        return found

    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return set().union(*pool.map(some, [count // _AT_ONCE] * _AT_ONCE))
    except OSError as error:
        raise BenchmarkError(f"a client was not served: {error}") from None


def hold(port: int, count: int, clients: contextlib.ExitStack) -> None:
    """Open connections that stay when they have had an answer, until `clients` closes them.

    Raises:
        BenchmarkError: A client was not served.
    """
    context = client_context()
    for _ in range(count):
        plain = clients.enter_context(socket.create_connection(("127.0.0.1", port), _PATIENCE))
        client = clients.enter_context(
            context.wrap_socket(plain, server_hostname="www.example.com")
        )
        client.sendall(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
        if not client.recv(1024).startswith(b"HTTP/1.1 200"):
            raise BenchmarkError("a client was not answered")


def download(port: int, path: bytes) -> int:
    """Take all that there is at a path.

    Returns:
        The number of bytes.
    """
    total, piece = 0, bytearray(_PIECE)
    try:
        with _asking(port, client_context(), path) as client:
            while got := client.recv_into(piece):
                total += got
    except OSError as error:
        raise BenchmarkError(f"the download broke off: {error}") from None
    return total
