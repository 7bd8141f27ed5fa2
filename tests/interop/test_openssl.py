"""OpenSSL's own client and server through txmux, a hello that comes a byte at a time, and what it says first over DTLS."""

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from tests.interop.children import PATIENCE, Child, InteropTestCase, output_of, run
from tests.interop.servers import make_certificate
from tests.support.services import Service
from txmux.interfaces import Datagrams, Verdict
from txmux.matchers.dtls import dtls

T = TypeVar("T")

_LINGERS = 0.5  # seconds

_RULES = """
[listen public]
endpoint       = 127.0.0.1:0
detect_timeout = 1h

[route echo]
match   = tls sni=echo.example.com
backend = 127.0.0.1:{echo}

[route sink]
match   = tls sni=sink.example.com
backend = 127.0.0.1:{sink}
"""


class OpenSslTests(InteropTestCase):
    """Two TLS servers: one answers each line with its reverse, the other prints what it is sent."""

    sink: ClassVar[Child]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "echo.example.com", "sink.example.com")
        echo = cls.start_server("-rev")
        cls.sink = cls.start_server()
        ports = [server.wait_for(r"^ACCEPT .*:(\d+)$")[1] for server in (echo, cls.sink)]
        cls.mux = cls.share(Service(cls.folder, _RULES.format(echo=ports[0], sink=ports[1])))

    @classmethod
    def start_server(cls, *options: str) -> Child:
        identity = ("-cert", cls.certificate.chain, "-key", cls.certificate.key)
        return cls.share(
            Child(
                "openssl",
                *("s_server", "-accept", "127.0.0.1:0", "-alpn", "h2,http/1.1"),
                *identity,
                *options,
                stdin=True,
            )
        )

    def client(self, name: str, *options: str, said: bytes) -> str:
        trust = ("-CAfile", self.certificate.chain, "-verify_return_error", "-servername", name)
        address = f"127.0.0.1:{self.mux.port}"
        began = time.monotonic()
        output = output_of("openssl", "s_client", "-connect", address, *trust, *options, stdin=said)
        # For so long it waits for what the server says last; what comes later, it refuses.
        is_late = time.monotonic() - began >= _LINGERS
        self.ends = {"done", "client-reset"} if is_late else {"done"}
        return output.decode()

    def test_versions_and_application_protocol(self) -> None:
        for option, version, short in (
            ("-tls1_2", "TLSv1.2", "1.2"),
            ("-tls1_3", "TLSv1.3", "1.3"),
        ):
            said = self.client("echo.example.com", option, "-alpn", "spdy/3,h2", said=b"")
            self.assertIn(f"New, {version}, Cipher is ", said)
            self.assertIn("ALPN protocol: h2\n", said)
            self.assertIn("Verify return code: 0 (ok)", said)
            line = self.mux.take_one()
            self.assertRegex(line["facts"].pop("ja4"), "^t1[23]d")
            self.assertEqual(
                line["facts"], {"sni": "echo.example.com", "alpn": "spdy/3,h2", "tls": short}
            )
            self.assertEqual(line["route"], "echo")
            self.assertIn(line["reason"], self.ends)

    def test_last_words_and_their_end_arrive(self) -> None:
        self.client("sink.example.com", said=b"last words\n")
        self.sink.wait_for(r"^last words$(.|\n)*^DONE$")
        line = self.mux.take_one()
        self.assertEqual(line["route"], "sink")
        self.assertIn(line["reason"], self.ends)

    def test_unknown_name_is_closed_and_logged(self) -> None:
        done = run(
            "openssl",
            *("s_client", "-connect", f"127.0.0.1:{self.mux.port}"),
            *("-servername", "other.example.com"),
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"no peer certificate available", done.stdout)
        line = self.mux.take_one()
        self.assertEqual((line["route"], line["backend"], line["reason"]), (None, None, "no-route"))
        self.assertEqual(line["facts"]["sni"], "other.example.com")
        self.assertEqual(line["bytes_out"], 0)

    def test_hello_byte_by_byte(self) -> None:
        context = ssl.create_default_context(cafile=str(self.certificate.chain))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="echo.example.com")

        def finish(step: Callable[[], T]) -> T:
            with contextlib.suppress(ssl.SSLWantReadError):
                return step()
            _send_slowly(client, outgoing.read())
            incoming.write(client.recv(2**16))
            return finish(step)

        with self.mux.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            finish(tls.do_handshake)
            tls.write(b"hello\n")
            self.assertEqual(finish(tls.read), b"olleh\n")
        line = self.mux.take_one()
        self.assertEqual((line["route"], line["facts"]["sni"]), ("echo", "echo.example.com"))
        self.assertGreater(line["detect_ms"], 100)  # it was not put together again on its way


def _send_slowly(client: socket.socket, data: bytes) -> None:
    """Send byte by byte, with time between them to be read alone."""
    for position in range(len(data)):
        client.sendall(data[position : position + 1])
        select.select([client], [], [], 0.0005)


_COOKIE = b"cookie" * 5
_BODY = b"\xfe\xff" + bytes([len(_COOKIE)]) + _COOKIE
_LENGTH = len(_BODY).to_bytes(3, "big")
_HELLO_VERIFY = b"\3" + _LENGTH + bytes(5) + _LENGTH + _BODY
_ASKS_FOR_COOKIE = (
    b"\x16\xfe\xff" + bytes(8) + len(_HELLO_VERIFY).to_bytes(2, "big") + _HELLO_VERIFY
)
"""A HelloVerifyRequest (RFC 6347, section 4.2.1)."""


def verdict(flow: Sequence[bytes], **options: str) -> Verdict:
    return dtls.predicate(options)(Datagrams(tuple(flow)))


class DtlsClientTests(InteropTestCase):
    def client(self, *options: str) -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(server.close)
        server.settimeout(PATIENCE)
        server.bind(("127.0.0.1", 0))
        to = f"127.0.0.1:{server.getsockname()[1]}"
        words = ("s_client", "-connect", to, "-servername", "www.example.com", *options)
        self.own(Child("openssl", *words, stdin=True))
        return server

    def test_hello_and_hello_with_cookie(self) -> None:
        server = self.client("-dtls", "-alpn", "coap,webrtc")
        first, address = server.recvfrom(65536)
        server.sendto(_ASKS_FOR_COOKIE, address)
        second = server.recv(65536)
        while _COOKIE not in second:  # it says the first one again when the answer takes a second
            second = server.recv(65536)
        for hello in (first, second):
            flow = [hello]
            self.assertIs(verdict(flow), Verdict.MATCH)
            self.assertIs(verdict(flow, sni="*.example.com", alpn="coap"), Verdict.MATCH)
            self.assertIs(verdict(flow, version="1.2"), Verdict.MATCH)
            self.assertIs(verdict(flow, sni="*.example.org"), Verdict.NO)

    def test_hello_in_fragments(self) -> None:
        protocols = ",".join(f"protocol-{number}" for number in range(30))
        server = self.client("-dtls1_2", "-mtu", "300", "-alpn", protocols)
        flow = [server.recv(65536), server.recv(65536)]
        wanted = {"sni": "www.example.com", "alpn": "protocol-29"}
        self.assertIs(verdict(flow[:1]), Verdict.MATCH)
        self.assertIs(verdict(flow[:1], **wanted), Verdict.NEED_MORE)
        while verdict(flow, **wanted) is Verdict.NEED_MORE and len(flow) < 4:
            flow.append(server.recv(65536))
        self.assertIs(verdict(flow, **wanted), Verdict.MATCH)
        self.assertIs(verdict(flow[::-1], **wanted), Verdict.MATCH)
