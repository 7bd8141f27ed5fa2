"""What real clients tell their users when they are rejected."""

import subprocess
from pathlib import Path

from tests.support.kit import RELAYS, InteropTestCase, Service, free_port, make_certificate, run

_RULES = """
[listen public]
endpoint = 127.0.0.1:0
default = reject
[route down]
match = http path=/down*
    ssh software=OpenSSH*
backend = down
[route ended]
match = tls sni=inside.example
terminate_tls = {both}
[route inside]
under = ended
match = http
backend = reject
[backend down]
server = 127.0.0.1:{port}
fallback = reject
"""


class ClientTests(InteropTestCase):
    def curl(
        self, *options: str | Path, path: str = "x", scheme: str = "http"
    ) -> subprocess.CompletedProcess[bytes]:
        url = f"{scheme}://127.0.0.1:{self.mux.port}/{path}"
        return run("curl", "--silent", "--show-error", "--include", *options, url)

    def assert_reason(self, reason: str) -> None:
        self.assertEqual(self.mux.take_one()["reason"], reason)

    def test_both_relays(self) -> None:
        both = make_certificate(self.folder, "inside.example").both
        rules = _RULES.format(port=free_port(), both=both)
        for relay in RELAYS:
            with self.subTest(relay):
                self.mux = self.own(Service(self.folder, rules, f"relay = {relay}"))
                self.assert_told()

    def assert_told(self) -> None:
        done = self.curl()
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertTrue(done.stdout.startswith(b"HTTP/1.1 403 Forbidden\r\n"))
        self.assertTrue(done.stdout.endswith(b"\r\n\r\n403 Forbidden\n"))
        self.assert_reason("no-route")
        done = self.curl("--head", path="down")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertTrue(done.stdout.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"))
        self.assertTrue(done.stdout.endswith(b"\r\n\r\n"))
        self.assert_reason("connect-refused")
        refused = ("down", b"503", "connect-refused")
        for path, status, reason in (("x", b"403", "no-route"), refused):
            done = self.curl("--http2-prior-knowledge", path=path)
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            self.assertTrue(done.stdout.startswith(b"HTTP/2 " + status))
            self.assert_reason(reason)

        for version in ("1.2", "1.3"):
            done = self.curl("--insecure", f"--tlsv{version}", "--tls-max", version, scheme="https")
            self.assertEqual(done.returncode, 35)
            self.assertIn(b"unrecognized name", done.stderr)
            self.assert_reason("no-route")
        address = f"127.0.0.1:{self.mux.port}"
        there = ("--connect-to", f"::{address}", "https://inside.example/")
        done = run("curl", "--silent", "--include", "--insecure", "--http1.1", *there)
        self.assertRegex(done.stdout, rb"\AHTTP/1.1 403 Forbidden\r\n(?s:.*)403 Forbidden\n\Z")
        self.assert_reason("denied")
        for version in ("tls1", "tls1_1", "tls1_2", "tls1_3"):
            weak = ("-cipher", "ALL:@SECLEVEL=0")
            done = run("openssl", "s_client", "-connect", address, f"-{version}", *weak)
            self.assertIn(b"SSL alert number 112", done.stderr)
            self.assert_reason("no-route")

        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes")
        given = [word for option in options for word in ("-o", option)]
        done = run("ssh", "-F", "none", *given, "-p", str(self.mux.port), "nobody@127.0.0.1")
        self.assertEqual(done.returncode, 255)
        self.assertIn(b": no server can be reached", done.stderr)
        self.assertIn(b"Received disconnect from 127.0.0.1 ", done.stderr)
        self.assert_reason("connect-refused")

        done = run("redis-cli", "-p", str(self.mux.port), "GET", "x")
        self.assertIn(b"ERR not allowed here", done.stdout)
        self.assert_reason("no-route")
