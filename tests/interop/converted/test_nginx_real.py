"""Real clients and servers through nginx, and through txmux with what its configuration becomes."""

from __future__ import annotations

from typing import ClassVar

from tests.interop.children import output_of
from tests.interop.converted.sidebyside import NginxTestCase
from tests.interop.servers import Certificate, SshServer, make_certificate, start_nginx, start_sshd
from tests.support.ports import free_port

_SITE = """
server {{
    listen 127.0.0.1:{port} ssl proxy_protocol;
    set_real_ip_from 127.0.0.1;
    real_ip_header proxy_protocol;
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};
    location / {{ return 200 "{name} $host $remote_addr\\n"; }}
}}
"""


class RealTests(NginxTestCase):
    """OpenSSH and two sites behind one port."""

    certificate: ClassVar[Certificate]
    sshd: ClassVar[SshServer]
    sites: ClassVar[dict[str, int]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "www.example.com", "git.example.com")
        cls.sshd = cls.share(start_sshd(cls.folder))
        cls.sites = {name: free_port() for name in ("www", "git")}
        lines = (
            _SITE.format(name=name, port=port, certificate=cls.certificate)
            for name, port in cls.sites.items()
        )
        cls.share(start_nginx(cls.folder, "".join(lines)))

    def test_ssh_and_sites_that_see_the_client(self) -> None:
        self.start(
            f"""
            upstream www {{ server 127.0.0.1:{self.sites["www"]}; }}
            upstream git {{ server 127.0.0.1:{self.sites["git"]}; }}
            map $ssl_preread_server_name $site {{
                hostnames;
                git.example.com  git;
                .example.com     www;
            }}
            map $ssl_preread_protocol $up {{
                ""       ssh;
                default  $site;
            }}
            upstream ssh {{ server 127.0.0.1:<port1>; }}
            server {{
                listen 127.0.0.1:<port>;
                ssl_preread on;
                proxy_protocol on;
                proxy_pass $up;
            }}
            server {{
                # sshd takes no header
                listen 127.0.0.1:<port1> proxy_protocol;
                proxy_pass 127.0.0.1:{self.sshd.port};
            }}
            """
        )
        self.assertNotIn("LOOK", self.found.text)
        for ports in self.ports:
            port = str(ports["port"])
            said = output_of(
                "ssh", *self.sshd.options, "-p", port, "127.0.0.1", "echo", "$SSH_CLIENT"
            )
            self.assertTrue(said.startswith(b"127.0.0.1 "), said)
            for name in self.sites:
                said = output_of(
                    "curl",
                    *("--silent", "--show-error", "--cacert", str(self.certificate.chain)),
                    *("--interface", "127.0.0.5"),
                    *("--resolve", f"{name}.example.com:{port}:127.0.0.1"),
                    f"https://{name}.example.com:{port}/",
                )
                self.assertEqual(said.decode(), f"{name} {name}.example.com 127.0.0.5\n")
