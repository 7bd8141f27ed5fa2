"""`keep-clients-out/places.ini` with databases of the test."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from tests.interop.children import PATIENCE, eventually
from tests.interop.originals import client_hello
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.support.places import country, system, write_places

if TYPE_CHECKING:
    from pathlib import Path

_PUBLIC, _PROVIDER, _FRENCH, _GERMAN = "192.0.2.1", "203.0.113.7", "198.51.100.7", "198.51.100.8"


class PlacesTests(ScenarioTestCase):
    """The example; servers tell which of them they are."""

    addresses = (_PUBLIC, _PROVIDER, _FRENCH, _GERMAN)

    def setUp(self) -> None:
        super().setUp()
        self.databases = self.make_folder("GeoIP")
        countries = {f"{_FRENCH}/32": country("FR"), f"{_GERMAN}/32": country("DE")}
        write_places(self.database("Country"), countries)
        write_places(self.database("ASN"), {"203.0.113.0/24": system(64500)})
        self.servers = {port: socket.create_server(("127.0.0.1", port)) for port in (8443, 9443)}
        for server in self.servers.values():
            self.addCleanup(server.close)
        rules = EXAMPLES / "keep-clients-out/places.ini"
        self.mux = self.own(Example(rules, {"/var/lib": self.databases.parent}))

    def database(self, name: str) -> Path:
        return self.databases / f"GeoLite2-{name}.mmdb"

    def leads(self, client: str, name: str) -> int:
        """Connect a client of a site, and give the port of the server that it comes to; 0 if it is closed."""
        with socket.create_connection((_PUBLIC, 443), PATIENCE, (client, 0)) as connected:
            with contextlib.suppress(OSError):
                connected.sendall(client_hello(name))
            return self._wait(connected)

    def _wait(self, client: socket.socket) -> int:
        client.settimeout(0.01)
        while True:
            for port, server in self.servers.items():
                server.settimeout(0.01)
                with contextlib.suppress(TimeoutError):
                    server.accept()[0].close()
                    return port
            try:
                client.recv(1)
            except TimeoutError:
                continue
            except OSError:
                return 0
            return 0

    def test_places(self) -> None:
        """Clients of the country come to the operators' site, those of the provider nowhere; a database that is renewed counts."""
        self.assertEqual(self.leads(_FRENCH, "admin.example.com"), 9443)
        self.assertEqual(self.leads(_GERMAN, "admin.example.com"), 8443)
        self.assertEqual(self.leads(_GERMAN, "www.example.com"), 8443)
        self.assertEqual(self.leads(_PROVIDER, "www.example.com"), 0)
        write_places(self.database("ASN"), {f"{_GERMAN}/32": system(64501)})
        eventually(lambda: self.leads(_GERMAN, "www.example.com") == 0, "the provider is kept out")
        eventually(lambda: self.leads(_PROVIDER, "www.example.com") == 8443, "the other comes in")
