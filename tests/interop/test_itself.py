"""Servers whose port the system takes for local ports as well, while nobody listens there."""

from __future__ import annotations

import sys

from tests.interop.children import InteropTestCase, output_of
from tests.interop.mux import Mux
from tests.interop.namespaces import Namespace
from tests.interop.pools_case import pool_rules

_CLIENTS = """
import socket, sys
for number in range(40):
    with socket.socket() as client:
        client.bind(("127.0.0.1", 50000 + number))
        client.connect(("127.0.0.1", int(sys.argv[1])))
        client.sendall(b"x")
        try:
            print(client.recv(100))
        except OSError as problem:
            print(problem)
"""


class ItselfTests(InteropTestCase):
    """A network whose system has two local ports."""

    def test_nobody_gets_their_own_bytes_back(self) -> None:
        for settings in ("relay = kernel", "relay = portable"):
            for more in ("eject = off", "eject = off\ncheck = tcp interval=50ms"):
                network = Namespace(self)
                network.set("ipv4/ip_local_port_range", "30000 39999")
                rules = pool_rules("127.0.0.1:40000", more=more)
                mux = Mux(self.folder, rules, settings, before=network.command)
                self.addCleanup(mux.stop)
                network.set("ipv4/ip_local_port_range", "40000 40001")
                client = (*network.command, sys.executable, "-c", _CLIENTS, str(mux.port))
                self.assertEqual({*output_of(*client).decode().split("\n")}, {"b''", ""})
                reasons = {line["reason"] for line in mux.take(40)}
                self.assertLessEqual(reasons, {"connect-refused", "no-server"})
