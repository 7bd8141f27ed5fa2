"""Checks of nginx, Redis, PostgreSQL and OpenSSH: what they find, and that the servers log nothing bad."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from tests.interop.children import PATIENCE, Child, InteropTestCase, output_of
from tests.interop.servers import (
    make_certificate,
    start_nginx,
    start_postgres,
    start_redis,
    start_sshd,
)
from tests.support.mux import server_at
from tests.support.peers import reactor
from tests.support.ports import free_port
from txmux.backends.connect.tls import BackendTLS
from txmux.backends.health.checking import CheckResult, CheckRun, with_header
from txmux.backends.health.probes import probe
from txmux.rules.model import ServerTLS
from txmux.rules.reading.checks import check as read_check
from txmux.tcp.io_runtime import IORuntime

if TYPE_CHECKING:
    from tests.interop.servers import RedisServer


class ChecksTestCase(InteropTestCase, TestCase):
    """Checks with real sockets."""

    timeout = 5 * PATIENCE

    async def check(
        self,
        text: str,
        port: int,
        *,
        proxy_protocol: Any = "off",
        tls: BackendTLS | None = None,
        until: bytes = b"",
    ) -> CheckResult:
        """Check a server once, and wait until the connection is closed as well.

        The time is up when the answer has `until` in it; else it is long, since the machine may be busy.
        """
        time = Clock()
        check, target = read_check(text), server_at(port)
        found: Deferred[CheckResult] = Deferred()
        question = probe(check, "www.example.com", port, tls=tls is not None)
        clock: Any = time if until else reactor
        checking = CheckRun(clock, question, PATIENCE, found.callback)

        def wrap(factory: Any) -> Any:
            if tls is not None:
                factory = tls.wrap(factory, "www.example.com")
            return with_header(factory, proxy_protocol)

        runtime = IORuntime(reactor)
        checking.start(runtime.dial, target, wrap)
        while until and until not in checking._answer:
            await deferLater(reactor, 0.005)
        time.advance(PATIENCE)
        finding = await found
        while not checking._is_over:
            await deferLater(reactor, 0.005)
        self.assertIsNone(checking._deadline)
        runtime.clock.drop_idle()
        return finding

    async def assert_well(self, text: str, port: int, **options: Any) -> None:
        self.assertEqual(await self.check(text, port, **options), CheckResult(ok=True))

    async def assert_ill(self, why: str, text: str, port: int) -> None:
        self.assertEqual(await self.check(text, port), CheckResult(ok=False, why=why))


_SITE = """
log_format checked "checked [$proxy_protocol_addr] $host $request $status";
server {{
    listen 127.0.0.1:{ports[plain]};
    listen 127.0.0.1:{ports[proxied]} proxy_protocol;
    listen 127.0.0.1:{ports[secure]} ssl proxy_protocol;
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};
    access_log /dev/stdout checked;
    location /health {{ return 200 "well\\n"; }}
    location /moved {{ return 302 /; }}
    location / {{ return 503; }}
}}
"""


class NginxTests(ChecksTestCase):
    """One nginx, with the PROXY protocol and without."""

    ports: ClassVar[dict[str, int]]
    nginx: ClassVar[Child]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "www.example.com")
        cls.ports = {name: free_port() for name in ("plain", "proxied", "secure")}
        site = _SITE.format(ports=cls.ports, certificate=cls.certificate)
        cls.nginx = cls.share(start_nginx(cls.folder, site))

    def tearDown(self) -> None:
        self.assertNotRegex(self.nginx.output, r"\[(info|warn|error|crit|alert)\]")

    async def test_http_status_and_host(self) -> None:
        port = self.ports["plain"]
        await self.assert_well("http path=/health host=health.example", port)
        self.nginx.wait_for(r"checked \[-\] health\.example GET /health HTTP/1\.1 200")
        await self.assert_well("http path=/moved", port)
        await self.assert_ill("HTTP 503", "http", port)
        await self.assert_well("http expect=2xx,503", port)
        await self.assert_ill("HTTP 302", "http path=/moved expect=2xx", port)

    async def test_http_method(self) -> None:
        port = self.ports["plain"]
        for method in ("HEAD", "OPTIONS", "POST"):
            asked = f"http method={method} host=method.example"
            await self.assert_well(f"{asked} path=/health", port)
            self.nginx.wait_for(rf"method\.example {method} /health HTTP/1\.1 200")
            await self.assert_ill("HTTP 503", asked, port)

    async def test_other_kinds(self) -> None:
        port = self.ports["plain"]
        await self.assert_well("tcp", port)
        asked = r'send="HEAD /health HTTP/1.0\r\n\r\n" expect="200 OK"'
        await self.assert_well(asked, port)
        await self.assert_ill("no PONG: HTTP/1.1 400 Bad Request", "redis", port)

    async def test_proxy_protocol(self) -> None:
        port = self.ports["proxied"]
        for version, seen in (("v1", "127.0.0.1"), ("v2", "-")):
            await self.assert_well(
                f"http path=/health host={version}", port, proxy_protocol=version
            )
            self.nginx.wait_for(rf"checked \[{re.escape(seen)}\] {version} GET /health .* 200")
            await self.assert_well("tcp", port, proxy_protocol=version)

    async def test_proxy_protocol_before_tls(self) -> None:
        tls = BackendTLS(ServerTLS(ca=self.certificate.chain))
        for version in ("v1", "v2"):
            await self.assert_well(
                f"http path=/health host=tls-{version}",
                self.ports["secure"],
                proxy_protocol=version,
                tls=tls,
            )
            self.nginx.wait_for(rf"tls-{version} GET /health .* 200")


class RedisTests(ChecksTestCase):
    """One Redis server."""

    redis: ClassVar[RedisServer]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.redis = cls.share(start_redis(cls.folder))

    async def test_well_also_with_password(self) -> None:
        await self.assert_well("redis", self.redis.port)
        asked = r'send="PING\r\n" expect=+PONG'
        await self.assert_well(asked, self.redis.port)
        self.command("config", "set", "requirepass", "secret")
        await self.assert_well("redis", self.redis.port)
        finding = await self.check(asked, self.redis.port, until=b"\r\n")
        self.assertRegex(finding.why, r"no '\+PONG' in the answer: -NOAUTH Authentication required")
        self.command("--no-auth-warning", "-a", "secret", "config", "set", "requirepass", "")

    async def test_ill_when_full(self) -> None:
        with socket.create_connection(("127.0.0.1", self.redis.port)) as client:
            # It is one already: another one that has just gone may count for a while.
            client.sendall(b"config set maxclients 1\r\n")
            self.assertEqual(client.recv(100), b"+OK\r\n")
            await self.assert_ill(
                "no PONG: -ERR max number of clients reached", "redis", self.redis.port
            )
            client.sendall(b"config set maxclients 100\r\n")
            self.assertEqual(client.recv(100), b"+OK\r\n")

    async def test_ill_while_loading(self) -> None:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        first = start_redis(folder)
        # Each takes 20 ms to load: more time than the check needs.
        values = "".join(f"set key{number} {'x' * 200}\n" for number in range(9000))
        output_of("redis-cli", "-p", str(first.port), stdin=values.encode())
        output_of("redis-cli", "-p", str(first.port), "save")
        first.child.end()
        port = free_port()
        slow = ("--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
        second = self.own(
            Child(
                "redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, *slow
            )
        )
        second.wait_for("RDB memory usage|Loading RDB")
        await self.assert_ill(
            "no PONG: -LOADING Redis is loading the dataset in memory", "redis", port
        )

    def command(self, *arguments: str) -> None:
        output_of("redis-cli", "-p", str(self.redis.port), *arguments)


class SshTests(ChecksTestCase):
    """An SSH server for each, since one hears of clients that left for some time."""

    def setUp(self) -> None:
        super().setUp()
        self.ssh = self.own(start_sshd(Path(tempfile.mkdtemp(dir=self.folder))))

    async def test_well_and_taken_for_a_client_that_left(self) -> None:
        await self.assert_well("ssh", self.ssh.port)
        self.ssh.child.wait_for(r"Connection closed by 127\.0\.0\.1 port \d+ \[preauth\]")
        self.assertNotIn("error", self.ssh.child.output)

    async def test_tcp_is_content_with_a_connection(self) -> None:
        await self.assert_well("tcp", self.ssh.port)


class PostgresTests(ChecksTestCase):
    """One PostgreSQL server."""

    port: ClassVar[int]
    postgres: ClassVar[Child]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = Path(tempfile.mkdtemp(prefix="txmux-interop-postgres-"))
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.port = free_port()
        cls.postgres = cls.share(start_postgres(folder, cls.port, authentication_timeout="600s"))

    async def test_well_then_ill_while_shutting_down(self) -> None:
        await self.assert_well("postgres", self.port)
        await self.assert_well("tcp", self.port)
        await self.assert_ill("connection closed without an answer", "redis", self.port)
        self.assertNotRegex(self.postgres.output, "txmux|FATAL")
        startup = probe(read_check("postgres"), "", 0, tls=False).request
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(startup)
            self.assertEqual(client.recv(1), b"R")
            self.postgres.process.send_signal(signal.SIGTERM)
            self.postgres.wait_for("received smart shutdown request")
            await self.assert_ill("the database system is shutting down", "postgres", self.port)
        self.postgres.wait()
        await self.assert_ill("connection refused", "postgres", self.port)
