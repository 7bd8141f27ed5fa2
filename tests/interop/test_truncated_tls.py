"""Uploads over TLS that end properly, and some that somebody on the way could have cut: with pyOpenSSL as the client."""

from __future__ import annotations

import socket

from OpenSSL import SSL

from tests.interop.children import PATIENCE, InteropTestCase
from tests.interop.mux import Mux
from tests.support.certificates import make_authority

_RULES = """
[listen lenient]
endpoint = 127.0.0.1:0

[listen strict]
endpoint   = 127.0.0.1:0
tls_strict = yes

[route secure]
match         = tls
terminate_tls = {folder}/one.pem

[route all]
match   = any
under   = secure
backend = 127.0.0.1:{port}
"""


class UploadTests(InteropTestCase):
    """A server that tells a whole upload from one that broke off."""

    def setUp(self) -> None:
        authority = make_authority()
        authority.issue("one.example.com").write(self.folder / "one.pem", key=True)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(PATIENCE)
        self.addCleanup(self.server.close)
        port = self.server.getsockname()[1]
        self.mux = Mux(self.folder, _RULES.format(folder=self.folder, port=port))
        self.addCleanup(self.mux.stop)

    def upload(self, listener: str, *, notify: bool) -> tuple[int, bool, str, str | None]:
        """Upload, and give what the server has got, whether it was broken off, and what the log says."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        with socket.create_connection(("127.0.0.1", self.mux.ports[listener])) as plain:
            client = SSL.Connection(context, plain)
            client.set_connect_state()
            client.do_handshake()
            client.sendall(b"x" * 100_000)
            if notify:
                client.shutdown()
            plain.shutdown(socket.SHUT_WR)
            received, broken = self.receive()
        line = self.mux.take_one(listener)
        return received, broken, line["reason"], line["facts"].get("tls_truncated")

    def receive(self) -> tuple[int, bool]:
        connection, _ = self.server.accept()
        connection.settimeout(PATIENCE)
        received = 0
        with connection:
            try:
                while data := connection.recv(65536):
                    received += len(data)
            except ConnectionResetError:
                return received, True
        return received, False

    def test_whole_with_close_notify(self) -> None:
        for listener in ("lenient", "strict"):
            self.assertEqual(
                self.upload(listener, notify=True), (100_000, False, "done", None), listener
            )

    def test_without(self) -> None:
        """One without is told in the log, and is a broken stream where that is asked for."""
        self.assertEqual(self.upload("lenient", notify=False), (100_000, False, "done", "yes"))
        self.assertEqual(
            self.upload("strict", notify=False), (100_000, True, "client-reset", "yes")
        )
