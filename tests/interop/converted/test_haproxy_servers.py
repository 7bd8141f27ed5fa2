"""HAProxy that checks servers, chooses among them and shares their limits, beside txmux."""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from textwrap import indent

from tests.interop.children import PATIENCE, eventually
from tests.interop.converted.sidebyside import SideBySideTestCase, heard
from tests.interop.originals import Named
from tests.interop.servers import make_certificate
from tests.support.ports import free_port


def _answering(
    replies: dict[bytes, bytes], greeting: bytes = b""
) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.sendall(greeting)
        said = b""
        while piece := connection.recv(4096):
            said += piece
            for word, reply in replies.items():
                if word in said:
                    said = said.partition(word)[2]
                    connection.sendall(reply)

    return talk


class CheckedTests(SideBySideTestCase):
    program = "haproxy"

    def serve(self, name: str, replies: dict[bytes, bytes], greeting: bytes = b"") -> None:
        self.servers[name] = Named(self, name, answer=_answering(replies, greeting))

    def test_postgres_primary_by_http_of_its_agent(self) -> None:
        self.serve("good", {b"\r\n\r\n": b"HTTP/1.0 200 OK\r\n\r\n"})
        self.serve("bad", {b"\r\n\r\n": b"HTTP/1.0 503 No\r\n\r\n"})
        self.start(
            "defaults\n    mode tcp\nlisten x\n    bind 127.0.0.1:<port9>\n    server a <good>\n    server b <bad>\n"
        )
        ports = {name: server.port for name, server in self.servers.items()}
        self.prove(
            f"""
            global
                maxconn 100
            defaults
                log global
                mode tcp
                retries 2
                timeout client 30m
                timeout connect 4s
                timeout server 30m
                timeout check 5s
            listen primary
                bind 127.0.0.1:<port>
                option httpchk OPTIONS /primary
                http-check expect status 200
                default-server inter 100ms fall 2 rise 1
                server pg1 <replica> maxconn 100 check port {ports["bad"]}
                server pg2 <primary> maxconn 100 check port {ports["bad"]} backup
            listen other
                bind 127.0.0.1:<port1>
                option httpchk GET /replica
                http-check expect status 200
                default-server inter 100ms fall 2 rise 1
                server pg1 <replica> maxconn 100 check port {ports["good"]}
            """,
            {"": "silent"},
            {"replica": "silent"},
            soon=True,
        )

    def test_connections_end_with_their_server(self) -> None:
        """The file of Patroni, of which a failover must not leave clients at the old primary."""
        states = {b"HEAD /primary": b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"}
        self.servers["agent"] = Named(self, answer=_answering(states))
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
            clients = [
                socket.create_connection(("127.0.0.1", ports["port"]), PATIENCE)
                for ports in self.ports
            ]
            for client in clients:
                opened.enter_context(client)
                self.assertEqual(client.recv(10), b"pg\n")
            states[b"HEAD /primary"] = b"HTTP/1.0 503 No\r\nContent-Length: 0\r\n\r\n"
            for client in clients:
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(client.recv(10), b"")

    def test_redis_master(self) -> None:
        for name, role in (("first", b"slave"), ("second", b"master")):
            self.serve(
                name,
                {
                    b"PING\r\n": b"+PONG\r\n",
                    b"info replication\r\n": b"$20\r\nrole:" + role + b"\r\n\r\n",
                    b"QUIT\r\n": b"+OK\r\n",
                    b"hello there\r\n": name.encode() + b"\n",
                },
            )
        self.prove(
            r"""
            frontend redis
                bind 127.0.0.1:<port> name redis
                default_backend nodes
            backend nodes
                option tcp-check
                tcp-check send PING\r\n
                tcp-check expect string +PONG
                tcp-check send info\ replication\r\n
                tcp-check expect string role:master
                tcp-check send QUIT\r\n
                tcp-check expect string +OK
                server r1 <first> check inter 200ms fall 1
                server r2 <second> check inter 200ms fall 1
            """,
            {"second": "text"},
            soon=True,
        )

    def test_databases(self) -> None:
        """MySQL's greeting, LDAP's bind and SMTP's greeting: who speaks first is heard at once, and who is wrong is down."""
        mysql = (15).to_bytes(3, "little") + b"\0\x0a5.5.5-fake\0\0\0\n"
        login, is_in = b"\x21" + bytes(23), b"\7\0\0\2\0\0\0\2\0\0\0"
        self.serve("mysql", {login: is_in}, mysql)
        self.serve(
            "ldap",
            {
                bytes.fromhex("300c020101600702010304008000"): bytes.fromhex(
                    "300c02010161070a010004000400"
                ),
                b"hello there\r\n": b"ldap\n",
            },
        )
        self.serve(
            "mail", {b"HELO": b"250 ok\r\n", b"QUIT": b"221 bye\r\n"}, b"220 mail.example ESMTP\r\n"
        )
        self.serve("wrong", {}, b"500 go away\r\n")
        self.prove(
            """
            listen galera
                bind 127.0.0.1:<port>
                balance leastconn
                option mysql-check
                default-server inter 100ms fall 1
                server wrong <wrong> check
                server right <mysql> check
            listen mail
                bind 127.0.0.1:<port1>
                option smtpchk
                default-server inter 100ms fall 1
                server wrong <wrong> check
                server right <mail> check
            listen directory
                bind 127.0.0.1:<port2>
                option ldap-check
                default-server inter 100ms fall 1
                server wrong <wrong> check
                server right <ldap> check backup
            """,
            {"\x0f\0\0\0": "silent"},
            {"220 mail.example ESMTP": "silent"},
            {"ldap": "text"},
            soon=True,
        )

    def test_tls_servers_are_found_by_a_hello(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = make_certificate(self.own_folder, "a.example")
        context.load_cert_chain(certificate.both)
        self.servers["secure"] = Named(self, answer=_within(context, b"secure\n"))
        self.prove(
            """
            listen https
                bind 127.0.0.1:<port>
                option ssl-hello-chk
                default-server inter 100ms fall 1
                server plain <plain> check
                server secure <secure> check
            """,
            {"secure": "tls a.example text"},
            looks=1,
            soon=True,
        )


def _within(context: ssl.SSLContext, said: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as stream:
            if stream.recv(4096):
                stream.sendall(said)
                stream.recv(4096)

    return talk


class SpokenToTests(SideBySideTestCase):
    program = "haproxy"

    def test_verified_tls_to_the_server(self) -> None:
        certificate = make_certificate(self.own_folder, "inside.example")
        other = make_certificate(self.own_folder, "other.example")
        for name, used in (("right", certificate), ("wrong", other)):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(used.both)
            self.servers[name] = Named(self, answer=_within(context, name.encode() + b"\n"))
        self.prove(
            f"""
            global
                ca-base {self.own_folder}
            frontend plain
                bind 127.0.0.1:<port>
                default_backend secured
            backend secured
                server s <right> ssl verify required ca-file inside.example.pem sni str(inside.example) verifyhost inside.example
            listen refused
                bind 127.0.0.1:<port1>
                retries 0
                server s <wrong> ssl verify required ca-file other.example.pem verifyhost inside.example
            """,
            {"right": "http, text"},
            {"": "http"},
            looks=2,
        )

    def test_proxy_headers_of_both_versions_and_none(self) -> None:
        def report(connection: socket.socket) -> None:
            data = connection.recv(4096)
            version = (
                1
                if data.startswith(b"PROXY TCP4 127.0.0.2")
                else 2
                if data.startswith(b"\r\n\r\n\0")
                else 0
            )
            connection.sendall(f"version {version}\n".encode())
            connection.recv(4096)

        self.servers["told"] = Named(self, answer=report)
        self.prove(
            """
            listen one
                bind 127.0.0.1:<port>
                server s <told> send-proxy
            listen two
                bind 127.0.0.1:<port1>
                server s <told> send-proxy-v2 proxy-v2-options crc32c,authority
            listen none
                bind 127.0.0.1:<port2>
                default-server send-proxy
                server s <told> no-send-proxy
            """,
            {"version 1": "text from 127.0.0.2"},
            {"version 2": "text from 127.0.0.2"},
            {"version 0": "text from 127.0.0.2"},
        )

    def test_asked_address_also_of_a_header(self) -> None:
        here = self.servers["here"] = Named(self, "here")
        self.servers["there"] = Named(self, "there", host="127.0.0.6", port=here.port)
        self.prove(
            """
            listen plain
                bind 127.0.0.1:<port>
                server s :<here.port>
            listen front
                bind 127.0.0.1:<port1>
                server s 127.0.0.6:<port2> send-proxy
            listen behind
                bind 127.0.0.6:<port2> accept-proxy
                server s 0.0.0.0:<here.port>
            listen front_of_plain
                bind 127.0.0.1:<port3>
                server s 127.0.0.6:<port4>
            listen plain_behind
                bind 127.0.0.6:<port4>
                server s *:<here.port>
            """,
            {"here": "text"},
            {"here": "text"},
            {},
            {"there": "text"},
        )

    def test_source_of_backend_and_of_server(self) -> None:
        def report(connection: socket.socket) -> None:
            connection.sendall(f"{connection.getpeername()[0]}\n".encode())
            connection.recv(4096)

        self.servers["peer"] = Named(self, answer=report)
        self.prove(
            """
            listen one
                bind 127.0.0.1:<port>
                source 127.0.0.9
                server s <peer>
            listen two
                bind 127.0.0.1:<port1>
                server s <peer> source 127.0.0.8:31000-31999
            """,
            {"127.0.0.9": "text"},
            {"127.0.0.8": "text"},
        )


_IN_TIME = "timeout check 1m"
"""Without this, a check that takes longer than its interval has failed, as it may on a busy machine."""


class CheckTests(SideBySideTestCase):
    program = "haproxy"

    def answering(
        self, status: str, *, tls: ssl.SSLContext | None = None, after: float = 0
    ) -> Named:
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
            self.listen(
                "option httpchk GET /primary",
                server=f"<a> send-proxy check port {patroni.port} inter 100",
            )
            self.assert_asked(patroni)
            self.await_alike({"http": expected})
            self.assert_alike({"http": expected})
            self.assertEqual(
                {line.split(b"\r\n")[0] for line in patroni.heard}, {b"GET /primary HTTP/1.0"}
            )

    def test_tls_of_a_service_that_speaks_it(self) -> None:
        certificate = make_certificate(self.own_folder, "www.example.com")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain, certificate.key)
        service = self.answering("200 OK", tls=context)
        ports = self.listen(
            "option httpchk GET /ready",
            _IN_TIME,
            server=f"127.0.0.1:{service.port} check inter 100 check-ssl verify none",
        )
        self.assert_asked(service)
        answers = [heard("tls www.example.com http", port) for port in ports]
        self.assertEqual(answers, ["HTTP/1.0 200 OK"] * 2)

    def test_method_path_host_and_status(self) -> None:
        for lines in (
            ("option httpchk",),
            ("option httpchk HEAD /x",),
            ("option httpchk", "http-check send meth GET uri /y ver HTTP/1.1 hdr Host a.example"),
            ("option httpchk", "http-check send meth HEAD uri /z ver HTTP/1.1 hdr Host b.example"),
        ):
            service = self.answering("401 Denied")
            ports = self.listen(
                *lines,
                _IN_TIME,
                "http-check expect status 401",
                server=f"127.0.0.1:{service.port} check inter 100",
            )
            self.assert_asked(service)
            self.assertEqual(len(set(map(_asked, service.heard))), 1, service.heard)
            self.assertEqual([heard("http", port) for port in ports], ["HTTP/1.0 401 Denied"] * 2)

    def test_slow_answer_is_waited_for(self) -> None:
        service = self.answering("200 OK", after=0.6)
        ports = self.listen(
            "option httpchk", _IN_TIME, server=f"127.0.0.1:{service.port} check inter 100 fall 1"
        )
        self.assert_asked(service)
        self.assertEqual([heard("http", port) for port in ports], ["HTTP/1.0 200 OK"] * 2)

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


def _asked(request: bytes) -> tuple[bytes, bytes]:
    first, *headers = request.split(b"\r\n")
    hosts = [header for header in headers if header.lower().startswith(b"host:")]
    return first, b"".join(hosts).lower()
