"""Clients that break off at once."""

import socket
import struct
from itertools import product

from tests.interop.children import InteropTestCase
from tests.support.echo import ThreadServer
from tests.support.queues import until_taken
from tests.support.services import Service
from txmux.client.socket_options import keepalive_options
from txmux.net.sockets.plainsocket import set_options

_BREAKING = 200
_EARLY = (("[route all]\nmatch = any\nbackend = {}\n", b"hello"), ("default = {}\n", b""))
_RESET = struct.pack("ii", 1, 0)
# A reset that gets lost is not sent again: whoever has not heard of it must ask.
_ASKING = "idle=1s interval=1s count=2"
_ASKS = keepalive_options(1, 1, 2)


class _Server(ThreadServer):
    orderly = 0

    def __init__(self) -> None:
        super().__init__(self._note)

    def _note(self, accepted: socket.socket) -> None:
        set_options(accepted, _ASKS)
        while accepted.recv(100):
            pass
        self.orderly += 1


class EarlyResetTests(InteropTestCase):
    """No server may take a broken stream for a whole one, however early it broke."""

    def test_broken_before_or_after_the_first_byte(self) -> None:
        for relay, (route, said) in product(("kernel", "portable"), _EARLY):
            server = self.own(_Server())
            listen = f"[listen public]\nendpoint = 127.0.0.1:0\nkeepalive = {_ASKING}\n"
            rules = f"{listen}{route.format(f'127.0.0.1:{server.port}')}"
            mux = self.own(Service(self.folder, rules, f"relay = {relay}"))
            for _ in range(_BREAKING):
                with mux.connect() as client:
                    client.sendall(said)
                    # A reset that overtakes what is before it leaves a connection that is never accepted.
                    until_taken(client)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            reasons = {line["reason"] for line in mux.take(_BREAKING)}
            self.assertLessEqual(reasons, {"client-reset", "client-gone"})
            server.wait(20)
            self.assertEqual(server.orderly, 0, (relay, route, said))
