"""A chain of three txmux, with HAProxy and nginx at its end: the client's address, and what was known of it, arrives."""

from __future__ import annotations

import itertools
import socket
from typing import TYPE_CHECKING, ClassVar

from tests.interop.children import PATIENCE, InteropTestCase, has_ipv6, output_of, run
from tests.interop.mux import Mux
from tests.interop.servers import make_certificate, start_haproxy, start_nginx_stream
from tests.support.ports import free_port

if TYPE_CHECKING:
    from tests.interop.mux import Record
    from tests.interop.servers import Certificate

_HOSTS = ("127.0.0.1", "::1") if has_ipv6() else ("127.0.0.1",)

_STREAM = """
server {{
    listen 127.0.0.1:{port} proxy_protocol;
    return "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port\\n";
}}
"""

_HAPROXY = """
frontend site
    bind 127.0.0.1:{port} accept-proxy ssl crt {pem} alpn h2,http/1.1
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_authority] %[fc_pp_unique_id]"
"""

_LAST = """
[listen public]
endpoint          = 127.0.0.1:0
accept_proxy_from = 127.0.0.1

[route site]
match   = tls
backend = site

[route stream]
match   = ssh
backend = stream

[backend site]
server         = 127.0.0.1:{site}
proxy_protocol = v2
proxy_tlvs     = crc32c

[backend stream]
server         = 127.0.0.1:{stream}
proxy_protocol = v1
"""

_MIDDLE = """
[listen public]
endpoint          = 127.0.0.1:0
accept_proxy_from = 127.0.0.1

[route everything]
match   = any
backend = next

[backend next]
server         = 127.0.0.1:{port}
proxy_protocol = v2
"""

_FIRST = """
[listen public]
endpoint = :0

[route tls]
match   = tls
backend = next

[route ssh]
match   = ssh
backend = next

[backend next]
server         = 127.0.0.1:{port}
proxy_protocol = v2
proxy_tlvs     = authority, alpn, unique-id, crc32c
"""


class ChainTests(InteropTestCase):
    """Three services, of which the second and the third take their predecessor's word."""

    certificate: ClassVar[Certificate]
    chain: ClassVar[list[Mux]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "www.example.com")
        site, stream = free_port(), free_port()
        cls.share(start_haproxy(cls.folder, _HAPROXY.format(port=site, pem=cls.certificate.both)))
        cls.share(start_nginx_stream(cls.folder, _STREAM.format(port=stream)))
        cls.chain = []
        for rules in (_LAST, _MIDDLE, _FIRST):
            port = cls.chain[-1].port if cls.chain else 0
            mux = cls.share(Mux(cls.folder, rules.format(site=site, stream=stream, port=port)))
            cls.chain.append(mux)

    def records(self) -> list[Record]:
        return [mux.take_one() for mux in reversed(self.chain)]

    def test_last_knows_client_name_and_first_id(self) -> None:
        port = self.chain[-1].port
        for host in _HOSTS:
            said = output_of(
                "curl",
                *("-q", "-sS", "--cacert", self.certificate.chain),
                *("--connect-to", f"::[{host}]:{port}"),
                *("--write-out", "\n%{local_ip} %{local_port} %{remote_ip} %{remote_port}"),
                "https://www.example.com/",
            ).decode()
            seen, meant = said.splitlines()
            records = self.records()
            self.assertEqual(seen, f"{meant} www.example.com {records[0]['id']}")
            self.assertEqual(len({record["client"] for record in records}), 1)
            self.assertEqual(len({record["local"] for record in records}), 1)
            self.assertNotIn("proxy_peer", records[0]["facts"])
            for before, record in itertools.pairwise(records):
                facts = record["facts"]
                self.assertEqual(facts["authority"], "www.example.com")
                self.assertIn(facts["alpn"], ("h2", "h2,http/1.1"))
                self.assertEqual(facts["unique_id"], records[0]["id"])
                self.assertEqual(
                    (record["bytes_in"], record["bytes_out"]),
                    (before["bytes_in"], before["bytes_out"]),
                )

    def test_version_1_at_the_end(self) -> None:
        for host in _HOSTS:
            with socket.create_connection((host, self.chain[-1].port), timeout=PATIENCE) as client:
                client.sendall(b"SSH-2.0-test\r\n")
                said = client.makefile("rb").readline().decode()
                ends = [*client.getsockname()[:2], *client.getpeername()[:2]]
            self.assertEqual(said.split(), [str(part) for part in ends])
            self.records()


_ENDS_TLS = """
[listen public]
endpoint = 127.0.0.1:0

[route ends-tls]
match         = tls
terminate_tls = {pem}
alpn          = http/1.1
tls_client_ca = {ca}

[route inside]
match   = http
under   = ends-tls
backend = next

[backend next]
server         = 127.0.0.1:{port}
proxy_protocol = v2
proxy_tlvs     = authority, alpn, ssl, unique-id, crc32c
"""

_READS = """
[listen public]
endpoint          = 127.0.0.1:0
accept_proxy_from = 127.0.0.1

[route http]
match   = http
backend = close
"""


class EndedTlsTests(InteropTestCase):
    """Two services, of which the first ends TLS."""

    def test_tls_and_certificate_are_told(self) -> None:
        own = make_certificate(self.folder, "www.example.com")
        client = make_certificate(self.folder, "client")
        second = self.own(Mux(self.folder, _READS))
        first = Mux(self.folder, _ENDS_TLS.format(pem=own.both, ca=client.chain, port=second.port))
        self.addCleanup(first.stop)
        run(
            "curl",
            *("-q", "-sS", "--cacert", own.chain, "--cert", client.chain, "--key", client.key),
            *("--connect-to", f"::127.0.0.1:{first.port}"),
            "https://www.example.com/",
        )
        before, record = first.take_one(), second.take_one()
        facts = record["facts"]
        self.assertEqual(record["client"], before["client"])
        wanted = {
            "authority": "www.example.com",
            "alpn": "http/1.1",
            "unique_id": before["id"],
            "ssl_version": "TLSv1.3",
            "ssl_cn": "client",
            "ssl_verified": "yes",
        }
        self.assertEqual({name: facts.get(name) for name in wanted}, wanted)
