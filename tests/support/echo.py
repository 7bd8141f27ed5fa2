"""An echo server, in threads of the tests."""

import contextlib
import socket
import threading

from tests.support.ports import stop_listening


class EchoServer:
    def __init__(self, host: str = "127.0.0.1") -> None:
        self._listening = socket.create_server((host, 0), backlog=1024)
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=[accepted], daemon=True).start()

    @staticmethod
    def _serve(accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(OSError):
            while data := accepted.recv(2**16):
                accepted.sendall(data)

    def end(self) -> None:
        stop_listening(self._listening)
        self._thread.join()
