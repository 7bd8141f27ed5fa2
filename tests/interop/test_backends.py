"""Backends of real servers behind the whole service: pools of which some die or hang, TLS to them, and checks."""

import contextlib
import os
import re
import signal
import socket
import sys
from functools import partial
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually, output_of
from tests.interop.servers import (
    RedisServer,
    make_certificate,
    start_mariadb,
    start_nginx,
    start_postgres,
    start_redis,
    start_sshd,
)
from tests.interop.starttls import start_postfix
from tests.support.certificates import make_authority
from tests.support.mux import server_at
from tests.support.peers import reactor
from tests.support.ports import free_port
from tests.support.proc import pids_of
from tests.support.services import Service, pool_rules
from txmux.backends.connect.tls import BackendTLS
from txmux.backends.health.checking import CheckResult, CheckRun, header_of_check
from txmux.backends.health.probes import probe
from txmux.client.io_runtime import IORuntime
from txmux.rules.model import ServerTLS
from txmux.rules.reading.checks import check as read_check

_SITE = """
server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ return 200 "{port}\\n"; }}
}}
"""


# Some clients that come again and again, each time with one request, and so often when standard input has ended; tells of each that got
# no whole answer.
_LOAD = """
import asyncio, sys
port, clients, times = map(int, sys.argv[1:])
good = 0
async def visit():
    global good
    own = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        own = writer.get_extra_info("sockname")[1]
        writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        answer = await asyncio.wait_for(reader.read(), 180)
        writer.close()
    except (OSError, asyncio.TimeoutError) as problem:
        answer = repr(problem).encode()
    if answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\\n"):
        good += 1
        if good == 100:
            print("under way", flush=True)
    else:
        print("lost", own, answer, flush=True)
async def come():
    left = times
    while left:
        left -= is_told.is_set()
        await visit()
        await asyncio.sleep(0.02)
async def main():
    global is_told
    is_told = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, is_told.set)
    await asyncio.gather(*(come() for _ in range(clients)))
    print("good", good, flush=True)
asyncio.run(main())
"""

_CLIENTS, _TIMES = 5, 60


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


class KilledTests(InteropTestCase):
    def start_server(self, port: int) -> Child:
        folder = self.make_folder()
        return self.own(start_nginx(folder, _SITE.format(port=port)))

    def kill(self, child: Child) -> None:
        pids = [*pids_of(child.pid), child.pid]
        child.process.kill()
        for pid in pids[:-1]:
            os.kill(pid, signal.SIGKILL)
        child.wait()

    def test_only_what_the_killed_server_had_accepted_is_lost(self) -> None:
        ports = [free_port() for _ in range(3)]
        servers = [self.start_server(port) for port in ports]
        for more in ("", "balance = least-connections", "check = http interval=500ms timeout=3m"):
            places = (f"127.0.0.1:{port}" for port in ports)
            mux = self.own(
                Service(self.folder, pool_rules(*places, more=f"eject = for=1h\n{more}"))
            )
            load = self.own(
                Child(
                    *(sys.executable, "-c", _LOAD, str(mux.port), str(_CLIENTS), str(_TIMES)),
                    stdin=True,
                )
            )
            load.wait_for("under way")
            self.kill(servers[0])
            load.say(b"")
            good = int(load.wait_for(r"^good (\d+)$")[1])
            lost = {int(port) for port in re.findall(r"^lost (\d+)", load.output, re.MULTILINE)}
            lines = mux.take(good + len(lost))
            killed = f"127.0.0.1:{ports[0]}"
            for line in lines:
                if _port(line["client"]) in lost:
                    self.assertEqual(line["server"], killed)
                else:
                    self.assertEqual(line["reason"], "done", line)
            self.assertLessEqual(len(lost), _CLIENTS)
            tried = [line for line in lines if "tried" in line["facts"]]
            self.assertEqual(
                {line["facts"]["tried"] for line in tried}, {f"{killed} connect-refused"}
            )
            self.assertGreater(len(tried), 0)
            # Two have found it out, and at most all others that were there at the same time.
            self.assertLessEqual(len(tried), 2 + _CLIENTS)
            mux.child.wait_for(rf"backend pool: {killed} is (ejected|down): ")
            servers[0] = self.start_server(ports[0])


class HangingTests(InteropTestCase):
    """Servers that take connections and answer nobody, which only a check can find out."""

    def test_redis(self) -> None:
        redis = self.own(start_redis(self.folder))
        listening = f"127.0.0.1:{redis.port}"
        # A server that works may be late on a busy machine, but not so much twice in a row.
        check = "check = redis interval=200ms timeout=4s rise=1 fall=2"
        more = f"{check}\nfallback = reset\nidle_timeout = 1s"
        mux = self.own(Service(self.folder, pool_rules(listening, more=more)))
        self.await_reason(mux, "done")
        redis.child.process.send_signal(signal.SIGSTOP)
        mux.child.wait_for(rf"{listening} is down: [12] checks? failed; ")
        self.await_reason(mux, "no-server")
        redis.child.process.send_signal(signal.SIGCONT)
        mux.child.wait_for(rf"{listening} is up: 1 check succeeded")
        self.await_reason(mux, "done")
        self.assertEqual(mux.child.output.count(f"{listening} is "), 2)

    def await_reason(self, mux: Service, reason: str) -> None:
        eventually(lambda: self.reason(mux) == reason, f"a connection ends with {reason}")

    def reason(self, mux: Service) -> str:
        with mux.connect() as client:
            client.sendall(b"\r\n")
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
                while client.recv(1000):
                    pass
        reason: str = mux.take_one()["reason"]
        return "done" if reason in {"client-reset", "server-reset"} else reason


_TLS_SITE = """
log_format proxied "from [$proxy_protocol_addr] as $ssl_server_name by $ssl_protocol";
server {{
    listen 127.0.0.1:{ports[good]} ssl proxy_protocol;
    ssl_certificate {folder}/good.pem;
    ssl_certificate_key {folder}/good.pem;
    access_log /dev/stdout proxied;
    location / {{ return 200 "hello\\n"; }}
}}
server {{
    listen 127.0.0.1:{ports[bad]} ssl;
    ssl_certificate {folder}/bad.pem;
    ssl_certificate_key {folder}/bad.pem;
    location / {{ return 200 "never seen\\n"; }}
}}
"""

_RULES = """
[route bad]
match   = http host=bad.example
backend = bad

[route good]
match   = http
backend = good

[backend good]
server         = 127.0.0.1:{ports[good]}
proxy_protocol = v2
tls            = yes
tls_name       = www.example.com
tls_ca         = {folder}/ca.pem

[backend bad]
server   = 127.0.0.1:{ports[bad]}
tls      = yes
tls_name = www.example.com
tls_ca   = {folder}/ca.pem
"""


class TlsNginxTests(InteropTestCase):
    def test_service(self) -> None:
        """HTTP becomes HTTPS, the server logs the client's address, and a bad certificate harms nobody else."""
        root = make_authority()
        root.write(self.folder / "ca.pem")
        root.issue("www.example.com").write(self.folder / "good.pem", key=True)
        root.issue("www.example.com", ends=-1).write(self.folder / "bad.pem", key=True)
        ports = {name: free_port() for name in ("good", "bad")}
        nginx = self.own(
            start_nginx(self.folder, _TLS_SITE.format(folder=self.folder, ports=ports))
        )
        mux = self.own(Service(self.folder, _RULES.format(folder=self.folder, ports=ports)))
        url = f"http://127.0.0.1:{mux.port}/"
        for _ in range(2):
            with mux.connect() as refused:
                refused.sendall(b"GET / HTTP/1.1\r\nHost: bad.example\r\n\r\n")
                self.assertEqual(refused.recv(100), b"")
            self.assertEqual(mux.take_fields("backend", "reason"), ("bad", "tls-failed"))
            said = output_of("curl", "-q", "-sS", "--interface", "127.0.0.1", url)
            self.assertEqual(said, b"hello\n")
            self.assertEqual(mux.take_fields("backend", "reason"), ("good", "done"))
        nginx.wait_for(r"from \[127\.0\.0\.1\] as www\.example\.com by TLSv1\.[23]")
        mux.child.wait_for("its certificate expired on")


async def check(
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

    runtime = IORuntime(reactor)
    wrap = None if tls is None else partial(tls.wrap, server_name="www.example.com")
    checking.start(runtime.dialler, target, wrap, header_of_check(proxy_protocol))
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


class CheckedNginxTests(InteropTestCase, TestCase):
    ports: ClassVar[dict[str, int]]
    nginx: ClassVar[Child]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "www.example.com")
        cls.ports = {name: free_port() for name in ("plain", "secure")}
        site = _CHECKED_SITE.format(ports=cls.ports, certificate=cls.certificate)
        cls.nginx = cls.share(start_nginx(cls.folder, site))

    def tearDown(self) -> None:
        self.assertNotRegex(self.nginx.output, r"\[(info|warn|error|crit|alert)\]")

    async def test_http_status_and_host(self) -> None:
        port = self.ports["plain"]
        await assert_well(self, "http path=/health host=health.example", port)
        self.nginx.wait_for(r"checked \[-\] health\.example GET /health HTTP/1\.1 200")
        await assert_well(self, "http path=/moved", port)
        await assert_ill(self, "HTTP 503", "http", port)
        await assert_well(self, "http expect=2xx,503", port)
        await assert_ill(self, "HTTP 302", "http path=/moved expect=2xx", port)

    async def test_other_kinds(self) -> None:
        port = self.ports["plain"]
        await assert_well(self, "tcp", port)
        asked = r'send="HEAD /health HTTP/1.0\r\n\r\n" expect="200 OK"'
        await assert_well(self, asked, port)
        await assert_ill(self, "no PONG: HTTP/1.1 400 Bad Request", "redis", port)

    async def test_proxy_protocol_before_tls(self) -> None:
        tls = BackendTLS(ServerTLS(ca=self.certificate.chain))
        for version in ("v1", "v2"):
            await assert_well(
                self,
                f"http path=/health host=tls-{version}",
                self.ports["secure"],
                proxy_protocol=version,
                tls=tls,
            )
            self.nginx.wait_for(rf"tls-{version} GET /health .* 200")


class RedisTests(InteropTestCase, TestCase):
    redis: ClassVar[RedisServer]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.redis = cls.share(start_redis(cls.folder))

    async def test_well_also_with_password(self) -> None:
        await assert_well(self, "redis", self.redis.port)
        asked = r'send="PING\r\n" expect=+PONG'
        await assert_well(self, asked, self.redis.port)
        self.command("config", "set", "requirepass", "secret")
        await assert_well(self, "redis", self.redis.port)
        finding = await check(asked, self.redis.port, until=b"\r\n")
        self.assertRegex(finding.why, r"no '\+PONG' in the answer: -NOAUTH Authentication required")
        self.command("--no-auth-warning", "-a", "secret", "config", "set", "requirepass", "")

    async def test_ill_when_full(self) -> None:
        with socket.create_connection(("127.0.0.1", self.redis.port)) as client:
            # It is one already: another one that has just gone may count for a while.
            client.sendall(b"config set maxclients 1\r\n")
            self.assertEqual(client.recv(100), b"+OK\r\n")
            await assert_ill(
                self, "no PONG: -ERR max number of clients reached", "redis", self.redis.port
            )
            client.sendall(b"config set maxclients 100\r\n")
            self.assertEqual(client.recv(100), b"+OK\r\n")

    async def test_ill_while_loading(self) -> None:
        folder = self.make_folder()
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
        await assert_ill(
            self, "no PONG: -LOADING Redis is loading the dataset in memory", "redis", port
        )

    def command(self, *arguments: str) -> None:
        output_of("redis-cli", "-p", str(self.redis.port), *arguments)


class SshTests(InteropTestCase, TestCase):
    async def test_well_and_taken_for_a_client_that_left(self) -> None:
        ssh = self.own(start_sshd(self.make_folder()))
        await assert_well(self, "ssh", ssh.port)
        ssh.child.wait_for(r"Connection closed by 127\.0\.0\.1 port \d+ \[preauth\]")
        self.assertNotIn("error", ssh.child.output)


class PostgresTests(InteropTestCase, TestCase):
    port: ClassVar[int]
    postgres: ClassVar[Child]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.port = free_port()
        patient = {"authentication_timeout": "600s"}
        cls.postgres = cls.share(start_postgres(cls.make_folder(), cls.port, **patient))

    async def test_well_then_ill_while_shutting_down(self) -> None:
        await assert_well(self, "postgres", self.port)
        await assert_well(self, "tcp", self.port)
        await assert_ill(self, "connection closed without an answer", "redis", self.port)
        self.assertNotRegex(self.postgres.output, "txmux|FATAL")
        startup = probe(read_check("postgres"), "", 0, tls=False).request
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(startup)
            self.assertEqual(client.recv(1), b"R")
            self.postgres.process.send_signal(signal.SIGTERM)
            self.postgres.wait_for("received smart shutdown request")
            await assert_ill(self, "the database system is shutting down", "postgres", self.port)
        self.postgres.wait()
        await assert_ill(self, "connection refused", "postgres", self.port)


class MysqlTests(InteropTestCase, TestCase):
    async def test_login_without_a_trace(self) -> None:
        folder, port = self.make_folder(), free_port()
        server = self.own(start_mariadb(folder, f"--port={port}"))
        await assert_well(self, "mysql user=tests", port)
        self.assertNotRegex(server.output, "Aborted|denied|\\[ERROR\\]")
        await assert_well(self, "mysql", port)
        server.wait_for("Access denied for user 'txmux'@")
        self.assertNotIn("Aborted", server.output)
        asked = ("-e", "SHOW GLOBAL STATUS LIKE 'Aborted_%'")
        counted = output_of(
            "mariadb", "--no-defaults", f"--socket={folder}/socket", *asked
        ).decode()
        found = dict(re.findall(r"^(\w+)\t(\d+)$", counted, re.MULTILINE))
        # A login that is refused is counted, too, but not as a client that left.
        self.assertEqual(found["Aborted_connects"], "1")
        self.assertEqual(found["Aborted_connects_preauth"], "0")

    async def test_ill_without_room(self) -> None:
        port = free_port()
        self.own(start_mariadb(self.make_folder(), f"--port={port}", "--max-connections=10"))
        with contextlib.ExitStack() as held:
            for _ in range(11):  # one is for administrators
                client = held.enter_context(socket.create_connection(("127.0.0.1", port)))
                client.recv(100)
            await assert_ill(self, "MySQL error 1040: Too many connections", "mysql", port)


class SmtpTests(InteropTestCase, TestCase):
    async def test_quits_as_a_client_should(self) -> None:
        folder = self.make_folder()
        name = "mail.example.com"
        postfix = start_postfix(folder, make_certificate(folder, name), name)
        self.own(postfix.child)
        await assert_well(self, "smtp", postfix.clear)
        postfix.child.wait_for(r"disconnect from .* quit=1 commands=1")
        await assert_well(self, "tcp", postfix.clear)
        postfix.child.wait_for("lost connection after CONNECT")
        self.assertEqual(postfix.child.output.count("lost connection"), 1)
