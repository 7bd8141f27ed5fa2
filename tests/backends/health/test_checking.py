import errno
import socket
from collections.abc import Callable
from functools import cached_property
from typing import Any

from twisted.internet import error, ssl
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.interop.servers import Certificate, make_certificate
from tests.support.dialler import played
from tests.support.folders import make_folder
from tests.support.mux import VirtualTime, server_at
from tests.support.peers import Peer, PeerFactory, listen, make_stalled_port, reactor
from txmux.backends.connect.tls import BackendTLS
from txmux.backends.health.checking import (
    LONGEST_ANSWER,
    CheckResult,
    CheckRun,
    ProbeTarget,
    header_of_check,
)
from txmux.backends.health.probes import probe
from txmux.backends.pool.member import Member
from txmux.client.io_runtime import IORuntime
from txmux.rules.model import Backend, Check, ServerTLS
from txmux.rules.reading.checks import check as read_check
from txmux.rules.reading.endpoints import server
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import Command, ProxyHeader

WELL = CheckResult(ok=True)


def ill(why: str) -> CheckResult:
    return CheckResult(ok=False, why=why)


class CheckRunTest(TestCase):
    def setUp(self) -> None:
        self.time = VirtualTime()
        self.server = PeerFactory()
        self.found: list[CheckResult] = []
        self.runtime = IORuntime(self.time)
        self.names: list[bytes | None] = []
        self.clients = PeerFactory()

    def check(
        self, how: Any, target: Any = None, dialler: Any = None, wrap: Any = None, header: Any = b""
    ) -> CheckRun:
        check: Check = how if isinstance(how, Check) else Check(how)
        target = target or server_at(listen(self, self.server))
        question = probe(check, target.host, target.port, tls=False)
        self.found, self.connected = [], len(self.server.peers)
        checking = CheckRun(self.time.clock, question, check.timeout, self.found.append)
        checking.start(dialler or self.runtime.dialler, target, wrap, header)
        return checking

    async def peer(self, octets: int = 0) -> Peer:
        """The server's end of the check that began last, once it has heard so much."""
        return await self.server.heard(octets, self.connected)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(reactor, 0)

    async def finding(self) -> CheckResult:
        await self.until(lambda: self.found)
        (finding,) = self.found
        return finding

    def assert_nothing_left(self) -> None:
        self.assertEqual(self._timers(), [])

    async def is_over(self) -> None:
        await self.until(lambda: not self._timers())

    def _timers(self) -> object:
        self.runtime.clock.drop_idle()
        return self.time.clock.getDelayedCalls()

    @cached_property
    def certificate(self) -> Certificate:
        return make_certificate(make_folder(self), "a.example")

    def secure_port(self) -> int:
        """Have the server listen with TLS; `names` are those that it is asked for."""
        pem = self.certificate.chain.read_text() + self.certificate.key.read_text()
        options = ssl.PrivateCertificate.loadPEM(pem).options()
        context = options.getContext()
        context.set_tlsext_servername_callback(lambda c: self.names.append(c.get_servername()))
        tls: Any = TLSMemoryBIOFactory(options, False, self.server)  # noqa: FBT003
        return listen(self, tls)

    async def test_tcp(self) -> None:
        """A server that speaks gets nothing, and is not reset."""
        self.check("tcp")
        peer = await self.peer()
        peer.send(b"220 mail.example.com\r\n" * 100)
        await peer.has_all()
        peer.send(b"421 bye\r\n" * 100)
        await deferLater(reactor, 0.01)
        await peer.is_lost()
        self.assertEqual((bytes(peer.received), peer.was_reset()), (b"", False))
        self.assertEqual(self.found, [WELL])
        await self.is_over()

    async def test_refused(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.check("tcp", server_at(unused.getsockname()[1]))
            self.assertEqual(await self.finding(), ill("connection refused"))
            self.assert_nothing_left()
        self.check("tcp", server_at(make_stalled_port(self)))  # stalled
        await deferLater(reactor, 0.01)
        self.assertEqual(self.found, [])
        self.time.advance(1)
        self.assertEqual(await self.finding(), ill("timed out after 1 s"))
        self.assert_nothing_left()

    async def test_unix(self) -> None:
        folder = make_folder(self)
        path = f"{folder}/socket"
        self.check("tcp", server(f"unix:{path}"))
        self.assertEqual(await self.finding(), ill("no such file or directory"))
        self.addCleanup(reactor.listenUNIX(path, self.server).stopListening)
        self.check("tcp", server(f"unix:{path}"))
        self.assertEqual(await self.finding(), WELL)
        peer = await self.peer()
        await peer.is_lost()
        await self.is_over()

    async def test_endpoint_and_server_that_does_not_close(self) -> None:
        port = listen(self, self.server)
        self.check("redis", server(f"tcp:127.0.0.1:{port}:timeout=9"))
        peer = await self.peer()
        peer.send(b"+PONG\r\n")
        self.assertEqual(await self.finding(), WELL)
        await peer.is_lost()
        self.assertFalse(peer.was_reset())
        await self.is_over()
        self.check("redis")
        peer = await self.peer()
        peer.send(b"+PONG\r\n")
        await peer.has_all()
        self.assertEqual(self.found, [WELL])
        self.time.advance(1)
        await deferLater(reactor, 0.01)
        self.assert_nothing_left()
        await peer.is_lost()
        self.assertEqual(self.found, [WELL])

    async def test_faults_of_this_machine(self) -> None:
        """A lack of descriptors says nothing of the server; without IPv6, one that has nothing else is down; plugins raise anything."""
        for problem, finding in (
            (OSError(errno.EMFILE, "Why"), CheckResult(None, "why")),
            (OSError(errno.EAFNOSUPPORT, "Why"), ill("why")),
            (ValueError("no such thing"), ill("no such thing")),
        ):

            def dial(*_: object, problem: Exception = problem, **__: object) -> Callable[[], None]:
                raise problem

            self.check("tcp", server_at(1), dialler=played(dial))
            self.assertEqual(self.found, [finding])
            self.assert_nothing_left()

    async def test_time_limit_of_the_dialler(self) -> None:
        def dial(_: object, factory: Any, __: float, **___: object) -> Callable[[], None]:
            factory.clientConnectionFailed(None, Failure(error.TimeoutError()))
            return self.fail

        self.check("tcp", server_at(1), dialler=played(dial)).abort()
        self.assertEqual(self.found, [ill("timed out after 1 s")])
        self.assert_nothing_left()

    async def test_healthy_answer_in_pieces_and_unhealthy_one(self) -> None:
        self.check("redis")
        peer = await self.peer(14)
        self.assertEqual(peer.received, b"*1\r\n$4\r\nPING\r\n")
        peer.send(b"+PO")
        await deferLater(reactor, 0.01)
        self.assertEqual(self.found, [])
        peer.send(b"NG\r\n")
        self.assertEqual(await self.finding(), WELL)
        await peer.is_lost()
        self.assertFalse(peer.was_reset())
        await self.is_over()
        self.check("http")
        peer = await self.peer()
        peer.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\noh, ")
        self.assertEqual(await self.finding(), ill("HTTP 503"))
        await peer.has_all()
        peer.send(b"no")
        await peer.is_lost()
        self.assertFalse(peer.was_reset())

    async def test_no_answer_in_time(self) -> None:
        timed_out = "timed out after 1 s"
        for said, why in ((b"", ""), (b"220 mail\r\n", ": no SSH banner: 220 mail")):
            checking = self.check("ssh")
            peer = await self.peer(1)
            peer.send(said)
            while checking.received < len(said):
                await deferLater(reactor, 0)
            self.time.advance(0.99)
            self.assertEqual(self.found, [])
            self.time.advance(0.01)
            self.assertEqual(await self.finding(), ill(f"{timed_out}{why}"))
            await peer.is_lost()
            self.assertFalse(peer.was_reset())
            self.assert_nothing_left()

    async def test_closes(self) -> None:
        for said, leave, why in (
            (b"", Peer.close, "connection closed without an answer"), (b"-", Peer.close, "no PONG: -"),
            (b"", Peer.reset, "connection reset"),
        ):  # fmt: skip
            checking = self.check("redis")
            peer = await self.peer(1)
            peer.send(said)
            leave(peer)
            self.assertEqual(await self.finding(), ill(why))
            await peer.is_lost()
            await self.is_over()
            checking.abort()

    async def test_endless(self) -> None:
        endless = ill("no HTTP answer in 64 KiB: SSH" + "x" * 77 + "…")
        for beginning, finding in ((b"HTTP/1.1 200 OK\r\n\r\n", WELL), (b"SSH", endless)):
            checking = self.check("http")
            peer = await self.peer()
            peer.send(beginning + b"x" * (40 * LONGEST_ANSWER))
            self.assertEqual(await self.finding(), finding)
            await peer.is_lost()
            self.assertLess(checking.received, 3 * LONGEST_ANSWER)
            await self.is_over()

    # Checks that are cut off.

    async def test_cut_off(self) -> None:
        checking = self.check("redis")
        peer = await self.peer(1)
        checking.abort()
        self.assert_nothing_left()
        await peer.is_lost()
        self.assertEqual(self.found, [])
        self.check("tcp", server_at(make_stalled_port(self))).abort()  # connecting
        self.assert_nothing_left()
        self.assertEqual(self.found, [])

    async def test_aborted_by_result(self) -> None:
        for answer in (b"+PONG\r\n", b"-LOADING\r\n", b""):
            checking = self.check("redis")

            def cut(finding: CheckResult, checking: CheckRun = checking) -> None:
                self.found.append(finding)
                checking.abort()

            checking.on_result = cut
            peer = await self.peer()
            peer.send(answer)
            peer.finish()
            await self.finding()
            await peer.is_lost()
            self.assert_nothing_left()

    # A server that is asked at one of two ports, of which clients know the first.

    def ask(
        self, text: str, port: int = 0, *, proxy_protocol: Any = "off", tls: Any = None
    ) -> None:
        target = server_at(port or listen(self, self.clients))
        check = read_check(text)
        backend = Backend("b", (target,), check=check, proxy_protocol=proxy_protocol)
        asking = ProbeTarget(backend, check, tls.wrap if tls else None)
        member = Member(target, target, "a.example")
        self.found, self.connected = [], len(self.server.peers)
        checking = asking.make_check(self.time.clock, member, self.found.append)
        asking.start_check(checking, self.runtime.dialler, member)

    async def answered(self, answer: bytes = b"+PONG\r\n") -> tuple[bytes, CheckResult]:
        peer = await self.peer()
        await peer.until(lambda: peer.received.endswith(b"\n"))
        peer.send(answer)
        found = await self.finding()
        await peer.is_lost()
        return bytes(peer.received), found

    async def test_other_port(self) -> None:
        """At another port there is neither the header nor the TLS of the service, and clients' port is left alone."""
        port = listen(self, self.server)
        tls = BackendTLS(ServerTLS(ca=self.certificate.chain))
        self.ask(f"redis port={port}", proxy_protocol="v2", tls=tls)
        self.assertEqual(await self.answered(), (b"*1\r\n$4\r\nPING\r\n", WELL))
        self.assertEqual(self.clients.peers, [])

    async def test_requests_of_http(self) -> None:
        own = r"send='HEAD /x HTTP/1.0\r\n\r\n' expect=500-599"
        rows = ("", b"200 OK", b"Host: a.example:%d\r\n"), (own, b"503 Busy", b"")
        for keys, answer, host in rows:
            port = listen(self, self.server)
            self.ask(f"http port={port} {keys}")
            request, found = await self.answered(b"HTTP/1.1 %s\r\n" % answer)
            self.assertEqual(found, WELL)
            if host:
                self.assertIn(host % port, request)
            else:
                self.assertEqual(request, b"HEAD /x HTTP/1.0\r\n\r\n")

    async def test_tls_of_check_and_backend(self) -> None:
        """With ``tls=yes`` a check speaks TLS to a server whose clients do so themselves, whatever its certificate."""
        for text in ("redis tls=yes", "redis tls=yes sni=b.example"):
            self.ask(text, self.secure_port())
            self.assertEqual(await self.answered(), (b"*1\r\n$4\r\nPING\r\n", WELL))
        self.assertEqual(self.names, [b"a.example", b"b.example"])
        self.ask(f"redis tls=yes port={self.secure_port()}")
        self.assertEqual((await self.answered())[1], WELL)
        # Where the backend has TLS, the check verifies the certificate as well; with ``tls=no`` it has none.
        tls = BackendTLS(ServerTLS(name="b.example", ca=self.certificate.chain))
        self.ask("redis tls=yes", self.secure_port(), tls=tls)
        self.assertIn("not for b.example", (await self.finding()).why)
        await self.is_over()
        self.ask("redis tls=no", listen(self, self.server), tls=tls)
        self.assertEqual(await self.answered(), (b"*1\r\n$4\r\nPING\r\n", WELL))

    async def received(self, version: Any) -> tuple[bytes, Peer]:
        self.port = listen(self, self.server)
        self.check("redis", server_at(self.port), header=header_of_check(version))
        peer = await self.peer()
        await peer.until(lambda: peer.received.endswith(b"PING\r\n"))
        peer.send(b"+PONG\r\n")
        self.assertEqual(await self.finding(), WELL)
        await peer.is_lost()
        return bytes(peer.received).removesuffix(b"*1\r\n$4\r\nPING\r\n"), peer

    async def test_header_versions(self) -> None:
        self.assertEqual((await self.received("off"))[0], b"")
        self.assertEqual((await self.received("v2"))[0], encode_v2(ProxyHeader(Command.LOCAL)))
        header, peer = await self.received("v1")
        ports = f"{peer.transport.getPeer().port} {self.port}"
        self.assertEqual(header, f"PROXY TCP4 127.0.0.1 127.0.0.1 {ports}\r\n".encode())
        folder = make_folder(self)  # header at unix
        self.addCleanup(reactor.listenUNIX(f"{folder}/socket", self.server).stopListening)
        self.check("tcp", server(f"unix:{folder}/socket"), header=header_of_check("v1"))
        peer = await self.peer()
        await peer.is_lost()
        self.assertEqual(peer.received, b"PROXY UNKNOWN\r\n")
        self.ask("tcp tls=yes", listen(self, self.server), proxy_protocol="v2")
        peer = await self.peer(17)
        self.assertEqual(peer.received[:17], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0\x16")
        peer.close()
        await self.finding()
        await peer.is_lost()

    @cached_property
    def tls(self) -> BackendTLS:
        return BackendTLS(ServerTLS(ca=self.certificate.chain))

    def check_tls(self, kind: str, name: str = "a.example", port: int = 0) -> CheckRun:
        target = server_at(port or self.secure_port())
        return self.check(kind, target, wrap=lambda factory: self.tls.wrap(factory, name))

    async def test_tcp_verifies_certificate(self) -> None:
        self.check_tls("tcp")
        self.assertEqual(await self.finding(), WELL)
        await self.is_over()
        self.check_tls("tcp", "b.example")
        why = "its certificate is for a.example, not for b.example; see tls_name"
        self.assertEqual(await self.finding(), ill(why))
        await self.is_over()

    async def test_tls_endpoint(self) -> None:
        roots = f"trustRoots={self.certificate.chain.parent}"
        self.check("tcp", server(f"tls:127.0.0.1:{self.secure_port()}:{roots}"))
        why = "its certificate is for a.example, not for 127.0.0.1"
        self.assertEqual(await self.finding(), ill(why))
        await self.is_over()
        port = listen(self, self.server)
        rows = (
            (b"", "connection closed during the TLS handshake"),
            (b"220 mail\r\n", "the TLS handshake failed: wrong version number"),
        )
        for answer, why in rows:
            self.check("tcp", server(f"tls:127.0.0.1:{port}"))
            peer = await self.peer(1)
            peer.send(answer)
            peer.close()
            self.assertEqual(await self.finding(), ill(why))
            await self.is_over()

    async def test_no_tls_handshake(self) -> None:
        port = listen(self, self.server)
        self.check_tls("tcp", port=port)
        peer = await self.peer(1)
        self.time.advance(1)
        self.assertEqual(await self.finding(), ill("timed out after 1 s"))
        await peer.is_lost()
        checking = self.check_tls("tcp", port=port)
        peer = await self.peer(1)
        checking.abort()
        await peer.is_lost()
        self.assertEqual(self.found, [])
        self.check_tls("tcp", port=port)
        peer = await self.peer(1)
        peer.close()
        why = "it closed the connection instead of answering with TLS"
        self.assertEqual(await self.finding(), ill(why))
        self.assert_nothing_left()

    async def test_tls_server_that_hangs_or_closes(self) -> None:
        for answer, finding in ((b"", ill("timed out after 1 s")), (b"+PONG\r\n", WELL)):
            self.check_tls("redis")
            peer = await self.peer(14)
            peer.transport.pauseProducing()
            if answer:
                peer.send(answer)
                await self.finding()
            self.time.advance(1)
            self.assertEqual(await self.finding(), finding)
            await deferLater(reactor, 0)
            peer.transport.resumeProducing()
            await peer.has_all()
            self.assertTrue(peer.was_reset())
            await self.is_over()
        for leave in (Peer.close, Peer.reset):
            self.check_tls("redis")
            peer = await self.peer(1)
            leave(peer)
            self.assertEqual(await self.finding(), ill("connection closed without an answer"))
            await self.is_over()
