"""The hello that decides is the only one that a server of QUIC sees, through sockets: whatever else comes by the same port and ID."""

from collections.abc import Iterable, Sequence
from zlib import crc32

from tests.support.datagrams import Talker, turn
from tests.udp.flow_case import LISTEN, PROXIED, FlowCase
from tests.udp.test_connections import hello, opening
from tests.udp.test_migration import answer as answering
from tests.wire import quic_builder
from tests.wire.hello_builder import alpn, client_hello, server_name
from tests.wire.quic_builder import DESTINATION, crypto, cut, initial, other_version

_RULES = f"""{LISTEN}detect_timeout = 100ms
%s
[route closed]
match = quic sni=vip.example.com
backend = close
[route own]
match = quic sni=own.example.com
backend = own
[route rest]
match = %s
backend = rest
[backend own]
server = udp:127.0.0.1:%d
[backend rest]
server = udp:127.0.0.1:%d
"""
OPEN, CLOSED, OWN = hello("open"), hello("vip"), hello("own")
GOOD, BAD = initial(crypto(0, OPEN)), initial(crypto(0, CLOSED))
RETRIED, CHOSEN = b"retried!", b"chosen by server"
_TWICE = client_hello(server_name("vip.example.com"), alpn(b"h3"), alpn(b"h3"))
_PIECES = cut(OPEN, 70)
_BAD_PIECES = cut(CLOSED, 70)


def brief(data: bytes) -> str:
    return f"{data[:6].hex()} {crc32(data):x}"


class DecidedTests(FlowCase):
    """Two servers, and a name that no route leads to."""

    def serve(self, match: str = "quic", listen: str = "") -> int:
        self.own, self.rest = Talker.listening(self), Talker.listening(self)
        [port] = self.run_service(_RULES % (listen, match, self.own.port, self.rest.port))
        return port

    async def decided(self) -> None:
        flows = self.running.listeners[0].connections
        while not flows or any(flow.state == "peeking" for flow in flows):
            await turn()

    async def assert_heard(self, sent: Sequence[bytes], *heard: bytes, match: str = "quic") -> None:
        """Check what the server without a name of its own hears of what a client sends."""
        client, port = Talker.listening(self), self.serve(match)
        for data in sent:
            client.say(data, port)
        await self.assert_hears(port, *heard)

    async def assert_hears(self, port: int, *heard: bytes) -> None:
        last = opening("last")
        Talker.listening(self).say(last, port)
        await self.until(lambda: last in self.rest.heard)
        await self.decided()
        await turn()
        others = [data for data in self.rest.heard if data != last]
        self.assertEqual([*map(brief, others)], [*map(brief, heard)])
        self.assertEqual(self.own.heard, [])

    # What servers must drop decides nothing, and does not reach one that takes it.

    async def test_short_datagram(self) -> None:
        await self.assert_heard([initial(crypto(0, OPEN), pad=1199), BAD])
        self.assertEqual(self.datagrams("lost"), 2)

    async def test_version_negotiation_ends_at_the_route_of_the_name(self) -> None:
        client, port = Talker.listening(self), self.serve()
        ours = initial(crypto(0, OWN))
        for data in (other_version(), ours, other_version()):
            client.say(data, port)
        self.assertEqual(await self.own.hears(1), [ours])
        self.assertEqual(await self.rest.hears(2), [other_version()] * 2)

    async def assert_each(
        self, rows: Iterable[tuple[Sequence[bytes], Sequence[bytes], str]]
    ) -> None:
        """Check what that server hears of what each of some clients sends, with the route that leads to it."""
        for sent, heard, match in rows:
            with self.subTest((sent, match)):
                await self.assert_heard(sent, *heard, match=match)
                await self._stop()
                self.log.unlink()

    async def test_several_datagrams(self) -> None:
        """Lenient servers take a hello with an extension twice (aioquic), of which there must be one (RFC 8446, section 4.2)."""
        short, twice = initial(crypto(0, CLOSED), pad=1199), initial(crypto(0, _TWICE))
        first, second = (initial(piece, number=n) for n, piece in enumerate(_PIECES))
        wrong = initial(_BAD_PIECES[1], crypto(0, CLOSED[:70]), number=2)
        parts = [initial(piece, number=n) for n, piece in enumerate(cut(OPEN, 30, 60)[::-1])]
        gap = initial(crypto(60, CLOSED[60:]), number=9)
        again, late = initial(crypto(0, OPEN), number=7), initial(*_BAD_PIECES[1:], number=1)
        pings = [initial(b"\1", number=n) for n in range(4)]
        closed, own = (initial(crypto(0, name), number=5) for name in (CLOSED, OWN))
        await self.assert_each(
            (
                ([short, GOOD, short], [GOOD], "quic"),
                ([other_version(), BAD, BAD], [other_version()], "quic"),
                # Contradicting pieces: in one datagram, in several, and behind a gap.
                ([initial(_PIECES[0], _BAD_PIECES[1], crypto(0, CLOSED)), BAD], [], "quic"),
                ([first, wrong, second, wrong, BAD], [first, second], "quic"),
                ([parts[0], gap, *parts[1:]], [parts[0], gap, parts[1]], "quic"),
                ([twice, GOOD], [GOOD], "quic"), ([twice, GOOD], [GOOD], "any"),
                ([GOOD, initial(crypto(0, _TWICE), number=1)], [GOOD], "quic"),
                # One that has decided gets no other one, nor does one that comes after packets without.
                ([GOOD, BAD, late, again], [GOOD, again], "quic"), ([*pings, closed, own], pings, "quic"),
            )
        )  # fmt: skip

    async def test_all_other_reasons_to_drop_a_packet(self) -> None:
        other = initial(crypto(0, CLOSED), destination=bytes(8))
        dropped = (
            initial(crypto(0, CLOSED), fixed=False), initial(crypto(0, CLOSED), reserved=8),
            initial(crypto(0, CLOSED), b"\x08" + bytes(9)), initial(crypto(0, CLOSED), destination=b"short"),
            GOOD + other, GOOD + initial(crypto(0, CLOSED), version=quic_builder.V2), quic_builder.long_packet(2) + BAD,
            initial(crypto(0, CLOSED), pad=0),
        )  # fmt: skip
        await self.assert_each(
            ([one, BAD], [], match) for one in dropped for match in ("quic", "any")
        )

    # A route for all else in front of the same server: what it got does not open the closed name.

    async def test_first_datagram_of_another_protocol(self) -> None:
        long = quic_builder.long_packet(2)
        firsts = b"x", b"\xc0\0\0\0\1", b"\x80" + bytes(1300), long, GOOD[:-1] + b"x"
        thens = BAD, initial(crypto(0, CLOSED), pad=0), long + BAD
        await self.assert_each(([one, then], [one], "any") for one in firsts for then in thens)

    async def test_joined_with_datagrams_of_another_protocol(self) -> None:
        client, port = Talker.listening(self), self.serve("any")
        client.say(b"x", port)
        await self.decided()
        other = b"y" * 1200
        client.bulk(other + other + BAD + other, 1200, port)
        await self.assert_hears(port, b"x", other, other, other)

    # A server that has dropped or forgotten the hello which decided gets no other one.

    async def test_hello_after_a_retry(self) -> None:
        client, port = Talker.listening(self), self.serve()
        self.rest.answer = lambda data: answering(RETRIED, kind=3) if data == GOOD else b""
        await client.asks(GOOD, port)
        # Its bytes may differ: aioquic makes up other random ones.
        anew = OPEN[:6] + bytes(32) + OPEN[38:]
        pieces = [
            initial(piece, number=n, destination=RETRIED, token=b"t")
            for n, piece in enumerate(cut(anew, 90))
        ]
        bad = [initial(crypto(0, CLOSED), destination=RETRIED, token=b"t") for _ in "12"]
        for data in (bad[0], pieces[1], bad[1], pieces[0], bad[0]):
            client.say(data, port)
        await self.assert_hears(port, GOOD, pieces[1], pieces[0])
        self.assertEqual(len({*self.rest.senders[:3]}), 1)

    async def test_second_hello_in_the_first_version_or_that_which_the_server_has_chosen(
        self,
    ) -> None:
        changed = OPEN[:6] + bytes(32) + OPEN[38:]

        def second(at: int, data: bytes, number: int, version: int = quic_builder.V1) -> bytes:
            frame, keys = crypto(len(OPEN) + at, data), DESTINATION
            return initial(frame, number=number, version=version, destination=CHOSEN, keys=keys)

        bad = [second(0, data, 1) for data in (CLOSED, b"\2\0\0\0", OWN)]
        others = second(50, CLOSED[50:], 4), second(len(changed), CLOSED, 3)
        for version in (quic_builder.V1, quic_builder.V2):
            client, port = Talker.listening(self), self.serve()
            self.rest.answer = lambda data: answering(CHOSEN, kind=0) if data == GOOD else b""
            await client.asks(GOOD, port)
            halves = [second(0, changed[:50], 1, version), second(50, changed[50:], 2, version)]
            first, last = halves
            for data in (bad[0], first, bad[1], others[0], bad[2], last, others[1], bad[0]):
                client.say(data, port)
            await self.assert_hears(port, GOOD, *halves)
            await self._stop()
            self.log.unlink()

    async def test_connection_that_the_server_has_forgotten(self) -> None:
        client, port = Talker.listening(self), self.serve()
        self.rest.answer = lambda data: answering(CHOSEN) if data == GOOD else b""
        await client.asks(GOOD, port)
        # An unknown version to the ID of the server.
        header = b"\xca\x1a\x2a\x3a\x4a" + bytes([len(CHOSEN)]) + CHOSEN + b"\0"
        client.say(header.ljust(900, b"x"), port)
        client.say(GOOD + b"\xc0\x1a\x2a\x3a\x4a" + bytes([8]) + DESTINATION + bytes(50), port)
        client.say(initial(crypto(0, CLOSED), destination=CHOSEN), port)
        client.say(initial(b"\1", number=3, destination=CHOSEN, keys=DESTINATION), port)
        handshake = answering(quic_builder.SOURCE, destination=CHOSEN)
        client.say(handshake, port)
        short = b"\x41" + CHOSEN + bytes(30)
        client.say(short, port)
        late = initial(b"\1", number=2, destination=CHOSEN, keys=DESTINATION, pad=0) + handshake
        for data in (BAD, GOOD, initial(crypto(0, CLOSED), destination=CHOSEN), late, handshake):
            client.say(data, port)
        pinged = initial(b"\1", number=3, destination=CHOSEN, keys=DESTINATION)
        await self.assert_hears(port, GOOD, pinged, handshake, short, late, handshake)

    async def test_proxied_client_has_one_name(self) -> None:
        proxy, port = Talker.listening(self), self.serve("any", "accept_proxy_from = 127.0.0.1")
        others = BAD, PROXIED + BAD, opening("else"), opening("own"), opening("else", 1)
        for data in (PROXIED + b"x", *others):
            proxy.say(data, port)
        heard = [b"x", opening("else"), opening("else", 1)]
        await self.until(lambda: len(self.rest.heard) >= 3)
        await turn()
        self.assertEqual(self.rest.heard, heard)

    async def test_where_no_rule_looks_at_names_nothing_is_read(self) -> None:
        server, client = Talker.listening(self), Talker.listening(self)
        rules = f"{LISTEN}[route all]\nmatch = quic\nbackend = udp:127.0.0.1:{server.port}\n"
        [port] = self.run_service(rules)
        for data in (GOOD, BAD, BAD[:-1]):
            client.say(data, port)
        self.assertEqual(await server.hears(3), [GOOD, BAD, BAD[:-1]])

    # A hello that comes in full only after the decision leads where that led, or nowhere.

    async def test_name_of_the_same_route_goes_on(self) -> None:
        """Also in the next process."""
        parts = [initial(piece, number=n) for n, piece in enumerate(_PIECES)]
        for moves in (False, True):
            client, port = Talker.listening(self), self.serve()
            client.say(parts[0], port)
            await self.rest.hears(1)
            if moves:
                await self.hand_over()
            client.say(initial(_BAD_PIECES[1], number=9), port)
            client.say(parts[1], port)
            if moves:
                self.assertEqual(await self.rest.hears(2), parts)
                return
            client.say(initial(crypto(len(OPEN), CLOSED), number=10), port)
            await self.assert_hears(port, *parts)
            lines = [str(line["facts"]) for line in await self.stopped(2)]
            self.assertEqual(len([line for line in lines if "open.example.com" in line]), 1)

    async def test_hello_decides_in_the_next_process_too(self) -> None:
        client, port = Talker.listening(self), self.serve()
        client.say(GOOD, port)
        await self.rest.hears(1)
        self.assertEqual(await self.hand_over(), 1)
        again = initial(crypto(0, OPEN), number=1)
        for data in (BAD, initial(crypto(len(OPEN), CLOSED), number=3), again):
            client.say(data, port)
        self.assertEqual(await self.rest.hears(2), [GOOD, again])
