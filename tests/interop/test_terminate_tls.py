"""TLS that ends in txmux: what clients may not do, or may do that is rare. Real ones are in ``test_scenario_one_port``."""

import contextlib
import itertools
import select
import socket

from OpenSSL import SSL

from tests.interop.children import PATIENCE, InteropTestCase, run
from tests.support.kit import EchoServer, Namespace, Service, make_authority, make_certificate
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


class UploadTests(InteropTestCase):
    def test_reset_for_unread_tickets(self) -> None:
        """A client that has finished loses nothing by it: the server has its time, and what it sends then does not arrive. Nobody may negotiate again."""
        make_authority().issue("one.example.com").write(self.folder / "one.pem", key=True)
        server = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(PATIENCE)
        rules = _TIMED_OR_NOT.format(folder=self.folder, port=server.getsockname()[1])
        mux = self.own(Service(self.folder, rules))
        answers = ((b"", "done"), (bytes(1000), "client-reset"))
        for listener, (answer, reason) in itertools.product(("lenient", "timed"), answers):
            with socket.create_connection(("127.0.0.1", mux.ports[listener])) as plain:
                client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), plain)
                client.set_connect_state()
                client.do_handshake()
                client.sendall(b"x")
                client.shutdown()
                plain.shutdown(socket.SHUT_WR)
                connection, _ = server.accept()
                connection.settimeout(PATIENCE)
                self.assertEqual((connection.recv(9), connection.recv(9)), (b"x", b""))
            with connection:
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(connection.recv(9), b"")
            line = mux.take_one(listener)
            self.assertEqual((line["reason"], line["bytes_in"]), (reason, 1), (listener, answer))
        address = f"127.0.0.1:{mux.ports['lenient']}"
        done = run("openssl", "s_client", "-connect", address, "-tls1_2", stdin=b"R\nmore\n")
        output = (done.stdout + done.stderr).decode(errors="replace")
        self.assertIn("RENEGOTIATING", output)
        self.assertRegex(output, "no renegotiation|no_renegotiation")

    def test_only_who_reads_may_ask_for_updates(self) -> None:
        """Where the kernel keeps little, who asks for updates and reads nothing is broken off; who reads all may ask on and on."""
        network = Namespace(self)
        network.set("ipv4/tcp_wmem", "4096 16384 16384")
        network.enter()
        server = self.own(EchoServer())
        certificate = make_certificate(self.folder, "a.example").both
        rules = _ANSWERING.format(certificate=certificate, server=server.port)
        mux = self.own(Service(self.folder, rules))
        deaf, reading = clients = UpdatingClient(mux.port), UpdatingClient(mux.port)
        for client in clients:
            self.addCleanup(client.close)
            client.say(b"hello")
            self.assertEqual(client.hear(5), b"hello")
        sent = 0
        while deaf.is_open() and sent * _ANSWER < 2**20:
            if deaf.update():
                sent += 1
            else:
                select.select((), [deaf.plain], (), 20)
        self.assertLess(sent * _ANSWER, 2**20)
        self.assertEqual(mux.take_one()["route"], "all")
        for _ in range(60):
            for _ in range(100):
                reading.update()
            reading.say(b"x")
            self.assertEqual(reading.hear(1), b"x")
