"""A client that makes TLS answer, and reads no answer."""

from __future__ import annotations

import select

from tests.interop.children import InteropTestCase
from tests.interop.mux import Mux
from tests.interop.namespaces import Namespace
from tests.interop.servers import make_certificate
from tests.support.echo import EchoServer
from tests.support.updating import UpdatingClient

_RULES = """
[listen public]
endpoint = 127.0.0.1:0

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
    """Clients that want other keys again and again."""

    def setUp(self) -> None:
        """Start a service where the kernel keeps little for those who read nothing."""
        network = Namespace(self)
        network.set("ipv4/tcp_wmem", "4096 16384 16384")
        network.enter()
        server = self.own(EchoServer())
        certificate = make_certificate(self.folder, "a.example").both
        rules = _RULES.format(certificate=certificate, server=server.port)
        self.mux = self.own(Mux(self.folder, rules))
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
