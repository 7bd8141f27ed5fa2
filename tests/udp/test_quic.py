"""QUIC through a service, both ends by aioquic."""

import hashlib

from tests.backends.pool.test_balance import order
from tests.support.datagrams import Talker, turn
from tests.support.quic import QuicClient, QuicServer
from tests.udp.flow_case import LISTEN, FlowCase
from txmux.udp import migration

_RULES = f"""{LISTEN}[route site]
match = quic sni=*.example.com
backend = udp:127.0.0.1:%d
[route other]
match = quic
backend = udp:127.0.0.1:%d
"""
_HASHED = f"""{LISTEN}[route site]
match = quic
backend = b
[backend b]
server = %s
balance = sni-hash
"""
_GIVEN = hashlib.shake_128(b"given").digest(600_000)


class QuicTests(FlowCase):
    def begin_site(self) -> tuple[QuicServer, Talker, int]:
        server, other = QuicServer(self, _GIVEN), Talker.listening(self)
        [port] = self.run_service(_RULES % (server.listen(), other.port))
        return server, other, port

    async def test_client_is_routed_by_name_and_gets_all_bytes(self) -> None:
        server, _, port = self.begin_site()
        client = QuicClient(self)
        client.ask(port)
        self.assertEqual(await client.whole, _GIVEN)
        self.assertEqual(len(set(server.senders)), 1)
        [line] = await self.stopped()
        facts = line["facts"]
        assert isinstance(facts, dict)
        self.assertEqual(
            (line["route"], facts["sni"], facts["quic"]), ("site", "www.example.com", "1")
        )

    async def test_other_name_gets_the_datagram_as_it_came(self) -> None:
        server, other, port = self.begin_site()
        client = QuicClient(self)
        client.ask(port, "www.example.org")
        [first, *_] = await other.hears(1)
        self.assertEqual((len(first), first[0] & 0xC0), (1200, 0xC0))
        self.assertEqual(server.senders, [])

    async def test_sni_hash(self) -> None:
        servers = [Talker.listening(self) for _ in range(4)]
        lines = "\n    ".join(f"udp:127.0.0.1:{server.port}" for server in servers)
        [port] = self.run_service(_HASHED % lines)
        texts = {f"udp:127.0.0.1:{server.port}": server for server in servers}
        names = [f"{letter}.example.com" for letter in "abcdef"]
        for name in names:
            server = texts[order("sni-hash", name, dict.fromkeys(texts, 1))[0]]
            before = {*server.senders}
            QuicClient(self).ask(port, name)
            while {*server.senders} == before:  # what others say again is not it
                await turn()
        for line in await self.stopped(len(names)):
            facts = line["facts"]
            assert isinstance(facts, dict)
            expected = order("sni-hash", facts["sni"], dict.fromkeys(texts, 1))[0]
            self.assertEqual(line["server"], expected)

    async def test_client_that_changes_its_port_twice_gets_the_rest(self) -> None:
        self.patch(migration, "SILENCE", 0.1)
        server, other, port = self.begin_site()
        client = QuicClient(self)
        client.ask(port)
        client.keep_alive()
        for part in (1, 2):
            await client.has(len(_GIVEN) * part // 3)
            client.listen()
        self.assertEqual(await client.whole, _GIVEN)
        self.assertEqual((len(set(server.senders)), other.heard), (1, []))
        [line] = await self.stopped()
        facts = line["facts"]
        assert isinstance(facts, dict)
        self.assertIn("moved_to", facts)

    async def test_client_that_gets_other_ip_addresses_gets_the_rest(self) -> None:
        """With nothing to say at each but that it has got what it has, once."""
        server, other, port = self.begin_site()
        client = QuicClient(self)
        client.moves = [(len(_GIVEN) * part // 3, f"127.0.0.{1 + part}") for part in (1, 2)]
        client.ask(port)
        self.assertEqual(await client.whole, _GIVEN)
        self.assertEqual((len(set(server.senders)), other.heard), (3, []))
