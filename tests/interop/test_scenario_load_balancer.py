"""`load-balancer.ini` with several nginx and a name server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.interop.children import eventually, output_of
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import start_dnsmasq, start_nginx

if TYPE_CHECKING:
    from tests.interop.children import Child

_SERVER = """
server {{
    listen {address}:8080 proxy_protocol;
    location / {{ return 200 "{address}"; }}
    location /health {{
        if (-f {folder}/ill) {{ return 503; }}
        return 204;
    }}
}}
"""

_SORRY = """
server { listen 127.0.0.1:8081; location / { return 200 "sorry"; } }
"""

_ENDED = "10.0.0.2"
_PLAIN = ("10.0.0.1", _ENDED)
_BACKUP = "10.0.0.3"
_NAMED = ("10.0.0.11", "10.0.0.12")


class LoadBalancerTests(ScenarioTestCase):
    """The example file, with a web server at each address."""

    addresses = (*_PLAIN, _BACKUP, *_NAMED, "10.0.0.53")

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        hosts = cls.make_folder("names") / "hosts"
        hosts.write_text("".join(f"{address} web.internal.example.com\n" for address in _NAMED))
        cls.share(start_dnsmasq(hosts, "--listen-address=10.0.0.53"))
        cls.share(start_nginx(cls.make_folder("sorry"), _SORRY))
        for address in (*_PLAIN, _BACKUP, *_NAMED):
            cls.make_folder(address)
            if address != _ENDED:
                cls.share(cls.start_server(address))

    def setUp(self) -> None:
        self.server = self.own(self.start_server(_ENDED))
        self.mux = self.own(Example(EXAMPLES / "load-balancer.ini"))
        eventually(lambda: {*_NAMED} < {*self.reached()}, "the name has been looked up")

    @classmethod
    def start_server(cls, address: str) -> Child:
        folder = cls.folder / address
        return start_nginx(folder, _SERVER.format(address=address, folder=folder))

    def reached(self, count: int = 10) -> list[str]:
        """Ask as often for a page, each time by a new connection, and give the servers that answered."""
        urls = count * ["http://www.example.com/"]
        options = ("-q", "-sS", "--resolve", "www.example.com:80:127.0.0.1")
        said = output_of("curl", *options, "-H", "Connection: close", "-w", "\n", *urls)
        return said.decode().split()

    def wait_until(self, address: str, state: str) -> None:
        self.mux.child.wait_for(f" {address}:8080 is {state}")

    def test_all_but_the_backup_get_clients(self) -> None:
        self.assertEqual({*self.reached()}, {*_PLAIN, *_NAMED})

    def test_gone_and_back(self) -> None:
        """A server that is ended gets no clients and none of them sees it; once it is back, it gets some again."""
        self.server.end()
        self.assertNotIn(_ENDED, self.reached())
        self.wait_until(_ENDED, "down")
        self.assertNotIn(_ENDED, self.reached())
        self.own(self.start_server(_ENDED))
        self.wait_until(_ENDED, "up")
        self.assertIn(_ENDED, self.reached())

    def test_all_fail(self) -> None:
        """A server that says that it is not healthy gets no clients; at last the backup has them all, and then the fallback."""
        for address in (*_PLAIN, *_NAMED):
            (self.folder / address / "ill").touch()
        for address in (*_PLAIN, *_NAMED):
            self.wait_until(address, "down")
        self.assertEqual({*self.reached()}, {_BACKUP})
        (self.folder / _BACKUP / "ill").touch()
        self.wait_until(_BACKUP, "down")
        self.assertEqual({*self.reached()}, {"sorry"})
        for address in (*_PLAIN, _BACKUP, *_NAMED):
            (self.folder / address / "ill").unlink()
        for address in (*_PLAIN, *_NAMED):
            self.wait_until(address, "up")
        self.assertEqual({*self.reached()}, {*_PLAIN, *_NAMED})
