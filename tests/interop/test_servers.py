"""nginx and OpenSSH through txmux, with OpenSSH's own client or curl."""

from pathlib import Path
from typing import ClassVar

from tests.interop.children import InteropTestCase, output_of, run
from tests.interop.servers import make_certificate, start_nginx, start_sshd
from tests.support.ports import free_port
from tests.support.services import Service

_SITE = """
server {{
    listen 127.0.0.1:{ports[plain]};
    location /hello {{ return 200 "$scheme $host $server_protocol\\n"; }}
}}
server {{
    listen 127.0.0.1:{ports[h2c]} http2;
    location / {{ return 200 "$scheme $host $server_protocol\\n"; }}
}}
server {{
    listen 127.0.0.1:{ports[one]} ssl http2;
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};
    location / {{ return 200 "one $host $server_protocol\\n"; }}
}}
server {{
    listen 127.0.0.1:{ports[two]} ssl http2;
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};
    location / {{ return 200 "two $host $server_protocol\\n"; }}
}}
"""

_RULES = """
[route one]
match   = tls sni=one.example.com
backend = 127.0.0.1:{ports[one]}

[route two]
match   = tls sni=*.example.org
backend = 127.0.0.1:{ports[two]}

[route h2c]
match   = http version=2
backend = 127.0.0.1:{ports[h2c]}

[route plain]
match   = http
backend = 127.0.0.1:{ports[plain]}
"""


class NginxTests(InteropTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "one.example.com", "two.example.org")
        ports = {name: free_port() for name in ("plain", "h2c", "one", "two")}
        site = _SITE.format(ports=ports, folder=cls.folder, certificate=cls.certificate)
        cls.share(start_nginx(cls.folder, site))
        cls.mux = cls.share(Service(cls.folder, _RULES.format(ports=ports)))

    def curl(self, *arguments: str | Path) -> bytes:
        """Run curl; ``{mux}`` in an argument stands for the port of txmux."""
        port = str(self.mux.port)
        options: list[str | Path] = ["-q", "-sS", "--fail", "--cacert", self.certificate.chain]
        for name in ("one.example.com", "two.example.org"):
            options += ["--resolve", f"{name}:{port}:127.0.0.1"]
        given = (a.replace("{mux}", port) if isinstance(a, str) else a for a in arguments)
        return output_of("curl", *options, *given)

    def test_names_lead_to_backends_and_their_certificates(self) -> None:
        for host, route in (("one.example.com", "one"), ("two.example.org", "two")):
            said = self.curl(f"https://{host}:{{mux}}/", "--http1.1")
            self.assertEqual(said.decode(), f"{route} {host} HTTP/1.1\n")
            line = self.mux.take_one()
            self.assertEqual((line["route"], line["reason"]), (route, "done"))
            self.assertRegex(line["facts"].pop("ja4"), "^t13d")
            self.assertEqual(line["facts"], {"sni": host, "alpn": "http/1.1", "tls": "1.3"})

    def test_http_2(self) -> None:
        said = self.curl("https://one.example.com:{mux}/", "--http2")
        self.assertEqual(said, b"one one.example.com HTTP/2.0\n")
        self.assertEqual(self.mux.take_one()["facts"]["alpn"], "h2,http/1.1")

    def test_http_2_without_tls(self) -> None:
        said = self.curl("http://127.0.0.1:{mux}/", "--http2-prior-knowledge")
        self.assertEqual(said, b"http 127.0.0.1 HTTP/2.0\n")
        self.assertEqual(self.mux.take_fields("route", "facts"), ("h2c", {"version": "2"}))

    def test_two_requests_of_one_connection(self) -> None:
        url = "http://127.0.0.1:{mux}/hello"
        said = self.curl(url, url, "--write-out", "%{num_connects}\n")
        self.assertEqual(said, b"http 127.0.0.1 HTTP/1.1\n1\nhttp 127.0.0.1 HTTP/1.1\n0\n")
        self.assertEqual(self.mux.take_one()["reason"], "done")


_SSH_RULES = """
[listen public]
endpoint       = 127.0.0.1:0
detect_timeout = 1h

[route ssh]
match   = ssh software=OpenSSH_*
backend = ssh-server

[backend ssh-server]
server = 127.0.0.1:{port}
"""


class OpenSshTests(InteropTestCase):
    port: ClassVar[int]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.ssh = cls.share(start_sshd(cls.folder))
        cls.mux = cls.share(Service(cls.folder, _SSH_RULES.format(port=cls.ssh.port)))
        cls.port = cls.mux.ports["public"]

    def command(self, command: str, stdin: bytes = b"") -> bytes:
        port = str(self.port)
        return output_of("ssh", *self.ssh.options, "-p", port, "127.0.0.1", command, stdin=stdin)

    def test_login(self) -> None:
        """A login by key runs a command, with its input, output and exit status; each connection is one line in the log."""
        self.assertEqual(self.command("tr a-z A-Z", b"hello\n"), b"HELLO\n")
        port = str(self.port)
        done = run("ssh", *self.ssh.options, "-p", port, "127.0.0.1", "exit 7")
        self.assertEqual(done.returncode, 7)
        lines = self.mux.take(2)
        for line in lines:
            self.assertEqual(
                (line["listener"], line["route"], line["backend"], line["server"]),
                ("public", "ssh", "ssh-server", f"127.0.0.1:{self.ssh.port}"),
            )
            self.assertEqual((line["reason"], line["local"]), ("done", f"127.0.0.1:{port}"))
            self.assertRegex(line["client"], r"^127\.0\.0\.1:\d+$")
            self.assertGreater(line["bytes_in"], 0)
            self.assertGreater(line["bytes_out"], 0)
            self.assertGreaterEqual(
                line["duration_ms"], line["detect_ms"] + line["connect_ms"] - 0.2
            )
            self.assertRegex(line["facts"]["software"], "^OpenSSH_")
        self.assertNotEqual(lines[0]["id"], lines[1]["id"])
