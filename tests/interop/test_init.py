"""``txmux init`` in a network with real servers: what it writes is run as it is."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.interop.children import Child, output_of, run
from tests.interop.scenario import ScenarioTestCase
from tests.interop.servers import make_certificate, start_nginx, start_redis, start_sshd

if TYPE_CHECKING:
    from pathlib import Path


_SITES = """
server {{
    listen 127.0.0.1:8080;
    location / {{ return 200 "by HTTP\\n"; }}
}}
server {{
    listen 443 ssl;
    ssl_certificate {pem};
    ssl_certificate_key {pem};
    location / {{ return 200 "by HTTPS\\n"; }}
}}
"""


class InitTests(ScenarioTestCase):
    """With nginx, OpenSSH and Redis, and a port that nobody knows."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        certificate = make_certificate(cls.folder, "localhost")
        cls.share(start_nginx(cls.folder, _SITES.format(pem=certificate.both)))
        cls.ssh = cls.share(start_sshd(cls.folder, 22))
        cls.share(start_redis(cls.folder, 6379))
        cls.share(Child("nc", "-l", "-k", "-v", "127.0.0.1", "7777")).wait_for("[Ll]istening on")

    def written(self, *options: str) -> Path:
        path = self.folder / "rules.ini"
        output_of(sys.executable, "-m", "txmux", "init", "--force", "-o", path, *options)
        output_of(sys.executable, "-m", "txmux", "check", path)
        return path

    def test_each_protocol_reaches_its_server(self) -> None:
        for options in ((), ("--probe",)):
            path = self.written(*options)
            self.assertIn("# Port 443 is taken by nginx.", path.read_text())
            self.assertIn("nc at 127.0.0.1:7777: not recognised.", path.read_text())
            output_of(sys.executable, "-m", "txmux", "check", "--connect", path)
            mux = self.own(Child(sys.executable, "-m", "txmux", "run", path))
            mux.wait_for(r"listening on \S*:8443 ")
            ssh = (*self.ssh.options, "-p", "8443", "127.0.0.1", "echo by SSH")
            self.assertEqual(output_of("ssh", *ssh), b"by SSH\n")
            curl = ("curl", "-q", "-sS", "--insecure")
            self.assertEqual(output_of(*curl, "http://127.0.0.1:8443/"), b"by HTTP\n")
            self.assertEqual(output_of(*curl, "https://127.0.0.1:8443/"), b"by HTTPS\n")
            self.assertEqual(output_of("redis-cli", "-p", "8443", "PING"), b"PONG\n")
            mux.end()

    def test_without_privilege_goes_by_ports(self) -> None:
        program = ("setpriv", "--reuid=nobody", "--clear-groups", sys.executable)
        if os.geteuid() or run(*program, "-c", "import txmux").returncode:
            self.skipTest("nobody cannot run this Python")
        text = output_of(*program, "-m", "txmux", "init").decode()
        self.assertIn("# a program at 127.0.0.1:22: SSH, by its port.", text)
        self.assertIn("# a program at 127.0.0.1:6379: redis, by its port.", text)
