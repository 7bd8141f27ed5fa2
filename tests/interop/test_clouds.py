"""What the balancers of clouds say in a header is seen by whoever asks, and by the server."""

from __future__ import annotations

import json
import socket
import sys

from tests.interop.children import PATIENCE, InteropTestCase, output_of
from tests.interop.mux import Mux
from txmux.wire.proxyprotocol.decode import Decoded, decode
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import ProxyHeader, Tlv

_RULES = """
[listen public]
endpoint          = 127.0.0.1:0
accept_proxy_from = 127.0.0.1
default           = site

[backend site]
server         = 127.0.0.1:{port}
proxy_protocol = v2
"""
_SAID = (
    Tlv(0xEA, b"\1vpce-08d2bf15fac5001c9"),
    Tlv(0xE0, bytes.fromhex("0123456789abcdef")),
    Tlv(0xEE, bytes.fromhex("0178563412")),
)
_FACTS = {
    "vpc_endpoint": "vpce-08d2bf15fac5001c9",
    "psc_connection": "81985529216486895",
    "link_id": "305419896",
}
_ODD = (Tlv(0xEA, b""), Tlv(0xE0, b"\1"), Tlv(0xEE, b"\2\0\0\0\0"))


class CloudTests(InteropTestCase):
    """A client that comes with such a header."""

    def setUp(self) -> None:
        super().setUp()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.server.close)
        self.server.settimeout(PATIENCE)
        port = self.server.getsockname()[1]
        self.admin = f"unix:{self.folder}/{port}.sock"
        self.mux = self.own(Mux(self.folder, _RULES.format(port=port), f"admin = {self.admin}"))

    def led(self, *tlvs: Tlv) -> tuple[socket.socket, ProxyHeader]:
        client = self.mux.connect()
        self.addCleanup(client.close)
        client.sendall(encode_v2(ProxyHeader(tlvs=tlvs)) + b"hello")
        accepted, _ = self.server.accept()
        self.addCleanup(accepted.close)
        accepted.settimeout(PATIENCE)
        self.accepted = accepted
        received = b""
        while not received.endswith(b"hello"):
            received += accepted.recv(4096)
        decoded = decode(received)
        assert isinstance(decoded, Decoded)
        return client, decoded.header

    def end(self, client: socket.socket) -> None:
        client.close()
        self.accepted.close()

    def ask(self, *words: str) -> str:
        return output_of(sys.executable, "-m", "txmux", *words, "--admin", self.admin).decode()

    def test_told_as_facts_and_to_the_server(self) -> None:
        client, header = self.led(*_SAID)
        self.assertEqual({*_SAID} - {*header.tlvs}, set())
        (connection,) = json.loads(self.ask("connections", "--json"))
        self.assertEqual(connection["facts"], connection["facts"] | _FACTS)
        explained = self.ask("explain", "--connection", connection["id"])
        for value in _FACTS.values():
            self.assertIn(value, explained)
        self.end(client)
        facts = self.mux.take_one()["facts"]
        self.assertEqual(facts, facts | _FACTS)

    def test_odd_say_nothing_and_refuse_nobody(self) -> None:
        client, header = self.led(*_ODD)
        self.assertEqual({*_ODD} - {*header.tlvs}, set())
        self.end(client)
        line = self.mux.take_one()
        self.assertEqual({*line["facts"]} & {*_FACTS}, set())
        self.assertEqual(line["reason"], "done")
