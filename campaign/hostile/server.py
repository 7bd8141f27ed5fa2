"""The server behind the proxies: one process, which answers who asks, and lets all others be."""

from __future__ import annotations

import contextlib
import select
import socket

PING, PONG = b"PING\n", b"PONG\n"
_WEB = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n" + PONG
_MOST = 2**16


def serve(listening: socket.socket) -> None:
    """Serve until the process ends.

    Args:
        listening: For clients, each of which says `PING` or asks by HTTP.
    """
    listening.setblocking(False)  # noqa: FBT003 - the socket module's signature
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listening.fileno():
                with contextlib.suppress(OSError):
                    client, _ = listening.accept()
                    client.setblocking(False)  # noqa: FBT003
                    clients[client.fileno()] = client
                    poll.register(client, select.EPOLLIN)
            elif not _answer(clients[descriptor]):
                clients.pop(descriptor).close()  # which takes it out of the poll, too


def _answer(client: socket.socket) -> bool:
    """Answer a client, and tell whether it may say more."""
    try:
        said = client.recv(_MOST)
        if said.startswith(PING):
            client.send(PONG)
        elif said.startswith(b"GET "):
            client.send(_WEB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    return bool(said)
