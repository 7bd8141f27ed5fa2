"""What the connections of the soak do: the clients' part, and that of the server."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0
"""Seconds that one connection may take."""

BULK = bytes(400_000)


class SoakError(Exception):
    """It could not be carried through; the message says why."""


def echo(client: socket.socket) -> None:
    """Ask and be answered."""
    client.sendall(b"Becho")
    expect(client, b"Becho")


def half_close(client: socket.socket) -> None:
    """Finish before being answered."""
    client.sendall(b"Bhalf")
    client.shutdown(socket.SHUT_WR)
    expect(client, b"Bhalf")


def bulk(client: socket.socket) -> None:
    """Get much."""
    client.sendall(b"Bmuch")
    expect(client, BULK)


def client_reset(client: socket.socket) -> None:
    """Break off after the answer has come."""
    client.sendall(b"Bstay")
    client.recv(5)
    break_off(client)


def server_reset(client: socket.socket) -> None:
    """Be broken off."""
    client.sendall(b"Break")
    expect_end(client)


def undecided(client: socket.socket) -> None:
    """Break off before it is plain where this leads."""
    client.sendall(b"LONG")
    break_off(client)


def says_nothing(client: socket.socket) -> None:
    """Leave at once."""
    client.shutdown(socket.SHUT_WR)
    expect_end(client)


def no_route(client: socket.socket) -> None:
    """Say what nobody understands."""
    client.sendall(b"Z")
    expect_end(client)


def refused(client: socket.socket) -> None:
    """Be led where nobody listens."""
    client.sendall(b"N")
    expect_end(client)


KINDS: list[tuple[Callable[[socket.socket], None], str]] = [
    (echo, "done"),
    (half_close, "done"),
    (client_reset, "client-reset"),
    (echo, "done"),
    (server_reset, "server-reset"),
    (undecided, "client-gone"),
    (half_close, "done"),
    (no_route, "no-route"),
    (refused, "connect-refused"),
    (echo, "done"),
    (says_nothing, "client-gone"),
    (bulk, "done"),
]
"""In turn, each with the reason that is logged for it."""


def expect(client: socket.socket, wanted: bytes) -> None:
    """Read to the end."""
    with client.makefile("rb") as stream:
        received = stream.read()
    if received != wanted:
        raise SoakError(f"{len(received)} bytes came instead of {len(wanted)}")


def expect_end(client: socket.socket) -> None:
    """Read to the end, in good order or not."""
    with contextlib.suppress(ConnectionError):
        expect(client, b"")


def break_off(connection: socket.socket) -> None:
    """Send a reset (SO_LINGER of socket(7))."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def run_clients(job: tuple[int, range]) -> str:
    """Run the clients of these numbers, one after another, and tell what went wrong."""
    port, numbers = job
    for number in numbers:
        kind, _ = KINDS[number % len(KINDS)]
        try:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                kind(client)
        except (OSError, SoakError) as problem:
            return f"client {number} ({kind.__name__}): {problem!r}"
    return ""


def serve(listening: socket.socket) -> None:
    """Serve clients one after another, as they say."""
    while True:
        accepted, _ = listening.accept()
        with accepted, contextlib.suppress(ConnectionError):
            said = accepted.recv(5)
            if said == b"Break":
                break_off(accepted)
                continue
            if said == b"Bhalf":
                accepted.recv(1)
            accepted.sendall(BULK if said == b"Bmuch" else said)
            if said == b"Bstay":
                accepted.recv(1)
