"""HAProxy that checks servers, chooses among them and shares their limits, beside txmux."""

import contextlib
import socket
import ssl
import time
from textwrap import indent
from typing import Any

from tests.interop.converted.sidebyside import SideBySideTestCase, await_heard, heard, replying
from tests.support.kit import PATIENCE, Named, eventually, free_port, make_certificate

_IN_TIME = "timeout check 1m"
"""Without this, a check that takes longer than its interval has failed, as it may on a busy machine."""


class ServerTests(SideBySideTestCase):
    program = "haproxy"

    def test_connections_end_with_their_server(self) -> None:
        """The file of Patroni, of which a failover must not leave clients at the old primary."""
        states = {b"HEAD /primary": b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"}
        self.servers["agent"] = Named(self, answer=replying(states))
        self.start(
            """
            listen primary
                bind 127.0.0.1:<port>
                option httpchk HEAD /primary
                http-check expect status 200
                default-server inter 100ms fall 2 rise 2 on-marked-down shutdown-sessions
                server pg1 <pg> maxconn 100 check port <agent.port>
            """
        )
        self.assertIn("\nend_on_down = yes\n", self.found.text)
        with contextlib.ExitStack() as opened:
            places = [("127.0.0.1", ports["port"]) for ports in self.ports]
            clients = [socket.create_connection(place, PATIENCE) for place in places]
            for client in clients:
                opened.enter_context(client)
                self.assertEqual(client.recv(10), b"pg\n")
            states[b"HEAD /primary"] = b"HTTP/1.0 503 No\r\nContent-Length: 0\r\n\r\n"
            for client in clients:
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(client.recv(10), b"")

    def answering(self, status: str, tls: ssl.SSLContext | None = None, after: float = 0) -> Named:
        def answer(connection: socket.socket) -> None:
            stream = tls.wrap_socket(connection, server_side=True) if tls else connection
            with stream:
                received = b""
                while b"\r\n\r\n" not in received:
                    piece = stream.recv(4096)
                    if not piece:
                        return
                    received += piece
                server.heard.append(received)
                time.sleep(after)
                stream.sendall(f"HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                while stream.recv(4096):
                    pass

        server = Named(self, answer=answer)
        return server

    def listen(self, *lines: str, server: str) -> tuple[int, ...]:
        self.ports = [{}, {}]
        text = indent("\n".join(lines), "    ")
        self.start(f"listen f\n    bind 127.0.0.1:<port>\n{text}\n    server s {server}\n")
        return tuple(ports["port"] for ports in self.ports)

    def assert_asked(self, checked: Named) -> None:
        eventually(lambda: len(checked.heard) >= 12, "the server is asked")

    def test_other_port(self) -> None:
        """A check at another port, as of Patroni, is without the PROXY header, and decides about the service."""
        for status, expected in (("200 OK", "a"), ("503 Replica", "")):
            patroni = self.answering(status)
            server = f"<a> send-proxy check port {patroni.port} inter 100"
            self.listen("option httpchk GET /primary", server=server)
            self.assert_asked(patroni)
            self.await_alike({"http": expected})
            self.assert_alike({"http": expected})
            asked = {line.split(b"\r\n")[0] for line in patroni.heard}
            self.assertEqual(asked, {b"GET /primary HTTP/1.0"})

    def test_checked_services(self) -> None:
        """With TLS, by method, path, host and status, and one whose slow answer is waited for; both ask for the same."""
        certificate = make_certificate(self.own_folder, "www.example.com")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain, certificate.key)
        plain: dict[str, Any] = {}
        denied = "http-check expect status 401"
        for lines, status, how, more in (
            (("option httpchk GET /ready",), "200 OK", {"tls": context}, "check-ssl verify none"),
            (("option httpchk", denied), "401 Denied", plain, ""),
            (("option httpchk HEAD /x", denied), "401 Denied", plain, ""),
            (("option httpchk", "http-check send meth GET uri /y ver HTTP/1.1 hdr Host a.example", denied), "401 Denied", plain, ""),
            (("option httpchk", "http-check send meth HEAD uri /z ver HTTP/1.1 hdr Host b.example", denied), "401 Denied", plain, ""),
            (("option httpchk",), "200 OK", {"after": 0.6}, "fall 1"),
        ):  # fmt: skip
            service = self.answering(status, **how)
            server = f"127.0.0.1:{service.port} check inter 100 {more}"
            ports = self.listen(*lines, _IN_TIME, server=server)
            self.assert_asked(service)
            if how is plain:
                self.assertEqual(len(set(map(_asked, service.heard))), 1, service.heard)
            client = "tls www.example.com http" if "tls" in how else "http"
            self.assertEqual([heard(client, port) for port in ports], [f"HTTP/1.0 {status}"] * 2)

    def test_server_without_port_has_that_of_the_clients(self) -> None:
        self.ports = [{"port": free_port()} for _ in range(2)]
        for ports in self.ports:
            Named(self, "a", host="127.0.0.3", port=ports["port"])
        self.prove("listen f\n    bind 127.0.0.1:<port>\n    server s 127.0.0.3\n", {"a": "text"})

    def test_clients_wait_for_a_full_server(self) -> None:
        for port in self.listen(server="<a> maxconn 1"):
            first = socket.create_connection(("127.0.0.1", port), PATIENCE)
            self.assertEqual(first.recv(9), b"a\n")
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as second:
                second.settimeout(0.5)
                self.assertRaises(TimeoutError, second.recv, 9)
                first.close()
                second.settimeout(PATIENCE)
                self.assertEqual(second.recv(9), b"a\n")

    def test_connections_of_a_source(self) -> None:
        """At once, and in a while."""
        self.start(
            """
            frontend f
                bind 127.0.0.1:<port>
                stick-table type ip size 10k expire 30s store conn_cur
                tcp-request connection track-sc0 src
                tcp-request connection reject if { sc0_conn_cur gt 2 }
                default_backend a
            frontend g
                bind 127.0.0.1:<port1>
                tcp-request connection track-sc0 src table rates
                tcp-request connection reject if { sc0_conn_rate(rates) gt 5 }
                default_backend a
            backend a
                server s <a>
            backend rates
                stick-table type ip size 10k expire 2m store conn_rate(1m)
            """
        )
        self.assertNotIn("LOOK", self.found.text)
        for ports in self.ports:
            port = ports["port"]
            first, second = (socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in "ab")
            with second:
                self.assertEqual([one.recv(9) for one in (first, second)], [b"a\n", b"a\n"])
                self.assertEqual(heard("silent", port), "")
                self.assertEqual(heard("silent", port, source="127.0.0.2"), "a")
                first.close()
                await_heard("silent", port, "a")
            answers = [heard("silent", ports["port1"]) for _ in range(7)]
            self.assertEqual(answers, ["a"] * 5 + [""] * 2)


def _asked(request: bytes) -> tuple[bytes, bytes]:
    first, *headers = request.split(b"\r\n")
    hosts = [header for header in headers if header.lower().startswith(b"host:")]
    return first, b"".join(hosts).lower()
