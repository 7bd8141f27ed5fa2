"""Clients that break off at once, while their server is being connected."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

from tests.interop.children import InteropTestCase
from tests.interop.mux import Mux
from tests.support.queues import until_taken
from txmux.net.sockets.plainsocket import keepalive_options, set_options

_CLIENTS = 200
_BY_BYTES, _AT_ONCE = "[route all]\nmatch = any\nbackend = {}\n", "default = {}\n"
_RESET = struct.pack("ii", 1, 0)
# A reset that gets lost is not sent again: whoever has not heard of it must ask.
_ASKING = "idle=1s interval=1s count=2"
_ASKS = keepalive_options(1, 1, 2)


class _Server:
    """Notes how the streams of its clients end."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listening.getsockname()[1]
        self.orderly = 0
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listening.accept()
                thread = threading.Thread(target=self._serve, args=[accepted], daemon=True)
                thread.start()
                self._threads.append(thread)

    def _serve(self, accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(OSError):
            set_options(accepted, _ASKS)
            while accepted.recv(100):
                pass
            self.orderly += 1

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(20)


class EarlyResetTests(InteropTestCase):
    """No server may take a broken stream for a whole one, however early it broke."""

    def break_off(self, relay: str, route: str, said: bytes) -> None:
        server = self.own(_Server())
        backend = f"127.0.0.1:{server.port}"
        listen = f"[listen public]\nendpoint = 127.0.0.1:0\nkeepalive = {_ASKING}\n"
        rules = f"{listen}{route.format(backend)}"
        mux = self.own(Mux(self.folder, rules, f"relay = {relay}"))
        for _ in range(_CLIENTS):
            with mux.connect() as client:
                client.sendall(said)
                # A reset that overtakes what is before it leaves a connection that is never accepted.
                until_taken(client)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        reasons = {line["reason"] for line in mux.take(_CLIENTS)}
        self.assertLessEqual(reasons, {"client-reset", "client-gone"})
        server.end()
        self.assertEqual(server.orderly, 0, (relay, route, said))

    def test_speaking(self) -> None:
        for relay in ("kernel", "portable"):
            self.break_off(relay, _BY_BYTES, b"hello")

    def test_silent_at_once(self) -> None:
        for relay in ("kernel", "portable"):
            self.break_off(relay, _AT_ONCE, b"")
