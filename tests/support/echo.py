import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from tests.support.ports import stop_listening

Talk = Callable[[socket.socket], object]


class ThreadServer:
    """Calls `serve` with each connection, and closes that when it returns; a connection that breaks is no error.

    Attributes:
        port: Where it listens.
    """

    def __init__(
        self, serve: Talk, host: str = "127.0.0.1", port: int = 0, listening: Any = None
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = listening or socket.create_server((host, port), family=family, backlog=1024)
        self._listening: socket.socket = listening
        self.port: int = self._listening.getsockname()[1]
        self._serve = serve
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listening.accept()
                self._open.append(accepted)
                thread = threading.Thread(target=self._talk, args=[accepted], daemon=True)
                self._threads.append(thread)
                thread.start()

    def _talk(self, accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(OSError):
            self._serve(accepted)

    def wait(self, seconds: float) -> None:
        stop_listening(self._listening)
        for thread in self._threads:
            thread.join(seconds)

    def end(self) -> None:
        stop_listening(self._listening)
        self._threads[0].join()
        for accepted in self._open:
            # A mere close would leave its thread waiting.
            with contextlib.suppress(OSError):  # it has ended
                accepted.shutdown(socket.SHUT_RDWR)


class EchoServer(ThreadServer):
    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(self._echo, host)

    @staticmethod
    def _echo(accepted: socket.socket) -> None:
        while data := accepted.recv(2**16):
            accepted.sendall(data)
