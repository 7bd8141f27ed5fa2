"""HAProxy, and txmux with its converted configuration, side by side: the same clients reach the same servers."""

from __future__ import annotations

import socket
import ssl
import sys
import tempfile
import time
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually, run
from tests.interop.mux import Twist
from tests.interop.originals import (
    CLOSED,
    HALF_HELLO,
    HELLO,
    HTTP,
    Named,
    client_hello,
    said_at_once,
    said_to,
    start_converted,
)
from tests.interop.servers import make_certificate
from tests.processes.running import family_of
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.convert.formats import Conversion

_DEFAULTS = """
defaults
    mode tcp
    timeout connect 3m
    timeout client 3m
    timeout server 3m
"""
_CLIENTS: Mapping[str, bytes] = {
    "silent": b"",
    "http": HTTP,
    "tls": HELLO,
    "x": client_hello("x.example"),
    "half": HALF_HELLO,
    "other": b"\0\1\2\3\r\n",
}
_MYSQL = b"\x0a5.5.5-fake\0" + bytes(4) + b"saltsalt\0" + bytes(30) + b"\n"
"""What a MySQL server says first (MySQL internals, HandshakeV10)."""

_IN_TIME = "timeout check 1m"
"""Without this, a check that takes longer than its interval has failed, as it may on a busy machine."""

_ELSEWHERE = "127.0.0.2"
"""Another address that clients come from."""


class SideBySideTestCase(InteropTestCase):
    """One configuration, two programs.

    Attributes:
        found: What came of the conversion.
        processes: Those of both.
    """

    found: Conversion
    processes: list[int]

    def both(self, text: str, ports: tuple[int, int] | None = None) -> tuple[int, int]:
        """Start HAProxy, and txmux with what its configuration becomes; give their ports.

        Args:
            text: The sections, with ``PORT`` where they listen.
            ports: Theirs; by default any.
        """
        ports = ports or (free_port(), free_port())
        whole = _DEFAULTS + dedent(text)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        file = folder / "haproxy.cfg"
        file.write_text(whole.replace("PORT", str(ports[0])))
        original = Child("haproxy", "-W", "-db", "-f", file)
        self.addCleanup(original.end)
        original.wait_for("Loading success")
        text = whole.replace("PORT", str(ports[1]))
        self.found, mux = start_converted(self, text, "haproxy")
        self.processes = [*family_of(original.pid), mux.child.pid]
        return ports

    def heard(self, port: int, data: bytes = b"", source: str = "127.0.0.1") -> str:
        """Say something as one client, and give what it hears; see `said_at_once`."""
        (answer,) = said_at_once(self.processes, [(port, data, source)])
        return answer

    def frontend(self, *lines: str, backends: str = "") -> tuple[int, int]:
        """Start both with a frontend and two backends."""
        a, b = Named(self, "a"), Named(self, "b")
        text = indent("\n".join(lines), "    ")
        return self.both(
            "frontend f\n    bind 127.0.0.1:PORT\n    tcp-request inspect-delay 500ms\n"
            f"{text}\nbackend a\n{indent(backends, '    ')}\n    server s 127.0.0.1:{a.port}\n"
            f"backend b\n    server s 127.0.0.1:{b.port}\n"
        )

    def assert_same(
        self, ports: tuple[int, int], expected: Mapping[str, str], source: str = "127.0.0.1"
    ) -> None:
        """Check that clients are led to the same servers by both."""
        asked = [(port, client) for port in ports for client in expected]
        clients = [(port, _CLIENTS[client], source) for port, client in asked]
        found = dict(zip(asked, said_at_once(self.processes, clients), strict=True))
        for port, program in zip(ports, ("HAProxy", "txmux"), strict=True):
            here = {client: found[port, client] for client in expected}
            self.assertEqual(here, dict(expected), f"{program}: {self.found.text}")

    def assert_led(self, port: int, expected: str) -> None:
        """Wait until clients are led to a server."""
        eventually(lambda: said_to(port, HTTP) == expected, f"a client hears {expected!r}")


class DecisionTests(SideBySideTestCase):
    """Who is led where."""

    def test_content_rules_of_networks(self) -> None:
        """Who is kept out by its address stays out, also who says nothing."""
        lines = (
            f"tcp-request content reject if !{{ src {_ELSEWHERE} }}",
            "tcp-request content accept if { req_ssl_hello_type 1 }",
            "use_backend a if { req_ssl_hello_type 1 }",
            "default_backend b",
        )
        ports = self.frontend(*lines)
        everybody = dict.fromkeys(_CLIENTS, CLOSED)
        self.assert_same(ports, everybody)
        inside = {"silent": "b", "half": "b", "other": "b", "http": "b", "tls": "a", "x": "a"}
        self.assert_same(ports, inside, _ELSEWHERE)
        self.assertEqual(self.found.warnings, ())

    def test_rules_of_backends(self) -> None:
        """The same where the rule is one of the backend."""
        ports = self.frontend(
            "tcp-request content accept if { req_ssl_hello_type 1 }",
            "use_backend a if { req_ssl_hello_type 1 }",
            "default_backend b",
            backends=f"tcp-request content reject if !{{ src {_ELSEWHERE} }}",
        )
        self.assert_same(ports, {"silent": "b", "http": "b", "tls": CLOSED, "half": "b"})
        self.assert_same(ports, {"silent": "b", "http": "b", "tls": "a"}, _ELSEWHERE)
        self.assertEqual(self.found.warnings, ())

    def test_connection_rules(self) -> None:
        """Exceptions of a rule, and layers that are asked one after another."""
        ports = self.frontend(
            f"tcp-request connection accept if {{ src {_ELSEWHERE} }}",
            "tcp-request connection reject if { src 127.0.0.0/8 }",
            "default_backend a",
        )
        self.assert_same(ports, {"silent": CLOSED, "http": CLOSED})
        self.assert_same(ports, {"silent": "a", "http": "a"}, _ELSEWHERE)
        ports = self.frontend(
            f"tcp-request connection accept if {{ src {_ELSEWHERE} }}",
            "tcp-request session reject",
            "default_backend a",
        )
        for source in ("127.0.0.1", _ELSEWHERE):
            self.assert_same(ports, {"silent": CLOSED, "http": CLOSED}, source)

    def test_not(self) -> None:
        """Who says nothing, or half of it, is led to where those are that are not of a protocol."""
        ports = self.frontend(
            "acl ssl req_ssl_hello_type 1",
            "tcp-request content accept if ssl",
            "use_backend a if !ssl",
            "default_backend b",
        )
        self.assert_same(ports, {"silent": "a", "half": "a", "http": "a", "other": "a", "tls": "b"})
        self.assertEqual(self.found.warnings, ())

    def test_all_but_one_rejected(self) -> None:
        """Neither do they come in where only a protocol does."""
        ports = self.frontend(
            "tcp-request content reject if !{ req_ssl_hello_type 1 }",
            "use_backend a if { req_ssl_sni x.example }",
            "default_backend b",
        )
        closed = dict.fromkeys(("silent", "half", "http", "other"), CLOSED)
        self.assert_same(ports, {**closed, "tls": "b", "x": "a"})
        self.assertEqual(self.found.warnings, ())

    def test_several_lines(self) -> None:
        """A negation of several lines, and of several names."""
        ports = self.frontend(
            "acl web req.payload(0,3) -m bin 504f53",
            "acl web req.payload(0,3) -m bin 474554",
            "acl ssl req_ssl_hello_type 1",
            "tcp-request content accept if { req.len gt 2 }",
            "use_backend a if !web !ssl",
            "default_backend b",
        )
        self.assert_same(ports, {"silent": "a", "other": "a", "http": "b", "tls": "b"})
        self.assertEqual(self.found.warnings, ())


class ServerTests(SideBySideTestCase):
    """How servers are chosen and connected."""

    def test_server_without_port(self) -> None:
        """A server without a port has that of the clients."""
        ports = (free_port(), free_port())
        for port in ports:
            Named(self, "a", host="127.0.0.3", port=port)
        self.both("listen f\n    bind 127.0.0.1:PORT\n    server s 127.0.0.3\n", ports)
        self.assertEqual(self.found.warnings, ())
        self.assertEqual([said_to(port) for port in ports], ["a", "a"])

    def test_route_without_server(self) -> None:
        """Clients of a backend of which no server could be converted are led to no other backend."""
        a, b = Named(self, "a"), Named(self, "b")
        ports = self.both(
            f"""
            frontend f
                bind 127.0.0.1:PORT
                tcp-request inspect-delay 500ms
                tcp-request content accept if {{ req.len gt 0 }}
                use_backend a if HTTP
                default_backend b
            backend a
                server a 127.0.0.1:{a.port} socks4 127.0.0.1:{free_port()}
            backend b
                server b 127.0.0.1:{b.port}
            """
        )
        self.assertTrue(self.found.has_looks)
        file = self.folder / "unseen.ini"
        file.write_text(self.found.text)
        unseen = Twist("--rules", file).child
        self.assertEqual(unseen.wait(), 78)  # EX_CONFIG
        self.assertRegex(
            unseen.output, rf"unseen\.ini:[0-9]+: LOOK: line [0-9]+: server a 127\.0\.0\.1:{a.port}"
        )
        # Nobody is the SOCKS proxy by which HAProxy would reach the server.
        self.assertEqual([self.heard(port, HTTP) for port in ports], [CLOSED, CLOSED])
        self.assertEqual([self.heard(port, HELLO) for port in ports], ["b", "b"])

    def test_typography(self) -> None:
        """What HAProxy refuses for a hyphen that is none, nobody runs by accident."""
        text = (
            _DEFAULTS + "listen f\n    bind 127.0.0.1:1\n    server s 127.0.0.1:2 send\u2013proxy\n"
        )
        file = self.folder / "typography.cfg"
        file.write_text(text)
        self.assertNotEqual(run("haproxy", "-c", "-f", file).returncode, 0)
        found = run(sys.executable, "-m", "txmux", "convert", file)
        self.assertEqual(found.returncode, 2)
        self.assertIn(b":9: LOOK: has U+2013 (EN DASH)", found.stderr)

    def test_weightless(self) -> None:
        """A server of weight 0 gets nobody."""
        a, b = Named(self, "a"), Named(self, "b")
        ports = self.both(
            f"""
            listen f
                bind 127.0.0.1:PORT
                server a 127.0.0.1:{a.port} weight 0
                server b 127.0.0.1:{b.port}
            """
        )
        for port in ports:
            self.assertEqual([said_to(port) for _ in range(4)], ["b"] * 4)

    def test_full(self) -> None:
        """Clients wait for a server that is full."""
        a = Named(self, "a")
        ports = self.both(
            f"""
            listen f
                bind 127.0.0.1:PORT
                server a 127.0.0.1:{a.port} maxconn 1
            """
        )
        for port in ports:
            first = socket.create_connection(("127.0.0.1", port), PATIENCE)
            self.assertEqual(first.recv(9), b"a\n")
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as second:
                second.settimeout(0.5)
                self.assertRaises(TimeoutError, second.recv, 9)
                first.close()
                second.settimeout(PATIENCE)
                self.assertEqual(second.recv(9), b"a\n")

    def test_backups(self) -> None:
        """Of several backups the first one is used."""
        a, b = Named(self, "a"), Named(self, "b")
        gone = free_port()
        ports = self.both(
            f"""
            listen f
                bind 127.0.0.1:PORT
                option redispatch 1
                retries 3
                server gone 127.0.0.1:{gone} check inter 100 fall 1
                server a 127.0.0.1:{a.port} backup
                server b 127.0.0.1:{b.port} backup
            """
        )
        for port in ports:
            self.assert_led(port, "a")
            self.assertEqual([said_to(port) for _ in range(4)], ["a"] * 4)


class CheckTests(SideBySideTestCase):
    """What is asked to find out whether a server is healthy."""

    def answering(
        self, status: str, *, tls: ssl.SSLContext | None = None, after: float = 0
    ) -> Named:
        """Start a server that answers HTTP requests with a status."""

        def answer(connection: socket.socket) -> None:
            stream = tls.wrap_socket(connection, server_side=True) if tls else connection
            with stream:
                heard = b""
                while b"\r\n\r\n" not in heard:
                    piece = stream.recv(4096)
                    if not piece:
                        return
                    heard += piece
                server.heard.append(heard)
                time.sleep(after)
                stream.sendall(f"HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                while stream.recv(4096):
                    pass

        server = Named(self, answer=answer)
        return server

    def listen(self, *lines: str, server: str) -> tuple[int, int]:
        """Start both with one server."""
        text = indent("\n".join(lines), "    ")
        return self.both(f"listen f\n    bind 127.0.0.1:PORT\n{text}\n    server s {server}\n")

    def assert_asked(self, checked: Named, times: int = 6) -> None:
        """Wait until a server has been asked by both, often enough to be taken out."""
        eventually(lambda: len(checked.heard) >= times, "the server is asked")

    def test_other_port(self) -> None:
        """A check at another port, as of Patroni: what it finds there decides about the service."""
        a = Named(self, "a")
        for status, expected in (("200 OK", "a"), ("503 Replica", CLOSED)):
            patroni = self.answering(status)
            ports = self.listen(
                "option httpchk GET /primary",
                server=f"127.0.0.1:{a.port} send-proxy check port {patroni.port} inter 100",
            )
            self.assert_asked(patroni, 12)
            for port in ports:
                # The header of the service's own connections comes first, and nobody reads it here.
                self.assert_led(port, expected)
            self.assertEqual(
                {line.split(b"\r\n")[0] for line in patroni.heard}, {b"GET /primary HTTP/1.0"}
            )

    def test_tls(self) -> None:
        """A check over TLS of a service whose clients speak it themselves."""
        certificate = make_certificate(self.folder, "www.example.com")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain, certificate.key)
        service = self.answering("200 OK", tls=context)
        ports = self.listen(
            "option httpchk GET /ready",
            _IN_TIME,
            server=f"127.0.0.1:{service.port} check inter 100 check-ssl verify none",
        )
        self.assert_asked(service, 12)
        trusting = ssl.create_default_context(cafile=certificate.chain)
        for port in ports:
            plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
            with trusting.wrap_socket(plain, server_hostname="www.example.com") as client:
                client.sendall(HTTP)
                self.assertTrue(client.recv(4096).startswith(b"HTTP/1.0 200 OK"))

    def test_requests(self) -> None:
        """Method, path and host of the request are the same, and so are the statuses that are taken."""
        for lines in (
            ("option httpchk",),
            ("option httpchk HEAD /x",),
            ("option httpchk", "http-check send meth GET uri /y ver HTTP/1.1 hdr Host a.example"),
            ("option httpchk", "http-check send meth HEAD uri /z ver HTTP/1.1 hdr Host b.example"),
        ):
            service = self.answering("401 Denied")
            expect = "http-check expect status 401"
            server = f"127.0.0.1:{service.port} check inter 100"
            ports = self.listen(*lines, _IN_TIME, expect, server=server)
            self.assert_asked(service, 12)
            self.assertEqual(len({_asked(request) for request in service.heard}), 1, service.heard)
            for port in ports:
                self.assertEqual(said_to(port, HTTP).partition("\r\n")[0], "HTTP/1.0 401 Denied")

    def test_protocol(self) -> None:
        """A server that speaks a protocol which only HAProxy asks for stays up."""
        asked: list[bool] = []

        def greet(connection: socket.socket) -> None:
            asked.append(True)
            connection.sendall(len(_MYSQL).to_bytes(3, "little") + b"\0" + _MYSQL)
            while connection.recv(4096):
                pass

        service = Named(self, answer=greet)
        server = f"127.0.0.1:{service.port} check inter 100"
        ports = self.listen("option mysql-check", _IN_TIME, server=server)
        eventually(lambda: len(asked) >= 12, "the server is asked")
        for port in ports:
            self.assertIn("5.5.5", said_to(port))
        self.assertIn("waits for the greeting", self.found.warnings[0])

    def test_slow(self) -> None:
        """A server that takes its time for an answer has as much of it."""
        service = self.answering("200 OK", after=0.6)
        ports = self.listen(
            "option httpchk",
            _IN_TIME,
            server=f"127.0.0.1:{service.port} check inter 100 fall 1",
        )
        self.assert_asked(service, 8)
        for port in ports:
            self.assertEqual(said_to(port, HTTP).partition("\r\n")[0], "HTTP/1.0 200 OK")


def _asked(request: bytes) -> tuple[bytes, bytes]:
    first, *headers = request.split(b"\r\n")
    hosts = [header for header in headers if header.lower().startswith(b"host:")]
    return first, b"".join(hosts).lower()
