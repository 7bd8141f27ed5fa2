from twisted.names import dns

from tests.backends.names.nameserver import SILENCE, NameServer, a
from tests.support.kit import Talker, change_constants
from tests.udp.flow_case import LISTEN, FlowCase
from tests.wire.dtls_builder import dtls_body, hello_datagrams
from tests.wire.hello_builder import client_hello, extension, server_name
from tests.wire.quic_builder import crypto, initial
from txmux.backends.names import cache
from txmux.udp import flow

_RULES = f"""{LISTEN}
[route names]
match   = quic
          dtls
backend = b
[backend b]
server         = udp:{{sni}}:%s
allow_names    = *.test
allow_networks = 127.0.0.0/8
resolvers      = 127.0.0.1:%s
"""


def _quic(name: str) -> bytes:
    return initial(crypto(0, client_hello(server_name(name))))


class NamesTest(FlowCase):
    def setUp(self) -> None:
        super().setUp()
        self.dns = NameServer.started(self)
        self.server = Talker.listening(self, answer=lambda data: data[:5])
        self.where = f"udp:127.0.0.1:{self.server.port}"
        [self.port] = self.run_service(_RULES % (self.server.port, self.dns.place[1]))

    async def test_client_goes_where_its_name_leads(self) -> None:
        """Fragments wait for the name."""
        self.dns.zone["www.test"] = a("127.0.0.1")
        pieces = hello_datagrams(dtls_body(extension(21, bytes(40)), server_name("www.test")), 30)
        client = Talker.listening(self)
        for piece in pieces:
            client.say(piece, self.port)
        await self.server.hears(len(pieces))
        self.assertEqual(self.server.heard, list(pieces))
        for data in (_quic("www.test"), *hello_datagrams(dtls_body(server_name("WWW.test")))):
            self.assertEqual(await Talker.listening(self).asks(data, self.port), data[:5])
        lines = await self.stopped(3)
        self.assertEqual({line["server"] for line in lines}, {self.where})

    async def test_turns_are_those_of_addresses(self) -> None:
        change_constants(self, cache, _MOST_OF_SOURCE=1)
        self.dns.fail("dead.test", SILENCE)
        self.dns.zone |= {"good.test": a("127.0.0.1"), "other.test": a("127.0.0.1")}
        for name in ("dead.test", "good.test"):
            Talker.listening(self).say(_quic(name), self.port)
            await self.until(lambda: self.dns.asked["dead.test", dns.A])
        other, data = Talker.listening(self, "127.0.0.2"), _quic("other.test")
        self.assertEqual(await other.asks(data, self.port), data[:5])
        self.assertFalse(self.dns.asked["good.test", dns.A])

    async def test_reasons(self) -> None:
        change_constants(self, flow, _REMEMBERED=0.05, _TRIED_AGAIN=0.05)
        self.dns.zone |= {"near.test": a("10.0.0.1"), "refuses.test": a("127.0.0.3")}
        port = self.server.port
        wanted = {
            ("no-name", None), ("name-denied", f"udp:www.example:{port}"),
            ("address-denied", f"udp:10.0.0.1:{port}"), ("no-server", f"udp:nothing.test:{port}"),
            ("connect-refused", f"udp:127.0.0.3:{port}"),
        }  # fmt: skip
        for name in ("www.example", "near.test", "nothing.test", "refuses.test"):
            Talker.listening(self).say(_quic(name), self.port)
        nameless = initial(crypto(0, client_hello(extension(21, b""))))
        Talker.listening(self).say(nameless, self.port)
        lines = await self.ended(5)
        self.assertEqual({(line["reason"], line["server"]) for line in lines}, wanted)
        self.assertEqual(self.server.heard, [])
