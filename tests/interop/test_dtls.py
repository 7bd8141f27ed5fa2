"""What OpenSSL's own client says first over DTLS."""

import socket
from collections.abc import Sequence

from tests.interop.children import PATIENCE, Child, InteropTestCase
from txmux.interfaces import Datagrams, Verdict
from txmux.matchers.dtls import dtls

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
