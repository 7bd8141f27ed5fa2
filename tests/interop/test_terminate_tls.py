"""TLS that ends in txmux: what clients may not do, or may do that is rare. Real ones are in ``test_scenario_one_port``."""

import contextlib
import select
import socket

from OpenSSL import SSL

from tests.interop.children import PATIENCE, InteropTestCase, run
from tests.interop.namespaces import Namespace
from tests.interop.servers import make_certificate
from tests.support.certificates import make_authority
from tests.support.echo import EchoServer
from tests.support.services import Service
from tests.support.updating import UpdatingClient

_TIMED_OR_NOT = """
[listen lenient]
endpoint = 127.0.0.1:0

[listen timed]
endpoint = 127.0.0.1:0

[route secure]
under         = lenient
match         = tls
terminate_tls = {folder}/one.pem

[route secure-timed]
under         = timed
match         = tls
terminate_tls = {folder}/one.pem

[route timed]
match   = any
under   = secure-timed
backend = timed

[backend timed]
server       = 127.0.0.1:{port}
max_duration = 1h

[route all]
match   = any
under   = secure
backend = 127.0.0.1:{port}
"""


class UploadTests(InteropTestCase):
    """A server that tells a whole upload from one that broke off; what a close-notify changes is in tests/tcp."""

    def setUp(self) -> None:
        authority = make_authority()
        authority.issue("one.example.com").write(self.folder / "one.pem", key=True)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(PATIENCE)
        self.addCleanup(self.server.close)
        port = self.server.getsockname()[1]
        self.mux = self.own(
            Service(self.folder, _TIMED_OR_NOT.format(folder=self.folder, port=port))
        )

    def test_no_renegotiation(self) -> None:
        address = f"127.0.0.1:{self.mux.ports['lenient']}"
        done = run("openssl", "s_client", "-connect", address, "-tls1_2", stdin=b"R\nmore\n")
        output = (done.stdout + done.stderr).decode(errors="replace")
        self.assertIn("RENEGOTIATING", output)
        self.assertRegex(output, "no renegotiation|no_renegotiation")

    def test_reset_for_unread_tickets(self) -> None:
        """A client that has finished loses nothing by it: the server has its time, and what it sends then does not arrive."""
        for listener, answer, reason in (
            ("lenient", b"", "done"),
            ("lenient", bytes(1000), "client-reset"),
            ("timed", b"", "done"),
            ("timed", bytes(1000), "client-reset"),
        ):
            with socket.create_connection(("127.0.0.1", self.mux.ports[listener])) as plain:
                client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), plain)
                client.set_connect_state()
                client.do_handshake()
                client.sendall(b"x")
                client.shutdown()
                plain.shutdown(socket.SHUT_WR)
                connection, _ = self.server.accept()
                connection.settimeout(PATIENCE)
                self.assertEqual((connection.recv(9), connection.recv(9)), (b"x", b""))
            with connection:
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(connection.recv(9), b"")
            line = self.mux.take_one(listener)
            self.assertEqual((line["reason"], line["bytes_in"]), (reason, 1), (listener, answer))


_ANSWERING = """
[route tls]
match         = tls
terminate_tls = {certificate}

[route all]
under   = tls
match   = any
backend = 127.0.0.1:{server}
"""
_ANSWER = 27  # bytes of a KeyUpdate and of the record around it


class UnreadAnswersTest(InteropTestCase):
    def setUp(self) -> None:
        """Start a service where the kernel keeps little for those who read nothing."""
        network = Namespace(self)
        network.set("ipv4/tcp_wmem", "4096 16384 16384")
        network.enter()
        server = self.own(EchoServer())
        certificate = make_certificate(self.folder, "a.example").both
        rules = _ANSWERING.format(certificate=certificate, server=server.port)
        self.mux = self.own(Service(self.folder, rules))
        self.client = UpdatingClient(self.mux.port)
        self.addCleanup(self.client.close)
        self.client.say(b"hello")
        self.assertEqual(self.client.hear(5), b"hello")

    def test_reading_nothing_is_broken_off(self) -> None:
        sent = 0
        while self.client.is_open() and sent * _ANSWER < 2**20:
            if self.client.update():
                sent += 1
            else:
                select.select((), [self.client.plain], (), 20)
        self.assertLess(sent * _ANSWER, 2**20)
        self.assertEqual(self.mux.take_one()["route"], "all")

    def test_reading_all_is_unlimited(self) -> None:
        for _ in range(60):
            for _ in range(100):
                self.client.update()
            self.client.say(b"x")
            self.assertEqual(self.client.hear(1), b"x")
