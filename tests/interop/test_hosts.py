"""What nginx and HAProxy serve as a host, a route of that host takes, however the request is spelt."""

import random
import re
import socket

from tests.interop.servers import start_haproxy, start_nginx
from tests.support.kit import PATIENCE, InteropTestCase, free_port
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.http import http

_HOST, _ADDRESS = "vip.test", "127.0.0.2"
_NGINX = """
server {{ listen 127.0.0.1:{port} default_server; return 200 "other"; }}
server {{ listen 127.0.0.1:{port}; server_name vip.test; return 200 "the host"; }}
"""
_HAPROXY = """
frontend hosts
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain string "the host" if {{ hdr(host),host_only -i vip.test }}
    http-request return status 200 content-type text/plain string "other"
"""
_REQUEST = (b"GET", b" ", b"/", b" ", b"HTTP/1.1", b"\r\n", b"Host:", b" ", b"vip.test", b"\r\n")
_SPELT: dict[int, tuple[bytes, ...]] = {
    0: (b"FOO", b"M-SEARCH", b"_X", b"-", b"OPTIONS", b"\r\n" * 3 + b"GET", b"\n\nGET", b"\r\r\rGET", b"PRI"),
    1: (b"  ", b"\t", b" \t "),
    2: (b"*", b"/%", b"/\xff", b"http://vip.test", b"HTTP://vip.test:x/", b"foo://vip.test/a", b"http://vip.test?a", b"http://other/"),
    3: (b"  ", b"\t", b"      "),
    4: (b"HTTP/1.0", b"HTTP/1.10", b"HTTP/1.99", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.1 ", b"HTTP/1.1   "),
    5: (b"\n", b"\r\nA: b\r\n", b"\r\njunk\r\n", b"\nHos: other\n", b"\r\nA:\r\n b\r\n"),
    6: (b"hOST:", b"Host :", b"Host:\r\n"),
    7: (b"", b"   ", b"\t", b"\r\n "),
    8: (b"VIP.test", b"vip.test.", b"vip.test:", b"vip.test:abc", b"vip.test:80:80", b"vip.test:80/x", b"[vip.test]", b"a@vip.test"),
    9: (b"\n", b"\r\r\n", b" \r\n", b"\t\r\n", b"\r\nHost: other\r\n", b"\r\n\tx\r\n"),
}  # fmt: skip
"""For each part of a request, how else it may be written."""


def spellings() -> list[bytes]:
    """Return a request with each part written in each other way, and some with two or three such parts."""
    chosen = [{place: how} for place, ways in _SPELT.items() for how in ways]
    some = random.Random(1)
    places = (some.sample([*_SPELT], count) for count in (2, 3) * 150)
    chosen += ({place: some.choice(_SPELT[place]) for place in its} for its in places)
    parts = ([one.get(n, part) for n, part in enumerate(_REQUEST)] for one in chosen)
    return [b"".join(request) + b"\r\n" for request in parts]


class HostTests(InteropTestCase):
    def test_no_server_takes_another_request_for_the_host(self) -> None:
        ports = {"nginx": free_port(), "haproxy": free_port()}
        self.own(start_nginx(self.make_folder(), _NGINX.format(port=ports["nginx"])))
        self.own(start_haproxy(self.make_folder(), _HAPROXY.format(port=ports["haproxy"])))
        of_host, served = http.predicate({"host": _HOST}), dict.fromkeys(ports, 0)
        for request in spellings():
            verdict = of_host(Peeked(request))
            for server, port in ports.items():
                if b"the host" in answered(port, request):
                    served[server] += 1
                    self.assertIs(verdict, Verdict.MATCH, (server, request))
        self.assertGreater(min(served.values()), 40, served)


def answered(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.settimeout(PATIENCE)
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while not re.search(rb"the host|other|</html>", answer):
            try:
                more = client.recv(1 << 16)
            except ConnectionResetError:
                break
            if not more:
                break
            answer += more
        return answer
