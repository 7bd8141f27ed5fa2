"""Rules that lead clients back to where they came in, in a way that the file does not show."""

from __future__ import annotations

import socket

from tests.interop.children import PATIENCE, InteropTestCase
from tests.interop.mux import Mux
from tests.support.ports import free_port

_TWO = """
[listen one]
endpoint = 127.0.0.1:{port}

[listen two]
endpoint = 127.0.0.1:{other}

[route there]
match   = any
under   = one
backend = pool

[route back]
match   = any
under   = two
backend = 127.0.0.1:{port}

[backend pool]
server         = 127.0.0.1:{other}
proxy_protocol = v2
"""


class LoopTests(InteropTestCase):
    """The client is broken off soon."""

    def test_two_listeners_that_lead_to_each_other(self) -> None:
        for workers in (1, 2):
            port, other = free_port(), free_port()
            rules = _TWO.format(port=port, other=other)
            mux = self.own(Mux(self.folder, rules, f"workers = {workers}"))
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
                client.sendall(b"x")
                with self.assertRaises(ConnectionResetError):
                    client.recv(10)
            lines = mux.take(9)
            self.assertEqual([line["reason"] for line in lines].count("limit"), 1)
            self.assertEqual({line["reason"] for line in lines}, {"limit", "server-reset"})
            mux.child.wait_for("has come back 8 times")

    def test_asked_address(self) -> None:
        """The listener itself, where a proxy might have told of another address, and has not."""
        port = free_port()
        rules = f"[listen one]\nendpoint = 127.0.0.1:{port}\naccept_proxy_from = 127.0.0.9\ndefault = {{local}}:{port}\n"
        mux = self.own(Mux(self.folder, rules))
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(b"x")
            with self.assertRaises(ConnectionResetError):
                client.recv(10)
        self.assertEqual([line["reason"] for line in mux.take(9)].count("limit"), 1)
