"""Servers that send their name, behind another program and behind txmux with its converted configuration."""

import contextlib
import socket
import ssl
from typing import Any

from tests.interop.children import PATIENCE
from tests.support.echo import ThreadServer
from tests.support.proc import halted

HTTP = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


def client_hello(name: str | None, context: ssl.SSLContext | None = None) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = context or ssl.create_default_context()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HELLO = client_hello("www.example.com")
HALF_HELLO = HELLO[:3]


class Named(ThreadServer):
    """A server that sends its name, or calls `answer`, in a thread for each connection."""

    def __init__(self, test: Any, name: str = "", *, answer: Any = None, **where: Any) -> None:
        self.name = name
        self.heard: list[bytes] = []
        super().__init__(answer or self._greet, **where)
        clean = "addClassCleanup" if isinstance(test, type) else "addCleanup"
        getattr(test, clean)(self.end)

    def _greet(self, connection: socket.socket) -> None:
        connection.sendall(f"{self.name}\n".encode())
        while connection.recv(4096):
            pass


def said_at_once(processes: list[int], clients: list[tuple[int, bytes, str]]) -> list[str]:
    """Connect clients (port, first bytes, source address) while these processes are stopped; return what each receives."""
    with contextlib.ExitStack() as opened:
        connected = []
        with halted(processes):
            for port, data, source in clients:
                client = opened.enter_context(_connected(port, source))
                client.sendall(data)
                connected.append(client)
        return [_answer(client) for client in connected]


def _connected(port: int, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))


def _answer(client: socket.socket) -> str:
    heard = b""
    with contextlib.suppress(ConnectionError):
        while not heard.endswith(b"\n") and (piece := client.recv(4096)):
            heard += piece
    return heard.decode().strip()
