"""Small servers for the demo."""

import socket
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import X509, PKey
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

from txmux.net.relay.peers import IRelayTransport
from txmux.net.tls.self_signed import self_signed
from txmux.rules.embedding import route
from txmux.rules.model import InProcess, Listener, Rules, Settings
from txmux.serving.embedded import EmbeddedService

IDENTIFICATION = b"SSH-2.0-txmux_demo\r\n"  # RFC 4253, section 4.2

GOODBYE = "demo: your client was recognised as SSH"

_LONGEST = 35_000  # bytes of a packet: RFC 4253, section 6.1


@implementer(IHalfCloseableProtocol)
class _DemoServer(Protocol):
    """Reads only as fast as its client does, and answers a client that has finished sending before it closes."""

    transport: IRelayTransport

    def connectionMade(self) -> None:
        self.transport.registerProducer(self.transport, streaming=True)

    def close(self) -> None:
        # A transport does not close while it has a producer that it has paused.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def readConnectionLost(self) -> None:
        self.close()

    def writeConnectionLost(self) -> None:
        pass


class _Echo(_DemoServer):
    """Sends every byte back (RFC 862)."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class _Redis(_DemoServer, LineOnlyReceiver):
    """Answers ``PING``, inline or as an array (Redis serialization protocol), and all other commands with an error."""

    delimiter = b"\n"
    _is_inline = _is_name_next = True

    def lineReceived(self, line: bytes) -> None:
        if line.startswith(b"*"):
            self._is_inline, self._is_name_next = False, True
        elif self._is_name_next and not line.startswith(b"$"):
            self._is_name_next = self._is_inline
            is_ping = line.strip().upper() == b"PING"
            self.transport.write(b"+PONG\r\n" if is_ping else b"-ERR the demo knows only PING\r\n")


class _SSH(_DemoServer):
    """Greets, and ends a key exchange with a disconnect in a way that ``ssh`` prints."""

    _received = b""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.write(IDENTIFICATION)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        _, newline, packet = self._received.partition(b"\n")
        # To close before the client's first packet is read would reset the connection.
        if newline and len(packet) >= 4 + int.from_bytes(packet[:4].ljust(4, b"\xff"), "big"):
            self.transport.write(_disconnect())
            self.close()
        elif len(self._received) > _LONGEST:
            self.close()


def _disconnect() -> bytes:
    """Make the packet that ends a connection (RFC 4253, sections 6 and 11.1)."""
    text = GOODBYE.encode()
    payload = struct.pack(">BII", 1, 11, len(text)) + text + bytes(4)
    padding = 4 + -(5 + len(payload) + 4) % 8
    return struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)


class _DemoFactory(ServerFactory):
    noisy = False

    def __init__(self, protocol: type[_DemoServer]) -> None:
        self.protocol = protocol


ECHO, REDIS, SSH = map(_DemoFactory, (_Echo, _Redis, _SSH))
"""Stateless, so one of each serves all demos."""


def examples(port: int) -> list[tuple[str, str]]:
    """Return commands to try, each with what will be seen."""
    return [
        (f"curl -k https://localhost:{port}/", "a page that says what happened"),
        (f"curl http://localhost:{port}/", "the same page, without TLS"),
        (f"redis-cli -p {port} ping", "PONG"),
        (f"ssh -p {port} localhost", f"... {GOODBYE}"),
        (f"echo knock | nc -q 1 localhost {port}", "knock: what nothing matches is echoed"),
        (f"nc localhost {port}", f"type nothing, wait: {IDENTIFICATION.decode().strip()} comes"),
    ]


def hints(port: int) -> str:
    width = max(len(command) for command, _ in examples(port))
    lines = (f"  {command:<{width}}  # {seen}" for command, seen in examples(port))
    return "\n".join(
        [
            f"txmux demo: HTTPS, HTTP, Redis, SSH and more, all on port {port}. Try, in another terminal:",
            "",
            *lines,
            "",
            "Ctrl-C stops it.",
        ]
    )


class _DemoPage(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> int:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        host: Any = request.getHost()
        rows = "\n".join(f"  {command}\n      {seen}" for command, seen in examples(host.port))
        saw = f"{request.method.decode()} of {request.clientproto.decode()}"
        if request.isSecure():
            saw = "ClientHello of TLS"
        page = (
            f"Your connection was recognised as {'TLS' if request.isSecure() else 'HTTP'}.\n\n"
            f"txmux read its first bytes, saw the {saw}, and handed it,\n"
            f"those bytes included, to this page. The same port, {host.port}, also answers:\n\n{rows}\n"
        )
        # Without a length, the client reads until the end: one that closes before TLS's goodbye resets the connection.
        request.clientproto = b"HTTP/1.0"
        request.setHeader(b"connection", b"close")
        request.channel.persistent = False
        request.write(page.encode())
        request.finish()
        return NOT_DONE_YET


class PageSite(Site):
    """A web site of one page."""

    noisy = False
    displayTracebacks = False

    def __init__(self) -> None:
        super().__init__(_DemoPage())

    def log(self, request: Request) -> None:
        pass  # the access log of txmux has a line for each connection


class _DemoService(EmbeddedService):
    """Says what to try when it has started."""

    def startService(self) -> None:
        super().startService()
        port: Any = self.ports[0].getHost()
        print(hints(port.port), flush=True)


def demo_service(port: int) -> EmbeddedService:
    """Make the demo, on the loopback addresses only; port 0 is any that is free, on 127.0.0.1."""
    endpoints = [f"127.0.0.1:{port}"]
    if port and _has_ipv6_loopback():
        endpoints.append(f"[::1]:{port}")
    ssh = InProcess("demo-ssh", SSH)
    listener = Listener("demo", tuple(endpoints), silent=ssh, default=InProcess("demo-echo", ECHO))
    routes = (
        route("ssh", ssh),
        route("tls", InProcess("demo-https", _over_tls(PageSite()))),
        route("http", InProcess("demo-page", PageSite())),
        route("redis", InProcess("demo-redis", REDIS)),
    )
    return _DemoService(Rules(Path("demo"), Settings(drain_timeout=2.0), (listener,), routes))


def _over_tls(site: Site) -> TLSMemoryBIOFactory:
    """Wrap a site in TLS, with a self-signed certificate for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = self_signed(key, "localhost", now - timedelta(days=1), now + timedelta(days=30))
    options = CertificateOptions(
        PKey.from_cryptography_key(key), X509.from_cryptography(certificate)
    )
    return TLSMemoryBIOFactory(options, isClient=False, wrappedFactory=site)


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
