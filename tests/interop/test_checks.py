"""Checks of real servers."""

import re
import signal
import socket
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from tests.interop import servers
from tests.interop.starttls import start_postfix
from tests.support.kit import PATIENCE, InteropTestCase, free_port, output_of, reactor
from tests.support.mux import server_at
from txmux.backends.connect.tls import BackendTLS
from txmux.backends.health.checking import CheckResult, CheckRun, header_of_check
from txmux.backends.health.probes import probe
from txmux.client.io_runtime import IORuntime
from txmux.rules.model import ServerTLS
from txmux.rules.reading.checks import check as read_check


async def check(
    text: str, port: int, proxy: Any = "off", tls: BackendTLS | None = None, until: bytes = b""
) -> CheckResult:
    """Check a server once, and wait until the connection is closed as well: the time is up when the answer has `until` in it; else it is long."""
    time = Clock()
    check, target = read_check(text), server_at(port)
    found: Deferred[CheckResult] = Deferred()
    question = probe(check, "www.example.com", port, tls=tls is not None)
    clock: Any = time if until else reactor
    checking = CheckRun(clock, question, PATIENCE, found.callback)

    runtime = IORuntime(reactor)
    wrap = None if tls is None else partial(tls.wrap, server_name="www.example.com")
    checking.start(runtime.dialler, target, wrap, header_of_check(proxy))
    while until and until not in checking.answer:
        await deferLater(reactor, 0.005)
    time.advance(PATIENCE)
    finding = await found
    while not checking.is_over:
        await deferLater(reactor, 0.005)
    assert checking.deadline is None
    runtime.clock.drop_idle()
    return finding


async def assert_well(case: TestCase, text: str, port: int, **options: Any) -> None:
    case.assertEqual(await check(text, port, **options), CheckResult(ok=True))


async def assert_ill(case: TestCase, why: str, text: str, port: int) -> None:
    case.assertEqual(await check(text, port), CheckResult(ok=False, why=why))


_CHECKED_SITE = """
log_format checked "checked [$proxy_protocol_addr] $host $request $status";
server {{
    listen 127.0.0.1:{ports[plain]};
    listen 127.0.0.1:{ports[secure]} ssl proxy_protocol;
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};
    access_log /dev/stdout checked;
    location /health {{ return 200 "well\\n"; }}
    location /moved {{ return 302 /; }}
    location / {{ return 503; }}
}}
"""


class ServerTests(InteropTestCase, TestCase):
    """Each server finds that it was asked as a client of its own would ask."""

    async def test_nginx(self) -> None:
        certificate = servers.make_certificate(self.folder, "www.example.com")
        ports = {name: free_port() for name in ("plain", "secure")}
        port = ports["plain"]
        site = _CHECKED_SITE.format(ports=ports, certificate=certificate)
        nginx = self.own(servers.start_nginx(self.folder, site))
        await assert_well(self, "http path=/health host=health.example", port)
        nginx.wait_for(r"checked \[-\] health\.example GET /health HTTP/1\.1 200")
        await assert_well(self, "http path=/moved", port)
        await assert_ill(self, "HTTP 503", "http", port)
        await assert_well(self, "http expect=2xx,503", port)
        await assert_ill(self, "HTTP 302", "http path=/moved expect=2xx", port)

        await assert_well(self, "tcp", port)
        asked = r'send="HEAD /health HTTP/1.0\r\n\r\n" expect="200 OK"'
        await assert_well(self, asked, port)
        await assert_ill(self, "no PONG: HTTP/1.1 400 Bad Request", "redis", port)

        # The PROXY header is before TLS.
        tls = BackendTLS(ServerTLS(ca=certificate.chain))
        for version in ("v1", "v2"):
            asked, port = f"http path=/health host=tls-{version}", ports["secure"]
            await assert_well(self, asked, port, proxy=version, tls=tls)
            nginx.wait_for(rf"tls-{version} GET /health .* 200")
        self.assertNotRegex(nginx.output, r"\[(info|warn|error|crit|alert)\]")

    async def test_redis_also_with_password(self) -> None:
        redis = self.own(servers.start_redis(self.make_folder()))
        cli = ("redis-cli", "-s", redis.socket)
        await assert_well(self, "redis", redis.port)
        asked = r'send="PING\r\n" expect=+PONG'
        await assert_well(self, asked, redis.port)
        output_of(*cli, "config", "set", "requirepass", "secret")
        await assert_well(self, "redis", redis.port)
        finding = await check(asked, redis.port, until=b"\r\n")
        self.assertRegex(finding.why, r"no '\+PONG' in the answer: -NOAUTH Authentication required")

    async def test_ssh_taken_for_a_client_that_left(self) -> None:
        ssh = self.own(servers.start_sshd(self.make_folder()))
        await assert_well(self, "ssh", ssh.port)
        ssh.child.wait_for(r"Connection closed by 127\.0\.0\.1 port \d+ \[preauth\]")
        self.assertNotIn("error", ssh.child.output)

    async def test_postgres_also_while_shutting_down(self) -> None:
        port = free_port()
        patient = {"authentication_timeout": "600s"}
        postgres = self.own(servers.start_postgres(self.make_folder(), port, **patient))
        await assert_well(self, "postgres", port)
        await assert_well(self, "tcp", port)
        await assert_ill(self, "connection closed without an answer", "redis", port)
        self.assertNotRegex(postgres.output, "txmux|FATAL")
        startup = probe(read_check("postgres"), "", 0, tls=False).request
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(startup)
            self.assertEqual(client.recv(1), b"R")
            postgres.process.send_signal(signal.SIGTERM)
            postgres.wait_for("received smart shutdown request")
            await assert_ill(self, "the database system is shutting down", "postgres", port)
        postgres.wait()
        await assert_ill(self, "connection refused", "postgres", port)

    async def test_mysql_login_without_a_trace(self) -> None:
        folder, port = self.make_folder(), free_port()
        server = self.own(servers.start_mariadb(folder, f"--port={port}"))
        await assert_well(self, "mysql user=tests", port)
        self.assertNotRegex(server.output, "Aborted|denied|\\[ERROR\\]")
        await assert_well(self, "mysql", port)
        server.wait_for("Access denied for user 'txmux'@")
        self.assertNotIn("Aborted", server.output)
        asked = ("-e", "SHOW GLOBAL STATUS LIKE 'Aborted_%'")
        at = ("--no-defaults", f"--socket={folder}/socket")
        counted = output_of("mariadb", *at, *asked).decode()
        found = dict(re.findall(r"^(\w+)\t(\d+)$", counted, re.MULTILINE))
        # A login that is refused is counted, too, but not as a client that left.
        self.assertEqual(found["Aborted_connects"], "1")
        self.assertEqual(found["Aborted_connects_preauth"], "0")

    async def test_smtp_quits_as_a_client_should(self) -> None:
        folder = self.make_folder()
        name = "mail.example.com"
        postfix = start_postfix(folder, servers.make_certificate(folder, name), name)
        self.own(postfix.child)
        await assert_well(self, "smtp", postfix.clear)
        postfix.child.wait_for(r"disconnect from .* quit=1 commands=1")
        await assert_well(self, "tcp", postfix.clear)
        postfix.child.wait_for("lost connection after CONNECT")
        self.assertEqual(postfix.child.output.count("lost connection"), 1)
