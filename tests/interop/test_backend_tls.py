"""TLS to real servers: nginx through the whole service, and OpenSSL's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.backends.connect.tls_case import TLSCase, authority
from tests.interop.children import Child, InteropTestCase, output_of
from tests.interop.mux import Mux
from tests.interop.servers import start_nginx
from tests.support.certificates import make_authority
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.certificates import Identity


class OpensslTests(TLSCase):
    """``openssl s_server``, which sends each line back with its letters reversed."""

    def serve(self, *options: str | Path, identity: Identity | None = None) -> int:
        made = identity or authority().issue("a.example")
        path = made.write(self.folder / "server.pem", key=True)
        port = free_port()
        child = Child(
            "openssl",
            *("s_server", "-accept", f"127.0.0.1:{port}", "-cert", path, "-key", path, "-rev"),
            *options,
            stdin=True,
        )
        self.addCleanup(child.end)
        child.wait_for("ACCEPT")
        return port

    async def test_both_ways_in_tls_1_2_and_1_3(self) -> None:
        for version in ("-tls1_2", "-tls1_3"):
            client: Any = await self.attempt(self.tls(), self.serve(version))
            client.transport.write(b"hello\n")
            await client.receiver.has(6)
            self.assertEqual(bytes(client.receiver.received), b"olleh\n")

    async def test_client_certificate(self) -> None:
        path = authority().issue("txmux.example", usage=False)
        file = path.write(self.folder / "client.pem", key=True)
        port = self.serve("-Verify", "1", "-verify_return_error", "-CAfile", self.ca, "-tls1_2")
        # It serves one client after the other.
        self.assertRegex(
            await self.why_not(self.tls(), port), "ended the TLS handshake with the alert '.*'$"
        )
        client: Any = await self.attempt(self.tls(certificate=(file,)), port)
        client.transport.write(b"hello\n")
        await client.receiver.has(6)

    async def test_no_common_protocol(self) -> None:
        port = self.serve("-alpn", "h2")
        why = await self.why_not(self.tls(alpn=("imap",)), port)
        self.assertEqual(why, "it ended the TLS handshake with the alert 'no application protocol'")

    async def test_expired_is_told(self) -> None:
        port = self.serve(identity=authority().issue("a.example", ends=-1))
        self.assertRegex(await self.why_not(self.tls(), port), "^its certificate expired on ")


_SITE = """
log_format proxied "from [$proxy_protocol_addr] as $ssl_server_name by $ssl_protocol";
server {{
    listen 127.0.0.1:{ports[good]} ssl proxy_protocol;
    ssl_certificate {folder}/good.pem;
    ssl_certificate_key {folder}/good.pem;
    access_log /dev/stdout proxied;
    location / {{ return 200 "hello\\n"; }}
}}
server {{
    listen 127.0.0.1:{ports[bad]} ssl;
    ssl_certificate {folder}/bad.pem;
    ssl_certificate_key {folder}/bad.pem;
    location / {{ return 200 "never seen\\n"; }}
}}
"""

_RULES = """
[route bad]
match   = http host=bad.example
backend = bad

[route good]
match   = http
backend = good

[backend good]
server         = 127.0.0.1:{ports[good]}
proxy_protocol = v2
tls            = yes
tls_name       = www.example.com
tls_ca         = {folder}/ca.pem

[backend bad]
server   = 127.0.0.1:{ports[bad]}
tls      = yes
tls_name = www.example.com
tls_ca   = {folder}/ca.pem
"""


class NginxTests(InteropTestCase):
    """nginx behind TLS, and the PROXY protocol's header before it."""

    def test_service(self) -> None:
        """HTTP becomes HTTPS, the server logs the client's address, and a bad certificate harms nobody else."""
        root = make_authority()
        root.write(self.folder / "ca.pem")
        root.issue("www.example.com").write(self.folder / "good.pem", key=True)
        root.issue("www.example.com", ends=-1).write(self.folder / "bad.pem", key=True)
        ports = {name: free_port() for name in ("good", "bad")}
        nginx = self.own(start_nginx(self.folder, _SITE.format(folder=self.folder, ports=ports)))
        mux = self.own(Mux(self.folder, _RULES.format(folder=self.folder, ports=ports)))
        url = f"http://127.0.0.1:{mux.port}/"
        for _ in range(2):
            with mux.connect() as refused:
                refused.sendall(b"GET / HTTP/1.1\r\nHost: bad.example\r\n\r\n")
                self.assertEqual(refused.recv(100), b"")
            self.assertEqual(mux.take_fields("backend", "reason"), ("bad", "tls-failed"))
            said = output_of("curl", "-q", "-sS", "--interface", "127.0.0.1", url)
            self.assertEqual(said, b"hello\n")
            self.assertEqual(mux.take_fields("backend", "reason"), ("good", "done"))
        nginx.wait_for(r"from \[127\.0\.0\.1\] as www\.example\.com by TLSv1\.[23]")
        mux.child.wait_for("its certificate expired on")
