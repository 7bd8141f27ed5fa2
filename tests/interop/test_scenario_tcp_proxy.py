"""`tcp-proxy.ini` and `tcp-proxy.py` with two MariaDB servers, which speak first."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from tests.interop.children import Child, output_of
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import start_mariadb

if TYPE_CHECKING:
    from collections.abc import Iterator

_PUBLIC = "192.0.2.1"
_SERVERS = ("10.0.0.1", "10.0.0.2")
_AT_ONCE = 4.5
"""Seconds; less than the five in which who waits for a first byte gives up."""


class TcpProxyTests(ScenarioTestCase):
    """Both examples lead to the same servers."""

    addresses = (_PUBLIC, *_SERVERS)

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for address in _SERVERS:
            cls.share(start_mariadb(cls.make_folder(address), address=address))

    def ask(self, port: int) -> str:
        options = ("--no-defaults", "--protocol=tcp", "-h", _PUBLIC, "-u", "tests", "-N")
        query = ("-e", "SELECT @@bind_address")
        return output_of("mariadb", *options, "-P", str(port), *query).decode().strip()

    def greetings(self, port: int, count: int) -> Iterator[bytes]:
        for _ in range(count):
            with socket.create_connection((_PUBLIC, port), timeout=_AT_ONCE) as client:
                yield client.recv(100)[4:6]

    def test_rules_lead_to_both_at_once(self) -> None:
        mux = self.own(Example(EXAMPLES / "tcp-proxy.ini"))
        self.assertEqual({self.ask(3306) for _ in range(4)}, {*_SERVERS})
        for line in mux.take(4):
            self.assertEqual((line["backend"], line["reason"]), ("database", "done"))
            self.assertLess(float(line["detect_ms"]), 1000)
        self.assertEqual(list(self.greetings(3306, 2)), 2 * [b"\x0a5"])

    def run_program(self, *addresses: str) -> None:
        targets = [f"{address}:3306" for address in addresses]
        program = EXAMPLES / "tcp-proxy.py"
        child = self.own(Child(sys.executable, program, "tcp:3307", *targets))
        child.wait_for("leads to")

    def test_library(self) -> None:
        self.run_program(*_SERVERS)
        self.assertEqual([self.ask(3307) for _ in range(4)], 2 * [*_SERVERS])
        self.assertEqual(list(self.greetings(3307, 2)), 2 * [b"\x0a5"])

    def test_server_is_gone(self) -> None:
        self.run_program(_PUBLIC, _SERVERS[1])
        self.assertEqual({self.ask(3307) for _ in range(4)}, {_SERVERS[1]})
