"""A second hello asks for the same as the first, by which its client was routed (RFC 8446, section 4.1.2)."""

from __future__ import annotations

import ssl
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.support.mux import backend_at
from tests.support.peers import Peer
from tests.support.secure import SecurePeer, client_context, connect_tls
from tests.tcp.stages.handshaking_case import SSH, TerminationCase
from tests.wire.hello_builder import (
    alpn,
    client_hello,
    extension,
    records,
    server_name,
    sized,
    versions,
)
from txmux.wire.hello_records import asks_again

CHANGED = bytes.fromhex("140303000101")  # for old middleboxes
ILLEGAL = bytes.fromhex("1503030002022f")
_GROUPS = extension(10, sized(2, b"\0\x1d"))
_SIGNATURES = extension(13, sized(2, b"\4\3"))
_KEY_SHARE = 51


def hello(*more: bytes, name: str = "a.test", share: bool = False, version: int = 0x0304) -> bytes:
    """Make the records of a hello; OpenSSL asks for a second one, unless it has a share of a key."""
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    shares = sized(2, b"\0\x1d" + sized(2, public) if share else b"")
    parts = versions(version), _GROUPS, _SIGNATURES, extension(_KEY_SHARE, shares), *more
    return records(client_hello(server_name(name), *parts, session_id=bytes(32)))


class EndsHereTest(TerminationCase):
    """TLS ends here, and goes to the server of the name."""

    def named(self, **settings: Any) -> int:
        end = self.tls_route(
            match="tls sni=a.test", outcome=backend_at(self.backend_port()), alpn=("h2", "x")
        )
        return self.mux([end], **settings)

    async def asked_again(self, *more: bytes) -> Peer:
        client = await self.connect(self.named(), hello(*more))
        await client.until(lambda: bool(asks_again(bytes(client.received))))
        self.before = len(client.received)
        return client

    async def test_another_name_protocol_or_version_is_illegal(self) -> None:
        for first, second, what in (
            ((), hello(name="vip.test", share=True), "server name"),
            ((), hello(name="A\x1b.test", share=True), "server name"),
            ((alpn(b"x"),), hello(alpn(b"h2"), share=True), "application protocols"),
            ((), hello(alpn(b"h2"), share=True), "application protocols"),
        ):
            client = await self.asked_again(*first)
            client.send(CHANGED + second)
            await client.has_all()
            self.assertEqual(bytes(client.received)[self.before :], ILLEGAL)
            client.close()
            record = await self.assert_logged(reason="tls-failed", route="tls", backend=None)
            why = f"the TLS handshake failed: the second hello has other {what} than the first"
            self.assertEqual(record.facts["tls_error"], why)
            self.assertEqual(record.facts["sni"], "a.test")
            self.records.clear()

    async def test_the_same_is_served_however_it_is_cut(self) -> None:
        for size in (1, 1000):
            client = await self.asked_again()
            said = CHANGED + hello(name="A.test.", share=True)
            for at in range(0, len(said), size):
                client.send(said[at : at + size])
                await self.turn()
            await client.has(self.before + 500)  # its certificate
            self.assertNotIn(ILLEGAL, client.received)
            client.reset()
            await self.logged()
            self.records.clear()


class ResumedTest(TerminationCase):
    """A session is resumed only for the name that it was made for (RFC 6066, section 3)."""

    async def connected(self, port: int, peer: SecurePeer) -> SecurePeer:
        await connect_tls(self, port, peer)
        await peer.ready()
        peer.send(SSH)
        server = await self.backend.peer(len(self.backend.peers))
        await server.has(len(SSH))
        server.send(b"hello")
        await peer.has(5)
        return peer

    async def test_a_ticket_of_another_name(self) -> None:
        """The client gets what its hello asks for, with a whole handshake."""
        end = self.tls_route(files=(self.pem("a.test", "vip.test"),))
        inner = self.inner()
        everywhere = self.mux([end, inner])
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(self.ca)
            context.maximum_version = context.minimum_version = version
            first = await self.connected(everywhere, SecurePeer((context, "vip.test")))
            for name, is_resumed in (("a.test", False), ("vip.test", True)):
                peer = SecurePeer((context, name))
                peer.tls.session = first.tls.session
                await self.connected(everywhere, peer)
                self.assertEqual(peer.tls.session_reused, is_resumed, (version, name))
                self.records.clear()
                peer.reset()
                record = await self.logged()
                self.assertEqual(record.facts["sni"], name)
            first.reset()
            await self.until_logged(2)
            self.records.clear()
