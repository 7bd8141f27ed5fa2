import hashlib
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO
from tests.support.examples import scaled
from tests.wire import quic_builder, quic_vectors
from tests.wire.hello_builder import alpn, client_hello, extension, server_name
from tests.wire.quic_builder import HELLO, V2, crypto, cut, initial, long_packet, other_version
from tests.wire.quic_vectors import DRAFT_29, SERVER_1, VERSION_1, VERSION_2
from txmux.interfaces import Datagrams, Verdict
from txmux.matchers.quic import quic
from txmux.testing import flow_decided, steps_in

BIG = client_hello(extension(21, bytes(1200)), server_name("big.example.org"))
WHOLE = initial(crypto(0, HELLO))
FLOWS = (
    (VERSION_1,), (VERSION_2,), (DRAFT_29,), (WHOLE,),
    tuple(initial(frame, number=n) for n, frame in enumerate(cut(BIG, 900))), (quic_builder.zero_rtt(), WHOLE),
)  # fmt: skip
DATAGRAMS = tuple(flow[0] for flow in FLOWS[:4])
MATCHED_DATAGRAMS = FLOWS[4:]
REFUSED_DATAGRAMS = (
    *(b"\x40" + bytes(30), b"\x80" + bytes(1200), b"GET / HTTP/1.1\r\n\r\n", b"\xc0"),
    # What a server says, and packets of other types, begin nothing; nor does an unknown version in a short datagram.
    *(SERVER_1, quic_vectors.SERVER_2, quic_vectors.RETRY_1, quic_vectors.RETRY_2),
    *(long_packet(2), long_packet(3), other_version(size=1199), other_version(0)),
)
EARLY = quic_builder.zero_rtt()
UNDECIDED_DATAGRAMS = (EARLY, (EARLY, EARLY))
UNKNOWN = tuple(map(other_version, (0x1A2A3A4A, 0xFF00001C, 0x51303530, 2)))
IN_TWO = FLOWS[4]
NAMELESS = initial(crypto(0, client_hello(extension(21, b""))))
WITH_ECH = initial(crypto(0, client_hello(extension(0xFE0D, b"\0\0\1"))))
OF_VERSIONS = {
    "1": WHOLE, "2": initial(crypto(0, HELLO), version=V2), "draft-29": DRAFT_29,
    "other": other_version(),
}  # fmt: skip
DATAGRAM_VERDICTS = (
    # With a name the whole hello is needed.
    ("sni=*.example.org", IN_TWO, MATCH), ("sni=*.example.org", IN_TWO[::-1], MATCH),
    ("sni=*.example.com", WHOLE, MATCH), ("sni=*.example.com", VERSION_1, NO),
    ("sni=*.example.com", DRAFT_29, NO), ("sni=*.example.org", IN_TWO[:1], NEED_MORE),
    ("sni=*.example.org", IN_TWO[1:], NEED_MORE), ("sni=*.example.com", initial(b"\1"), NEED_MORE),
    ("sni=*.example.org", WHOLE, NO), ("sni=none", WHOLE, NO), ("sni=none", NAMELESS, MATCH),
    ("sni=*", NAMELESS, NO),
    # The other options are as for TLS.
    ("alpn=h2,h3", WHOLE, MATCH), ("alpn=h2", WHOLE, NO), ("ech=yes", WHOLE, NO),
    ("ech=yes", WITH_ECH, MATCH), ("ja4=q13d*", WHOLE, MATCH), ("ja4=t13d*", WHOLE, NO),
    # The version is that of QUIC, also of one that cannot be read.
    *((f"version={name}", flow, MATCH) for name, flow in OF_VERSIONS.items()),
    *((f"version={name},1,2", flow, MATCH) for name, flow in OF_VERSIONS.items()),
    *(
        (f"version={','.join(OF_VERSIONS.keys() - {name})}", flow, NO)
        for name, flow in OF_VERSIONS.items()
    ),
    ("version=1 sni=www.example.com", WHOLE, MATCH),
    *(("version=other", packet, NO) for packet in (SERVER_1, quic_vectors.SERVER_2, quic_vectors.RETRY_1, quic_vectors.RETRY_2)),
    # Unknown versions match by their header, never by what is inside.
    *(("", flow, MATCH) for flow in UNKNOWN),
    *((one, flow, NO) for flow in UNKNOWN for one in ("sni=none", "sni=*", "ech=no", "alpn=*")),
    # 0-RTT packets may come first, in the same datagram or alone, up to the fourth datagram.
    ("sni=www.example.com", EARLY + WHOLE, MATCH),
    ("sni=www.example.com", (EARLY, EARLY, EARLY, WHOLE), MATCH), ("", (EARLY,) * 4, NO),
    ("", (quic_builder.zero_rtt(V2), initial(crypto(0, HELLO), version=V2)), MATCH),
    # After a Retry the packet has a token; only with one its fixed bit may be clear.
    ("", initial(crypto(0, HELLO), token=b"token" * 30), MATCH),
    ("", initial(crypto(0, HELLO), token=b"t", fixed=False), MATCH),
    # A client makes up a long connection ID.
    ("", initial(crypto(0, HELLO), destination=bytes(20)), MATCH),
    # What is behind the packet does not count: padding, random bytes, packets of other types.
    *(
        ("sni=www.example.com", WHOLE + rest, MATCH)
        for rest in (bytes(600), b"\xff" * 600, long_packet(2), long_packet(3), b"\xc0")
    ),
)  # fmt: skip
DATAGRAM_KEYS = (
    ("sni=a.example,*.b.example", WHOLE, "www.example.com"),
    ("sni=a.example,*.b.example", b"\x40", ""),
    ("sni=a.example,*.b.example", quic_builder.zero_rtt(), None),
)
OF_RFC = {"sni": "example.com", "alpn": "alpn", "tls": "1.3"}
JA4 = "q13d0211an_62ed6f6ca7ad_4d634acda6c0"
JA4_29 = "q13d030900_55b375c5d22e_59cd3dafc54d"
DATAGRAM_FACTS = (
    ("", VERSION_1, {"quic": "1", **OF_RFC, "ja4": JA4}),
    ("", VERSION_2, {"quic": "2", **OF_RFC, "ja4": JA4}),
    ("", DRAFT_29, {"quic": "draft-29", "sni": "server", "tls": "1.3", "ja4": JA4_29}),
    *(("", flow, {"quic": "other"}) for flow in UNKNOWN),
)


def verdict(*datagrams: bytes, **options: str) -> Verdict:
    return flow_decided(quic.predicate(options), datagrams).verdict


def facts(*datagrams: bytes) -> dict[str, str]:
    predicate = quic.predicate({})
    told: dict[str, str] = predicate.learnt(Datagrams(datagrams))  # type: ignore[attr-defined]
    return told


class PacketTests(SynchronousTestCase):
    def assert_dropped(self, *datagrams: bytes) -> None:
        """Check that servers drop the last datagram, so that it is as if it had not come."""
        before = datagrams[:-1]
        for options in ({}, {"sni": "*"}, {"sni": "none"}, {"version": "1,2,draft-29"}):
            expected = verdict(*before, **options) if before else NEED_MORE
            self.assertIs(verdict(*datagrams, **options), expected)
        predicate: Any = quic.predicate({})
        self.assertTrue(predicate.drops(Datagrams(datagrams)))
        self.assertEqual(facts(*datagrams), facts(*before) if before else {})
        self.assertIs(verdict(*datagrams, WHOLE, sni="www.example.com"), MATCH)

    def test_each_bit_and_number_counts(self) -> None:
        """A bit that is changed anywhere behind the version makes it a no."""
        for packet in (VERSION_1, VERSION_2, DRAFT_29):
            for at in {*range(5, 60), *range(60, 1200, 97), 1199}:
                changed = bytearray(packet)
                changed[at] ^= 0x10
                self.assertIs(verdict(bytes(changed)), NO, at)
        # A datagram that does not belong to it, between those that do, changes nothing.
        first, second = FLOWS[4]
        forged = bytearray(second)
        forged[-1] ^= 1
        for stray in (b"", b"x", bytes(forged), initial(crypto(0, HELLO), destination=bytes(8))):
            self.assertIs(verdict(first, stray, second, sni="big.example.org"), MATCH)
        # The number of a packet follows from those before it, if only its end is sent (RFC 9000, appendix A.3).
        first, second = cut(HELLO, 60)
        for number in (0, 0xFE, 0xFFFF, 0x7FFFFFFF):
            flow = (initial(first, number=number), initial(second, number=number + 3, size=1))
            self.assertIs(verdict(*flow, sni="www.example.com"), MATCH)
            self.assertIs(verdict(*flow, sni="other"), NO)

    def test_packets_of_the_documents(self) -> None:
        """What these tests build packets with makes those of the documents of their frames, byte by byte, as their SHA-256 tells.

        The first bytes are the protected header, which each document shows by itself, too, in appendix A.2.
        """
        for packet, header, digest in (
            (VERSION_1, "c0 00000001 08 8394c8f03e515708 00 00 449e 7b9aec34",
             "73fa0210cb4a5a17dc10b9dc98e5cc359ba1c20fe7c0e93a9e1dcb473c37e097"),
            (VERSION_2, "d7 6b3343cf 08 8394c8f03e515708 00 00 449e a0c95e82",
             "b0b766fe7e762577072d3365cc4f9635809210cba301a67f8457f5e6fdac5c68"),
            (DRAFT_29, "c5 ff00001d 08 8394c8f03e515708 00 00 449e 4a95245b",
             "009b398049a0d76b5f67c52d8f519212f7a5e8483487961907e88ed9046274fe"),
        ):  # fmt: skip
            self.assertEqual(packet[:22], bytes.fromhex(header))
            self.assertEqual(hashlib.sha256(packet).hexdigest(), digest)

    @settings(max_examples=scaled(80))
    @given(st.data())
    def test_cut(self, data: st.DataObject) -> None:
        """Their CRYPTO frames are cut anywhere, put into any order and into several packets and datagrams."""
        version = data.draw(st.sampled_from([quic_builder.V1, V2, quic_builder.V29]))
        hello, name = (
            (quic_vectors.FRAMES_29[4:], "server")
            if version == quic_builder.V29
            else (quic_vectors.FRAMES[4:], "example.com")
        )
        frames = cut(hello, *sorted(data.draw(st.sets(st.integers(1, len(hello) - 1), max_size=9))))
        frames += data.draw(st.lists(st.sampled_from([*frames, b"\1", bytes(7)]), max_size=6))
        frames = data.draw(st.permutations(frames))
        starts = sorted(data.draw(st.sets(st.integers(1, len(frames)), max_size=3)))
        edges = itertools.pairwise([0, *starts, len(frames)])
        packets = [frames[start:end] for start, end in edges]
        coalesced = data.draw(st.booleans())
        sealed = [
            initial(*packet, number=number, version=version, pad=0 if coalesced else 1200)
            for number, packet in enumerate(packets)
        ]
        flow = [(b"".join(sealed) + bytes(100)).ljust(1200, b"\0")] if coalesced else sealed
        self.assertIs(verdict(*flow, sni=name), MATCH)
        self.assertIs(verdict(*flow, sni="example.org"), NO)

    def test_what_follows_the_hello_or_no_opening_is_not_read(self) -> None:
        predicate: Any = quic.predicate({})
        wrong = bytearray(WHOLE)
        wrong[-1] ^= 1
        for after in (b"", bytes(wrong), initial(b"\x08" + bytes(9), number=1)):
            self.assertFalse(predicate.drops(Datagrams((WHOLE, after))))
            self.assertEqual(facts(WHOLE, after), facts(WHOLE))
            self.assertIs(verdict(WHOLE, after, sni="www.example.com"), MATCH)
            self.assertIs(verdict(bytes(wrong), WHOLE, sni="*"), NO)

    def steps(self, *flow: bytes) -> int:
        predicate = quic.predicate({"sni": "*.example.com"})
        predicate(Datagrams((WHOLE,)))

        def ask() -> None:
            seen = None
            for count in range(1, len(flow) + 1):
                seen = Datagrams(flow[:count], seen)
                predicate(seen)

        return steps_in(ask)

    def test_what_servers_drop(self) -> None:
        begun, other_name = HELLO[:90], HELLO.replace(b"Example", b"Another")
        other_id, other_version = {"destination": bytes(8)}, {"version": V2}
        twice = client_hello(server_name("www.example.com"), alpn(b"h3"), alpn(b"h3"))
        rows: tuple[tuple[bytes, ...], ...] = (
            # A datagram of which a part is a server's.
            (VERSION_1 + SERVER_1,),
            (VERSION_2 + quic_vectors.RETRY_2,),
            # One in which packets are not all of one connection and version (RFC 9000, section 12.2): a server may take one of them.
            *((WHOLE + initial(crypto(0, HELLO), **other),) for other in (other_id, other_version)),
            (WHOLE + long_packet(0, version=0x1A2A3A4A),),
            (long_packet(2) + WHOLE,),
            # An Initial packet in a datagram of less than 1200 bytes (section 14.1).
            (initial(crypto(0, HELLO), pad=1199),),
            (quic_builder.zero_rtt(), initial(crypto(0, HELLO), pad=0)),
            (initial(crypto(0, begun)), initial(crypto(90, HELLO[90:]), pad=0)),
            # Bits that have to be 0 under the protection (section 17.2), and the fixed one without a token.
            *((initial(crypto(0, HELLO), reserved=bits),) for bits in (4, 8, 12)),
            (initial(crypto(0, HELLO), fixed=False),),
            # A short connection ID.
            (initial(crypto(0, HELLO), destination=bytes(7)),),
            # Frames that may not be there, even with the right tag.
            (initial(b"\x08" + bytes(9)),),
            (initial(crypto(0, HELLO), b"\x08" + bytes(9)),),
            # A stream that begins with something else than a hello, or with a malformed one, whose connection ends.
            *((initial(crypto(0, data)),) for data in (b"\2\0\0\x40" + bytes(90), twice)),
            # Pieces that contradict each other: another server may see another name than this one.
            (initial(crypto(0, begun), crypto(0, other_name)),),
            (initial(crypto(0, begun)), initial(crypto(0, other_name))),
        )
        for number, flow in enumerate(rows):
            with self.subTest(number):
                self.assert_dropped(*flow)

    def test_pieces_in_any_cut_make_the_hello(self) -> None:
        """64 pieces of one byte each, over four datagrams, and no more than 32 in one, or behind a gap."""
        frames = [crypto(n, HELLO[n : n + 1]) for n in range(80)]
        random.Random(1).shuffle(frames)
        flow = [initial(*frames[n : n + 16], number=n) for n in range(0, 64, 16)]
        self.assertLess(self.steps(*flow), 9_000)
        self.assert_dropped(initial(*frames[:33]))
        late = [crypto(n, HELLO[n : n + 1]) for n in range(1, 34)]
        self.assert_dropped(initial(*late[:20]), initial(*late[20:]))
        # A client that hears nothing sends its hello again in other pieces; the last one of four datagrams makes it whole.
        chance = random.Random(2)
        for number in range(20):
            pieces = cut(BIG, *sorted(chance.sample(range(1, len(BIG)), 15)))
            hole = chance.randrange(len(pieces))
            lacking = [*pieces[:hole], *pieces[hole + 1 :]]
            flow = [initial(*chance.sample(lacking, len(lacking)), number=n) for n in range(3)]
            self.assertIs(verdict(*flow, sni="big.example.org"), NEED_MORE, number)
            flow.append(initial(*chance.sample(pieces, len(pieces)), number=3))
            self.assertIs(verdict(*flow, sni="big.example.org"), MATCH, number)

    def test_as_many_small_packets_as_a_datagram_can_hold(self) -> None:
        small = initial(b"\1", pad=0)
        datagram = small * (60_000 // len(small))
        self.assertLess(self.steps(datagram), 6_000)
        self.assert_dropped(datagram)
        self.assertLess(self.steps(quic_builder.zero_rtt() * 800), 6_000)

    def test_a_usual_hello_takes_few_steps_in_one_piece_or_in_many(self) -> None:
        self.assertLess(self.steps(WHOLE), 1_200)
        cuts = range(9, len(HELLO), len(HELLO) // 10)
        self.assertLess(self.steps(initial(*cut(HELLO, *cuts)[::-1])), 1_800)

    def test_both_datagrams_of_the_hello_of_chromium_are_needed_in_any_order(self) -> None:
        recorded = json.loads((Path(__file__).parents[1] / "corpus/quic.json").read_text())
        first, second = map(bytes.fromhex, recorded["chromium"]["hex"])
        for flow in ((first, second), (second, first)):
            self.assertIs(verdict(*flow, sni="www.example.com", alpn="h3", version="1"), MATCH)
            self.assertIs(verdict(*flow, sni="example.com"), NO)
            self.assertIs(verdict(flow[0], sni="www.example.com"), NEED_MORE)
            self.assertIs(verdict(flow[0]), MATCH)
            told = facts(*flow)
            self.assertEqual((told["sni"], told["alpn"]), ("www.example.com", "h3"))
            self.assertEqual(told["ja4"], "q13d0312h3_55b375c5d22e_178839b6cec1")

    def test_import_lazy(self) -> None:
        """The primitives are imported when a rule with `quic` is read, not before."""
        code = (
            "import sys; from txmux.detection.registry import installed_matchers as i; m = i()['quic'];"
            "before = 'txmux.wire.quic.initial' in sys.modules; m.predicate({});"
            "print(before, 'txmux.wire.quic.initial' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        self.assertEqual(done.stdout.split(), [b"False", b"True"])
