"""PROXY protocol headers as nginx and HAProxy read them: they must see the real clients."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar
from unittest import SkipTest

from tests.interop.children import InteropTestCase, has_ipv6, output_of
from tests.interop.mux import Mux
from tests.interop.servers import make_certificate, start_haproxy, start_nginx
from tests.support.ports import free_port

if TYPE_CHECKING:
    from tests.interop.children import Child
    from tests.interop.servers import Certificate

_SITE = """
log_format proxied "proxied [$proxy_protocol_addr]:$proxy_protocol_port to "
    "[$proxy_protocol_server_addr]:$proxy_protocol_server_port for $request";
server {{
    listen 127.0.0.1:{ports[plain]} proxy_protocol;
    access_log /dev/stdout proxied;
    location / {{ return 200 "hello\\n"; }}
}}
server {{
    listen 127.0.0.1:{ports[secure]} ssl proxy_protocol;
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};
    access_log /dev/stdout proxied;
    location / {{ return 200 "hello\\n"; }}
}}
"""

_RULES = """
[listen v1]
endpoint = :0

[listen v2]
endpoint = :0

[route http-v1]
match   = http
under   = v1
backend = plain-v1

[route http-v2]
match   = http
under   = v2
backend = plain-v2

[route tls]
match   = tls
backend = secure

[backend plain-v1]
server         = 127.0.0.1:{ports[plain]}
proxy_protocol = v1

[backend plain-v2]
server         = 127.0.0.1:{ports[plain]}
proxy_protocol = v2

[backend secure]
server         = 127.0.0.1:{ports[secure]}
proxy_protocol = v2
"""


class ProxyProtocolTests(InteropTestCase):
    """One nginx that wants the header, behind listeners on every address, IPv4 and IPv6."""

    certificate: ClassVar[Certificate]
    nginx: ClassVar[Child]
    mux: ClassVar[Mux]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "www.example.com")
        ports = {name: free_port() for name in ("plain", "secure")}
        cls.nginx = start_nginx(cls.folder, _SITE.format(ports=ports, certificate=cls.certificate))
        cls.addClassCleanup(cls.nginx.end)
        cls.mux = cls.share(Mux(cls.folder, _RULES.format(ports=ports)))

    def assert_client_seen(self, scheme: str, listener: str, host: str) -> None:
        port = self.mux.ports[listener]
        said = output_of(
            "curl",
            *("-q", "-sS", "--cacert", self.certificate.chain),
            *("--connect-to", f"www.example.com:{port}:[{host}]:{port}"),
            *("--write-out", "%{local_ip} %{local_port}"),
            f"{scheme}://www.example.com:{port}/{listener}",
        ).decode()
        greeting, client = said.splitlines()
        address, client_port = client.split()
        self.assertEqual((greeting, address), ("hello", host))
        seen = f"proxied [{host}]:{client_port} to [{host}]:{port} for GET /{listener} "
        self.nginx.wait_for(re.escape(seen))
        shown = f"[{host}]" if ":" in host else host
        line = self.mux.take_one(listener)
        self.assertEqual(
            (line["client"], line["local"]), (f"{shown}:{client_port}", f"{shown}:{port}")
        )

    def test_ipv4(self) -> None:
        for listener in ("v1", "v2"):
            self.assert_client_seen("http", listener, "127.0.0.1")

    def test_ipv6(self) -> None:
        if not has_ipv6():
            raise SkipTest("this machine has no IPv6")
        for listener in ("v1", "v2"):
            self.assert_client_seen("http", listener, "::1")

    def test_header_goes_before_tls(self) -> None:
        self.assert_client_seen("https", "v2", "127.0.0.1")
        if has_ipv6():
            self.assert_client_seen("https", "v1", "::1")


_FRONTEND = """
frontend proxied
    bind 127.0.0.1:{port} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
"""


class HaproxyTests(InteropTestCase):
    """The program that the protocol comes from."""

    def test_clients_in_both_versions_and_families(self) -> None:
        port = free_port()
        self.own(start_haproxy(self.folder, _FRONTEND.format(port=port)))
        mux = self.own(
            Mux(self.folder, _RULES.format(ports=dict.fromkeys(("plain", "secure"), port)))
        )
        for listener in mux.ports.values():
            for host in ("127.0.0.1", "::1") if has_ipv6() else ("127.0.0.1",):
                said = output_of(
                    "curl",
                    *("-q", "-sS", "--connect-to", f"::[{host}]:{listener}"),
                    *("--write-out", "\n%{local_ip} %{local_port} %{remote_ip} %{remote_port}"),
                    "http://www.example.com/",
                )
                seen, meant = said.decode().splitlines()
                self.assertEqual(seen, meant)
