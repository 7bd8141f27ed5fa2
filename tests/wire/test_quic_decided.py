import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.wire.hello_builder import alpn, client_hello, server_name, versions
from tests.wire.quic_builder import DESTINATION, V2, crypto, initial, long_packet, other_version
from txmux.interfaces import Datagrams
from txmux.wire import codec
from txmux.wire.quic.decided import DecidedHello
from txmux.wire.quic.opening import QuicOpening, parse_opening


def hello(name: bytes = b"a.example.com", protocol: bytes = b"h3", random: int = 0) -> bytes:
    made = client_hello(server_name(name.decode()), alpn(protocol), versions(0x0304))
    return made[:6] + bytes([random]) * 32 + made[38:]


HELLO = hello()


class DecidedHelloTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.decided = self.after(initial(crypto(0, HELLO)))
        self.late: list[Datagrams] = []

    def after(self, *datagrams: bytes) -> DecidedHello:
        return DecidedHello.from_opening(parse_opening(datagrams, None))

    def admits(self, datagram: bytes, *known: bytes, decides: bool = False) -> bool:
        def ask(peeked: Datagrams) -> bool:
            self.late.append(peeked)
            return decides

        return self.decided.admits(datagram, known, ask)

    def test_everything_that_rules_ask_for_stays(self) -> None:
        for number, (data, is_same) in enumerate((
            (hello(random=9), True), (hello(b"b.example.com"), False), (hello(protocol=b"doq"), False),
        )):  # fmt: skip
            other = initial(crypto(0, data), destination=bytes([number]) * 8)
            self.assertEqual(self.admits(other), is_same)
        self.assertEqual(self.late, [])

    def test_which_go_on(self) -> None:
        """Packets without a hello do, that have a known version, are of one connection and, in a datagram, few."""
        changed = bytearray(initial(b"\1"))
        changed[-1] ^= 1
        unknown = b"\xc0\x1a\x2a\x3a\x4a\x08" + DESTINATION + bytes(40)
        small = [initial(b"\1", number=n, pad=0) for n in range(17)]
        for datagram, is_admitted, *known in (
            (initial(b"\1", pad=0), True), (long_packet(2), True), (long_packet(1), True),
            (b"\xc0", True), (b"\xc0\0\0\0\1\xff", True), (bytes(changed), False),
            (unknown, False), (unknown, True, unknown[1:5]), (long_packet(2) + unknown, False),
            (long_packet(2, version=0), False), (long_packet(2, version=V2), True),
            (long_packet(2) + initial(b"\1", destination=bytes(8)), False),
            (long_packet(2) + b"\xff" * 600, True),
            (b"".join(small[:16]), True), (b"".join(small), False),
        ):  # fmt: skip
            self.setUp()
            self.assertIs(self.admits(datagram, *known), is_admitted, datagram)

    def test_late_hello_decides_once_and_a_malformed_one_goes_nowhere(self) -> None:
        self.decided = self.after(initial(b"\1"))
        self.assertFalse(self.admits(initial(crypto(0, HELLO), number=1)))
        [peeked] = self.late
        opening = peeked.parsed_all(parse_opening)
        self.assertEqual((opening.hello.sni, opening.certain), ("a.example.com", True))
        self.assertTrue(self.admits(initial(crypto(0, HELLO), number=2), decides=True))
        self.assertTrue(self.admits(initial(crypto(0, HELLO), number=3)))
        self.assertFalse(self.admits(initial(crypto(0, hello(b"b")), number=4), decides=True))
        self.assertEqual(len(self.late), 2)
        self.decided = self.after(initial(b"\1"))
        twice = client_hello(server_name("a.example.com"), alpn(b"h3"), alpn(b"h3"))
        self.assertFalse(self.admits(initial(crypto(0, twice), number=1), decides=True))
        self.assertFalse(
            self.admits(
                initial(crypto(0, HELLO), crypto(len(HELLO), b"\2\0\0\1x"), number=1), decides=True
            )
        )
        self.assertTrue(self.admits(initial(crypto(0, HELLO), number=1), decides=True))

    def test_known_version_after_another(self) -> None:
        """A server that does not know the first version offers others, and the ID may stay (RFC 9000, section 6.2)."""
        self.decided = self.after(other_version())
        self.assertFalse(self.admits(initial(crypto(0, HELLO))))
        self.assertTrue(self.admits(initial(crypto(0, HELLO)), decides=True))

    def test_after_the_handshake_there_are_only_late_acknowledgements(self) -> None:
        self.assertTrue(self.admits(initial(b"\1", number=0x1_0003, size=4)))
        for _ in "12":
            self.decided.end()
            self.assertTrue(self.admits(initial(b"\1", number=0x1_0004, size=1, pad=0)))
            self.assertFalse(self.admits(initial(crypto(0, HELLO))))
            self.assertFalse(self.admits(initial(crypto(900, b"x"), destination=bytes(8))))

    def test_connections_of_a_flow_are_few(self) -> None:
        admitted = [
            self.admits(initial(crypto(0, hello(random=n)), destination=bytes([n]) * 8))
            for n in range(40)
        ]
        self.assertEqual(admitted, [True] * 15 + [False] * 25)

    def test_bytes_of_a_flow_are_few(self) -> None:
        kept = 0
        for n in range(60):
            data = crypto(1000 + n // 10 * 1100, bytes(1100))
            kept += 1100 * self.admits(
                initial(data, number=n, destination=bytes([n % 10]) * 8, pad=0)
            )
        self.assertGreater(kept, 24 * 1024)
        self.assertLessEqual(kept + len(HELLO), 32 * 1024)

    @settings(max_examples=scaled(60))
    @given(st.data())
    def test_another_process_judges_alike(self, data: st.DataObject) -> None:
        """Whatever comes before, and whatever then."""
        texts = [HELLO, hello(random=1), hello(b"b.example.com"), b"\2" * 90]
        at = st.integers(0, len(HELLO))
        frame = st.builds(
            lambda offset, end, text: crypto(offset, text[offset:end]),
            at,
            at,
            st.sampled_from(texts),
        )
        datagram = st.builds(
            lambda frames, number, destination: initial(*frames, number=number, destination=destination),
            st.lists(frame, max_size=3), st.integers(0, 300), st.sampled_from([DESTINATION, bytes(8)]),
        )  # fmt: skip
        datagrams = data.draw(st.lists(datagram, max_size=5))
        first = data.draw(
            st.sampled_from(
                [initial(b"\1"), initial(crypto(0, HELLO[:40])), initial(crypto(0, HELLO))]
            )
        )
        is_over, decides = data.draw(st.booleans()), data.draw(st.booleans())
        outcomes = []
        for is_moved in (False, True):
            self.decided = self.after(first)
            outcome = []
            for number, one in enumerate(datagrams):
                if is_over and number == 3:
                    self.decided.end()
                if is_moved:
                    text = json.dumps(codec.write(self.decided))
                    self.decided = codec.read(DecidedHello, json.loads(text))
                outcome.append(self.admits(one, decides=decides))
            outcomes.append(outcome)
        self.assertEqual(*outcomes)

    def test_senseless_values_are_refused(self) -> None:
        reported = codec.write(self.decided)
        wrongs: tuple[dict[str, Any], ...] = (
            {"hello": 1}, {"openings": [[]]}, {"openings": [["zz", 0, "", []]]},
        )  # fmt: skip
        for wrong in wrongs:
            with self.assertRaises((TypeError, ValueError)):
                codec.read(DecidedHello, {**reported, **wrong})
        self.assertEqual(QuicOpening.from_json(["00", 7, "", []]).destination, b"\0")
