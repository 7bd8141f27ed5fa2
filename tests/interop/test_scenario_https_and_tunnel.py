"""`https-and-tunnel.ini` with nginx and two Shadowsocks servers."""

from __future__ import annotations

import socket

from tests.interop.children import PATIENCE, Child, output_of
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import make_certificate, proxied_site, start_nginx, start_sshd

_BEYOND = """
log_format client "$remote_addr $ssl_server_name";
server {
    listen 198.51.100.80:80;
    location / { return 200 "beyond the tunnel\\n"; }
}
"""

_CLIENT = "198.51.100.7"
_SERVERS = ("192.0.2.10", "192.0.2.11")
_SECRET = ("-k", "a secret of the tests", "-m", "chacha20-ietf-poly1305", "-t", "600")


class HttpsAndTunnelTests(ScenarioTestCase):
    """The example file."""

    addresses = (_CLIENT, "198.51.100.80", "203.0.113.1", *_SERVERS)

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "www.example.com")
        log = f"access_log {cls.folder}/clients.log client;"
        site = proxied_site(cls.certificate, "the site", log)
        cls.share(start_nginx(cls.folder, _BEYOND + site))
        tunnel = Child("ss-local", "-s", "203.0.113.1", "-p", "443", "-l", "1080", *_SECRET)
        cls.share(tunnel).wait_for("listening at")

    def setUp(self) -> None:
        self.servers = [self.start_server(address) for address in _SERVERS]

    def start_mux(self) -> None:
        self.mux = self.own(Example(EXAMPLES / "https-and-tunnel.ini"))

    def start_server(self, address: str) -> Child:
        server = self.own(Child("ss-server", "-s", address, "-p", "8388", "-v", *_SECRET))
        server.wait_for("tcp server listening at")
        return server

    def through_the_tunnel(self) -> str:
        said = output_of(
            *("curl", "-q", "-sS", "--noproxy", "", "--socks5", "127.0.0.1:1080"),
            "http://198.51.100.80/",
        )
        self.assertEqual(said, b"beyond the tunnel\n")
        line = self.mux.take_one()
        self.assertEqual((line["route"], line["backend"]), ("-", "tunnel"))
        return str(line["server"])

    def test_site_logs_the_clients_address(self) -> None:
        self.start_mux()
        said = output_of(
            *("curl", "-q", "-sS", "--cacert", self.certificate.chain, "--interface", _CLIENT),
            *("--resolve", "www.example.com:443:203.0.113.1", "https://www.example.com/"),
        )
        self.assertEqual(said, b"the site\n")
        line = self.mux.take_one()
        self.assertEqual((line["route"], line["reason"]), ("site", "done"))
        self.assertTrue(line["client"].startswith(f"{_CLIENT}:"))
        log = self.folder / "clients.log"
        self.assertEqual(log.read_text(), f"{_CLIENT} www.example.com\n")

    def test_backup(self) -> None:
        """The tunnel's clients reach the first server; while it is down the second one, and afterwards the first again."""
        self.start_mux()
        first, second = (f"{address}:8388" for address in _SERVERS)
        self.assertEqual([self.through_the_tunnel() for _ in range(3)], 3 * [first])
        self.servers[0].end()
        self.assertEqual(self.through_the_tunnel(), second)
        self.mux.child.wait_for(f"backend tunnel: {first} is down")
        self.assertEqual(self.through_the_tunnel(), second)
        self.start_server(_SERVERS[0])
        self.mux.child.wait_for(f"backend tunnel: {first} is up")
        self.assertEqual(self.through_the_tunnel(), first)

    def test_silent_client_reaches_the_tunnel(self) -> None:
        self.servers[0].end()
        self.own(start_sshd(self.folder, 8388, _SERVERS[0]))
        self.start_mux()  # who looks at servers would have found that the first one is down
        with socket.create_connection(("203.0.113.1", 443), timeout=PATIENCE) as client:
            self.assertEqual(client.recv(8), b"SSH-2.0-")
        self.assertEqual(self.mux.take_fields("backend", "bytes_in"), ("tunnel", "0"))
