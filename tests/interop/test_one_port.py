"""What txmux is for: SSH, HTTPS, HTTP and Redis on one port."""

from __future__ import annotations

from tests.interop.children import InteropTestCase, free_port, output_of
from tests.interop.mux import Mux
from tests.interop.servers import make_certificate, start_nginx, start_redis, start_sshd

_SITE = """
server {{
    listen 127.0.0.1:{plain};
    location / {{ return 200 "plain $host\\n"; }}
}}
server {{
    listen 127.0.0.1:{secure} ssl;
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};
    location / {{ return 200 "secure $host\\n"; }}
}}
"""

_RULES = """
[listen public]
endpoint = 127.0.0.1:0

[route ssh]
match   = ssh
backend = ssh-server

[route site]
match   = tls sni=www.example.com
backend = web

[route plain]
match   = http
backend = 127.0.0.1:{plain}

[route redis]
match   = redis
backend = 127.0.0.1:{redis}

[backend ssh-server]
server = 127.0.0.1:{ssh}

[backend web]
server = 127.0.0.1:{secure}
"""


class OnePortTests(InteropTestCase):
    """Four protocols, one rules file, one port."""

    def test_four_protocols(self) -> None:
        """Every client reaches its own server, and each connection is one line in the access log."""
        certificate = make_certificate(self.folder, "www.example.com")
        ssh = self.own(start_sshd(self.folder))
        redis = self.own(start_redis(self.folder))
        plain, secure = free_port(), free_port()
        nginx = start_nginx(
            self.folder, _SITE.format(plain=plain, secure=secure, certificate=certificate)
        )
        self.addCleanup(nginx.end)
        rules = _RULES.format(ssh=ssh.port, redis=redis.port, plain=plain, secure=secure)
        mux = self.own(Mux(self.folder, rules))
        port = str(mux.port)

        said = output_of("ssh", *ssh.options, "-p", port, "127.0.0.1", "echo", "hello")
        self.assertEqual(said, b"hello\n")
        ssh_line = mux.take_one()

        said = output_of(
            "curl",
            *("-q", "-sS", "--http1.1", "--cacert", certificate.chain),
            *("--resolve", f"www.example.com:{port}:127.0.0.1"),
            f"https://www.example.com:{port}/",
        )
        self.assertEqual(said, b"secure www.example.com\n")
        https_line = mux.take_one()

        said = output_of("curl", "-q", "-sS", f"http://127.0.0.1:{port}/")
        self.assertEqual(said, b"plain 127.0.0.1\n")
        http_line = mux.take_one()

        said = output_of("redis-cli", "-p", port, "ping")
        self.assertEqual(said, b"PONG\n")
        redis_line = mux.take_one()

        expected = [
            (ssh_line, "ssh", "ssh-server", ssh.port),
            (https_line, "site", "web", secure),
            (http_line, "plain", f"127.0.0.1:{plain}", plain),
            (redis_line, "redis", f"127.0.0.1:{redis.port}", redis.port),
        ]
        for line, route, backend, server in expected:
            self.assertEqual(
                (line["listener"], line["route"], line["backend"], line["server"]),
                ("public", route, backend, f"127.0.0.1:{server}"),
            )
            self.assertEqual((line["reason"], line["local"]), ("done", f"127.0.0.1:{port}"))
            self.assertRegex(line["client"], r"^127\.0\.0\.1:\d+$")
            self.assertGreater(line["bytes_in"], 0)
            self.assertGreater(line["bytes_out"], 0)
            self.assertGreaterEqual(
                line["duration_ms"], line["detect_ms"] + line["connect_ms"] - 0.2
            )
        self.assertEqual(len({line["id"] for line, *_ in expected}), 4)
        self.assertRegex(ssh_line["facts"]["software"], "^OpenSSH_")
        self.assertRegex(https_line["facts"].pop("ja4"), "^t13d")
        self.assertEqual(
            https_line["facts"], {"sni": "www.example.com", "alpn": "http/1.1", "tls": "1.3"}
        )
        self.assertEqual(
            http_line["facts"], {"method": "GET", "host": "127.0.0.1", "version": "1.1"}
        )
        self.assertEqual(redis_line["facts"], {})
