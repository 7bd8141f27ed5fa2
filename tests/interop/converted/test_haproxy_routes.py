"""HAProxy that counts connections of a source, beside txmux."""

import socket

from tests.interop.children import PATIENCE, eventually
from tests.interop.converted.sidebyside import SideBySideTestCase


class ChosenTests(SideBySideTestCase):
    program = "haproxy"

    def test_connections_of_a_source_at_once(self) -> None:
        self.start(
            """
            frontend f
                bind 127.0.0.1:<port>
                stick-table type ip size 10k expire 30s store conn_cur
                tcp-request connection track-sc0 src
                tcp-request connection reject if { sc0_conn_cur gt 2 }
                default_backend a
            backend a
                server s <a>
            """
        )
        self.assertNotIn("LOOK", self.found.text)
        for ports in self.ports:
            held = [self.held(ports["port"]) for _ in range(2)]
            self.assertEqual([one.recv(9) for one in held], [b"a\n", b"a\n"])
            self.assertFalse(self.is_served(ports["port"]))
            with self.held(ports["port"], "127.0.0.2") as other:
                self.assertEqual(other.recv(9), b"a\n")
            held[0].close()
            eventually(lambda port=ports["port"]: self.is_served(port), "there is room again")  # type: ignore[misc]
            held[1].close()

    def held(self, port: int, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))

    def is_served(self, port: int) -> bool:
        try:
            with self.held(port) as client:
                return client.recv(9) == b"a\n"
        except ConnectionResetError:
            return False

    def test_connections_of_a_source_in_a_while(self) -> None:
        self.start(
            """
            frontend f
                bind 127.0.0.1:<port>
                tcp-request connection track-sc0 src table rates
                tcp-request connection reject if { sc0_conn_rate(rates) gt 5 }
                default_backend a
            backend a
                server s <a>
            backend rates
                stick-table type ip size 10k expire 2m store conn_rate(1m)
            """
        )
        self.assertNotIn("LOOK", self.found.text)
        for ports in self.ports:
            answers = [self.is_served(ports["port"]) for _ in range(7)]
            self.assertEqual(answers, [True] * 5 + [False] * 2)
