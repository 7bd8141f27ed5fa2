"""Clients of Redis that stay, many at once."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PING = b"*1\r\n$4\r\nPING\r\n"
PONG = b"+PONG\r\n"

_PATIENCE = 20.0


def connected(
    port: int, count: int, said: bytes, clients: contextlib.ExitStack
) -> list[socket.socket]:
    """Open connections one after another.

    Args:
        port: Where to connect on 127.0.0.1.
        count: How many.
        said: What each one says. If it is a whole `PING`, the answer is awaited.
        clients: Closes them at its end.

    Returns:
        Those that were opened, and answered, until the first that was not.
    """
    found: list[socket.socket] = []
    with contextlib.suppress(OSError):
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port), _PATIENCE)
            clients.enter_context(client)
            client.sendall(said)
            if said == PING and client.recv(len(PONG)) != PONG:
                break
            found.append(client)
    return found


def answering(clients: Iterable[socket.socket]) -> int:
    """Count the clients that get an answer to one more `PING`."""
    count = 0
    for client in clients:
        with contextlib.suppress(OSError):
            client.sendall(PING)
            count += client.recv(len(PONG)) == PONG
    return count
