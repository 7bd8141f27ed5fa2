"""Servers that send their name, behind another program and behind txmux with its converted configuration."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Sequence

from tests.interop.children import PATIENCE, InteropTestCase
from tests.support.ports import stop_listening
from tests.support.proc import halted

HTTP = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


def client_hello(name: str) -> bytes:
    """Return a ClientHello with this server name."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HELLO = client_hello("www.example.com")
HALF_HELLO = HELLO[:3]


class Named:
    """A server that sends its name, or calls `answer`, in a thread for each connection."""

    def __init__(
        self,
        test: InteropTestCase | type[InteropTestCase],
        name: str = "",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        answer: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self.name = name
        self.heard: list[bytes] = []
        self._answer = answer or self._greet
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, port), family=family, backlog=1024)
        self.port: int = self._listening.getsockname()[1]
        self._connections: list[socket.socket] = []
        (test.addClassCleanup if isinstance(test, type) else test.addCleanup)(self._stop)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            self._answer(connection)
        except OSError:
            pass
        finally:
            connection.close()

    def _greet(self, connection: socket.socket) -> None:
        connection.sendall(f"{self.name}\n".encode())
        while connection.recv(4096):
            pass

    def _stop(self) -> None:
        stop_listening(self._listening)
        self._thread.join()
        for connection in self._connections:
            # A mere close would leave its thread waiting.
            with contextlib.suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)


def said_at_once(
    processes: Collection[int], clients: Sequence[tuple[int, bytes, str]]
) -> list[str]:
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
