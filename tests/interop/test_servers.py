"""nginx, OpenSSH and Redis through txmux, with their own clients or curl."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from tests.interop.children import PATIENCE, InteropTestCase, output_of, run
from tests.interop.mux import Mux
from tests.interop.servers import (
    RedisServer,
    make_certificate,
    start_nginx,
    start_redis,
    start_sshd,
)
from tests.support.ports import free_port

_SITE = """
server {{
    listen 127.0.0.1:{ports[plain]};
    root {folder}/files;
    location /hello {{ return 200 "$scheme $host $server_protocol\\n"; }}
    location / {{ dav_methods PUT; }}
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
    files: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "one.example.com", "two.example.org")
        cls.files = cls.folder / "files"
        cls.files.mkdir()
        ports = {name: free_port() for name in ("plain", "h2c", "one", "two")}
        site = _SITE.format(ports=ports, folder=cls.folder, certificate=cls.certificate)
        cls.share(start_nginx(cls.folder, site))
        cls.mux = cls.share(Mux(cls.folder, _RULES.format(ports=ports)))

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

    def test_half_close(self) -> None:
        with self.mux.connect() as client:
            client.sendall(b"GET /hello HTTP/1.0\r\nHost: half\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as stream:
                answer = stream.read()
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "))
        self.assertTrue(answer.endswith(b"\r\n\r\nhttp half HTTP/1.0\n"))
        self.assertEqual(self.mux.take_one()["reason"], "done")

    def test_big_bodies(self) -> None:
        original, back = self.folder / "original", self.folder / "back"
        original.write_bytes(os.urandom(20 * 2**20))
        url = "http://127.0.0.1:{mux}/body"
        self.curl("--upload-file", original, url)
        self.curl("--output", back, url)
        checksum = sha256(original.read_bytes()).hexdigest()
        for copy in (self.files / "body", back):
            self.assertEqual(sha256(copy.read_bytes()).hexdigest(), checksum)
        upload, download = self.mux.take(2)
        self.assertEqual((upload["reason"], download["reason"]), ("done", "done"))
        self.assertEqual((upload["facts"]["method"], download["facts"]["method"]), ("PUT", "GET"))
        self.assertGreater(upload["bytes_in"], 20 * 2**20)
        self.assertGreater(download["bytes_out"], 20 * 2**20)


_SSH_RULES = """
[listen public]
endpoint       = 127.0.0.1:0
detect_timeout = 1h

[listen silent]
endpoint       = 127.0.0.1:0
detect_timeout = 200ms
silent         = ssh-server

[route ssh]
match   = ssh software=OpenSSH_*
backend = ssh-server

[backend ssh-server]
server = 127.0.0.1:{port}
"""


class OpenSshTests(InteropTestCase):
    """One SSH server, reached through one listener, and by those who say nothing through another."""

    port: ClassVar[int]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.ssh = cls.share(start_sshd(cls.folder))
        cls.mux = cls.share(Mux(cls.folder, _SSH_RULES.format(port=cls.ssh.port)))
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

    def test_several_at_once(self) -> None:
        inputs = [os.urandom(2**20) for _ in range(8)]
        with ThreadPoolExecutor(len(inputs)) as threads:
            outputs = list(threads.map(lambda data: self.command("cat", data), inputs))
        self.assertEqual(outputs, inputs)
        self.assertEqual({line["reason"] for line in self.mux.take(len(inputs))}, {"done"})

    def test_silent_client(self) -> None:
        """A client that waits for the server to speak first is led to it, and is no longer detected then."""
        place = ("127.0.0.1", self.mux.ports["silent"])
        with socket.create_connection(place, PATIENCE) as client:
            banner = client.recv(100)
            self.assertRegex(banner, rb"^SSH-2\.0-OpenSSH_")
            client.sendall(b"SSH-2.0-other\r\n")
            self.assertNotEqual(client.recv(100), b"")
        line = self.mux.take_one()
        self.assertEqual((line["route"], line["backend"]), (None, "ssh-server"))
        self.assertGreaterEqual(line["detect_ms"], 200)
        self.assertEqual(line["bytes_in"], len(b"SSH-2.0-other\r\n"))


_REDIS_RULES = """
[listen by-tcp]
endpoint = 127.0.0.1:0

[listen by-unix]
endpoint = 127.0.0.1:0

[route tcp]
match   = redis
under   = by-tcp
backend = 127.0.0.1:{redis.port}

[route unix]
match   = redis
under   = by-unix
backend = unix:{redis.socket}
"""


class RedisTests(InteropTestCase):
    redis: ClassVar[RedisServer]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.redis = cls.share(start_redis(cls.folder))
        cls.mux = cls.share(Mux(cls.folder, _REDIS_RULES.format(redis=cls.redis)))

    def command(self, listener: str, *arguments: str, stdin: bytes = b"") -> bytes:
        port = str(self.mux.ports[listener])
        return output_of("redis-cli", "-p", port, *arguments, stdin=stdin)

    def test_commands(self) -> None:
        for listener in ("by-tcp", "by-unix"):
            self.assertEqual(self.command(listener, "ping"), b"PONG\n")
            self.assertEqual(self.command(listener, "set", listener, "value"), b"OK\n")
            self.assertEqual(self.command(listener, "get", listener), b"value\n")
            for line in self.mux.take(3, listener):
                self.assertEqual(
                    (f"by-{line['route']}", line["server"], line["reason"]),
                    (listener, line["backend"], "done"),
                )

    def test_inline_command_in_one_piece_or_two(self) -> None:
        for pieces in ((b"PING\r\n",), (b"PI", b"NG\r\n")):
            address = ("127.0.0.1", self.mux.ports["by-tcp"])
            with socket.create_connection(address, timeout=PATIENCE) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    client.sendall(piece)
                self.assertEqual(client.recv(100), b"+PONG\r\n")
            self.assertEqual(self.mux.take_one("by-tcp")["route"], "tcp")
