"""The example with one socket for every port of a network."""

import shutil
import signal
import socket
import sys

from tests.interop.children import PATIENCE, Child, InteropTestCase
from tests.interop.namespaces import Namespace
from tests.interop.scenario import EXAMPLES


class EveryPortTest(InteropTestCase):
    def test_each_port_of_each_address(self) -> None:
        network = Namespace(self)
        network.ip("route add local 198.51.100.0/24 dev lo")
        network.ip("addr add 10.0.0.5/32 dev lo")
        network.enter()
        rules = self.folder / "rules.ini"
        shutil.copy(EXAMPLES / "every-port/rules.ini", rules)
        rules.write_text(rules.read_text().replace("user = nobody", "admin = off"))
        program = EXAMPLES / "every-port/sk_lookup.py"
        command = (sys.executable, "-m", "txmux", "run", rules)
        mux = self.own(Child(sys.executable, program, "198.51.100.0/24", *command))
        mux.wait_for("serving with")
        servers = {port: socket.create_server(("10.0.0.5", port)) for port in (8, 443, 50000)}
        for server in servers.values():
            self.addCleanup(server.close)

        def serve(address: str) -> None:
            for port, server in servers.items():
                with socket.create_connection((address, port), PATIENCE) as client:
                    client.sendall(b"hello")
                    with server.accept()[0] as accepted:
                        self.assertEqual(accepted.recv(100), b"hello")

        serve("198.51.100.7")
        mux.process.send_signal(signal.SIGHUP)
        mux.wait_for("rules reloaded")
        serve("198.51.100.255")
