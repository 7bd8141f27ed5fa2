import itertools
import random
import subprocess
import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO
from tests.support.examples import scaled
from tests.wire.hello_builder import alpn, client_hello, extension, server_name
from tests.wire.quic_builder import (
    HELLO,
    V1,
    V2,
    V29,
    crypto,
    cut,
    initial,
    long_packet,
    other_version,
    zero_rtt,
)
from tests.wire.quic_vectors import (
    DRAFT_29,
    FRAMES,
    FRAMES_29,
    RETRY_1,
    RETRY_2,
    SERVER_1,
    SERVER_2,
    VERSION_1,
    VERSION_2,
)
from txmux.interfaces import Datagrams, Verdict
from txmux.matchers.quic import quic
from txmux.testing import flow_decided, steps_in

# Chromium 156 asks for www.example.com by HTTP/3. Its hello of 1,987 bytes, with a key for ML-KEM, is in 20 pieces; the first
# datagram has its beginning and its end, the second one what is between.
CHROMIUM = (
    bytes.fromhex(
        "c400000001082cf2c8e531da7acd000044d09ca10b94e71213ebfd11f7edd89c272ca22deeeb438c8a1b2001"
        "a4195f1386cde73051c016bb2fffe15643d59b700a26dcc169be49781bd4c85ad6ed1609d7aa44ed565d0780"
        "78fb823ccdd9ec75206e3955d7185058c240fdd3a18b50cea75a75477985a07087ba245e83b395f9658ba201"
        "dcf5fff7f96fa2ed2cf972eb034f7fe1e29a41f72f7c0644676df8df3beee483973fad8542df54bc3120273b"
        "67a73a6e031abe52964ec107d2f1f264032fcdfab2c1ec8d85d7cf47607375ca6d30433896ad6e48cc6d1cf5"
        "c7c280cf587575076ec06029b682affe95f269d30d53c355846407aa1c7546528a16433875ed520d77f339af"
        "0df9871a45deaa40751f3efe08cd4147f1fdcb66351528654d61c6e988f36cb7189bac204de1169140f34c5f"
        "918ea6919d8fdff1d9d92588c804f9c585e43ac61aa2ef171eefc8d71a41e8619d4e70d05d1b5ca28dd02c6d"
        "21100c2ba040d858be67dc5adc0996b4d9cc3f898e6626184d00383af31a1a97f80a5d0ff7e53d5407ca9f31"
        "1bdd45aed91e65aa6480b0de7701b99295522c60a56a6f62dc9c344b3558499ced8dcbe67a410a97d9725aee"
        "b8da11e16e203d1bbc443d4e5ad953aac99aaaa42125189a64fc549991e075ec432f5db45ddda5a17f1f3bed"
        "04ec75cd05498fae896b1e93832073b654d367e3595cc3d3556185b36df586c9bfff26b221795f4fa1b7e7ea"
        "3a40d2e94de9fa5ae9d2f0271d3d4c9bcc89f2eece8db8c4cf7a9e154759cea8ef52c6d61b660a0aa67c20e7"
        "5a31a9862b97fb2f07342cfe3187f57a1cffc65d222e3fbb901a3ed8ffd66889cda6dae3f4df0777f37fa084"
        "72f518a293c5c4e9a428679a10c2bc312922b70b06041be84c37229cc19a2beabadace8a9f1e34622e74f1d0"
        "eace1dd5314d3c0226d651c91d3d135c122504d1b01038f4f2120fbd9845ec0eea544b513d2318806c59c7e4"
        "ba4bc66f0ea3880d3a7827c8aa4592f55404a241a0571f3382ed8725db5439830ed2e81da8197d5956812da6"
        "8d6d09fe9427d026d11beca18a445d960095d38b002afd49aa2ffd5592b0c81957870c79d80d4ccdf3e85fd0"
        "844d2b388ac95eca25e5f732adebc88a10bf10bfa4d763af2b538340923ecff35d38e05584f2a801ad63705f"
        "1f795ca1bb4aa8c9d7db73c295640a79a52cef7f61a9192077d0e8e88b4de347f26e73efd169d021261f64dd"
        "718a045601f0125c8efcd654a0e7c2c60534e84cc77300f04499e804eda0c18b06fddadef49ec5484d3d98e0"
        "87f68382539029210e3ed3e79d909864092bbd0e5c43354372dfee8571cf5a05eda208947fcba27c9595a2cd"
        "dade8a2650836dd888b0714db4b8c7798ac2a0ee421faddde2c0541507f28cb15c6f8127ae5e23873882378e"
        "ebb0c8c0e7157fcd84a2968326c103b5d202a7caa1febdfcf54e2adb4282b9685854db294b24b6825967ac43"
        "2eeaa3136c92deb46c0a275d5114039d6df3ab24ea18eb0c084882208414ddd42406a6143ca695c978dc2358"
        "882743ece38727a046fdf59886a438efef2fd2ae40416f1e062f95ed5d52c10c7df16e2a7e5f2457a17cc6e1"
        "38516a7a80dd128e9332d2c32304ecc11d4c97074578153bda55387db27328b543a09e2a581a9d2b850b3992"
        "7add31b6c23f0d247a3b2b333ad24c1aefe7c60e6eba9e90f96041f9eda200ce9a3fc5ed0ee24783f9985633"
        "a93f577d38335f1e76d06cbc35367ab4c0b3"
    ),
    bytes.fromhex(
        "ce00000001082cf2c8e531da7acd000044d01600d716f96fbc94d200d755f0892256a5398393ec7f371764b9"
        "a3cab4e8e0059c04d2e0ca54eb7a15bcc0c08b3ac0d06eb2f77f810be437dddbc60994489d635f5da8f0109f"
        "7df130e3e87c05e83937177097a36e104c606e7bbc2e1ae7b17fe349380854cf9b1837394f05e6ccc0554b0e"
        "99d2c8ebeadb3a1df96994ac91f3c32dd531ec5cb8bcae3b9ffaa632ee62f7eebdb82c60c42856b06162a6ff"
        "0ca97161d8ad026dfe711f459a8122c40ad378cf7f4d6d0ef354c5942bbd4e3fc8607cd3934bffaeed7e2358"
        "f40d4584d9b8cec7d20f89aea00d5e270b632f51ba51da5bea639768b2062e628b2e4ccb66561782cec7e380"
        "4ae7513bf5ce975af70c2533f464a6af212b754648085ee2160b3dbf71f53016bcdffd5c5b60b2fe1afd3d66"
        "42cfdc9084720af3f32a4e1329084abe1d29c96e9b0d78993d47368a9e2d0daa9ca53bfe6b0e099adee6750d"
        "62dedd0ad2ee13fbd6a3b00750ca7734ecb7a6acd995ef4fb529d0297f6588af6ae2c50268fc1e3621402c4d"
        "986ffd296b0f950eaf85963f205a6bf60f30c1d0da6ef1954ceee6ac0c4f4e459b44e3a8a09048c7f6a8b36b"
        "2c3f0dda961eef0712d28e9e9dcbc8699fef91da1f428fc696f9e9ef043b3efc06afa2dd30435b599a84e711"
        "8a7750fcc75ea0dd06c21528ae8573903e0499ad5fbfa2897c1b625e431dee35e1c399bf71db9480100c1515"
        "3f9279e39b8d2038c31929ccf0ad5d17ef49bef6f53f9a0a879290374c36106e0d35947ea04d53a0ea0e0000"
        "c94e2185ba0566231e5b192715db0bd11860e7f6d55fec3c88ddeaf04a28ff558afc53b74406c16544fe75a2"
        "9c216e2f93364e9a11979ab664bd4e5ff9b35a1e45698306c3c7e36295cbcaf00cbc56c2dcdfbd9f59ac8549"
        "544ab1d1deb90f2bbc4f960754d1560d23cbeda2998653e1e724cea84a4d38178ad3c5b07b02af25b44a8fb2"
        "cfaa6d580cdd6dc3fb51bd9e73c26446f415cb38276f2ed8f1d7e06e3f07e483804cbd4ea779b8d58e979892"
        "3bc2ceb6bbf6191df7fdaf8ae6b0cf02f9e9c66f4383c39a0e7184283d73e155d0aac93c70df90bdb3b6fc41"
        "fa242473189276c206f37a5cab0bc0acaa7e2ae3a1b409887d2a087624bdc47b43fa7efc9ff7a0167df512c7"
        "3bff79349e5009d419e8929d2d78fd9a5622b933a509a5cdf5f3cfb19e04d63a16578d01f4e8bc3ad41fabf4"
        "3261b45efcb4da99fb4be6c4efc6a524190545b29f2f5ff48cbce6f41f2364e367a56664993e462e9fdc3811"
        "bc85add7d1e30b786e7409b623910c413e8d4d02d646fe424588638a23a159a5907f1948b2a7699875ec0a90"
        "8175485efd322cf54990338c14528ea68ee52a7e2d4e23b70f2d356d891ca9864e62b8a387f0a5f23dc5f3d4"
        "34c82f103cb7e9567b43dd357655e32b6edf187b81273da39c58316c4e85497b41ba3e363e36ed71432b7001"
        "412cff659e4a907e27e7f6a60bc2f36f044e0fc8387c6fbeee6e5859096bc722f6a9bc922a6ae8953ee5d91d"
        "fa9f17b9641bc8e11f416e443835a0c0857cbcd327e4bdd196d540cbe2073dcf31cbaa922f96eb2a04ef6a43"
        "7d5edbf8cf8f6b57168efd4a3294c61bdf3ecbeef5a157e543e5f57b592104875f856c5621a12a88b1a7e12f"
        "a8ba44496213db5e82fc6773a5cd73f2cb293022aff771cf6ace11d208aadd4680cceb1c5f740744dc4d98a7"
        "7dbbaaa822b986a4edd145b0427199fce4a3"
    ),
)


BIG = client_hello(extension(21, bytes(1200)), server_name("big.example.org"))
WHOLE = initial(crypto(0, HELLO))
FLOWS = (
    (VERSION_1,), (VERSION_2,), (DRAFT_29,), (WHOLE,),
    tuple(initial(frame, number=n) for n, frame in enumerate(cut(BIG, 900))), (zero_rtt(), WHOLE),
)  # fmt: skip
DATAGRAMS = tuple(flow[0] for flow in FLOWS[:4])
MATCHED_DATAGRAMS = FLOWS[4:]
REFUSED_DATAGRAMS = (
    *(b"\x40" + bytes(30), b"\x80" + bytes(1200), b"GET / HTTP/1.1\r\n\r\n", b"\xc0"),
    # What a server says, and packets of other types, begin nothing; nor does an unknown version in a short datagram.
    *(SERVER_1, SERVER_2, RETRY_1, RETRY_2, long_packet(2), long_packet(3)),
    *(other_version(size=1199), other_version(0)),
)
EARLY = zero_rtt()
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
    *(("version=other", packet, NO) for packet in (SERVER_1, SERVER_2, RETRY_1, RETRY_2)),
    # Unknown versions match by their header, never by what is inside.
    *(("", flow, MATCH) for flow in UNKNOWN),
    *((one, flow, NO) for flow in UNKNOWN for one in ("sni=none", "sni=*", "ech=no", "alpn=*")),
    # 0-RTT packets may come first, in the same datagram or alone, up to the fourth datagram.
    ("sni=www.example.com", EARLY + WHOLE, MATCH),
    ("sni=www.example.com", (EARLY, EARLY, EARLY, WHOLE), MATCH), ("", (EARLY,) * 4, NO),
    ("", (zero_rtt(V2), initial(crypto(0, HELLO), version=V2)), MATCH),
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
    ("sni=a.example,*.b.example", zero_rtt(), None),
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

    def test_changed(self) -> None:
        """A bit that is changed anywhere behind the version makes it a no."""
        for packet in (VERSION_1, VERSION_2, DRAFT_29):
            for at in {*range(5, 60), *range(60, 1200, 97), 1199}:
                changed = bytearray(packet)
                changed[at] ^= 0x10
                self.assertIs(verdict(bytes(changed)), NO, at)

    def test_what_these_tests_build_packets_with_makes_the_same_of_their_frames(self) -> None:
        for version, frames, packet in (
            (V1, FRAMES, VERSION_1), (V2, FRAMES, VERSION_2), (V29, FRAMES_29, DRAFT_29),
        ):  # fmt: skip
            self.assertEqual(initial(frames, number=2, version=version, source=b""), packet)

    @settings(max_examples=scaled(80))
    @given(st.data())
    def test_cut(self, data: st.DataObject) -> None:
        """Their CRYPTO frames are cut anywhere, put into any order and into several packets and datagrams."""
        version = data.draw(st.sampled_from([V1, V2, V29]))
        hello, name = (FRAMES_29[4:], "server") if version == V29 else (FRAMES[4:], "example.com")
        cuts = sorted(data.draw(st.sets(st.integers(1, len(hello) - 1), max_size=9)))
        frames = cut(hello, *cuts)
        frames += data.draw(st.lists(st.sampled_from([*frames, b"\1", bytes(7)]), max_size=6))
        frames = data.draw(st.permutations(frames))
        packets = [
            frames[start:end]
            for start, end in itertools.pairwise(
                [
                    0,
                    *sorted(data.draw(st.sets(st.integers(1, len(frames)), max_size=3))),
                    len(frames),
                ]
            )
        ]
        coalesced = data.draw(st.booleans())
        sealed = [
            initial(*packet, number=number, version=version, pad=0 if coalesced else 1200)
            for number, packet in enumerate(packets)
        ]
        flow = [(b"".join(sealed) + bytes(100)).ljust(1200, b"\0")] if coalesced else sealed
        self.assertIs(verdict(*flow, sni=name), MATCH)
        self.assertIs(verdict(*flow, sni="example.org"), NO)

    def test_numbers(self) -> None:
        """The number of a packet follows from those before it, if only its end is sent (RFC 9000, appendix A.3)."""
        first, second = cut(HELLO, 60)
        for number in (0, 0xFE, 0xFFFF, 0x7FFFFFFF):
            flow = (initial(first, number=number), initial(second, number=number + 3, size=1))
            self.assertIs(verdict(*flow, sni="www.example.com"), MATCH)
            self.assertIs(verdict(*flow, sni="other"), NO)

    def test_stranger(self) -> None:
        """A datagram that does not belong to it, between those that do, changes nothing."""
        first, second = FLOWS[4]
        forged = bytearray(second)
        forged[-1] ^= 1
        for stray in (b"", b"x", bytes(forged), initial(crypto(0, HELLO), destination=bytes(8))):
            self.assertIs(verdict(first, stray, second, sni="big.example.org"), MATCH)

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
            *(
                (client + others,)
                for client, others in ((VERSION_1, SERVER_1), (VERSION_2, RETRY_2))
            ),
            # One in which packets are not all of one connection and version (RFC 9000, section 12.2): a server may take one of them.
            *((WHOLE + initial(crypto(0, HELLO), **other),) for other in (other_id, other_version)),
            (WHOLE + long_packet(0, version=0x1A2A3A4A),),
            (long_packet(2) + WHOLE,),
            # An Initial packet in a datagram of less than 1200 bytes (section 14.1).
            (initial(crypto(0, HELLO), pad=1199),),
            (zero_rtt(), initial(crypto(0, HELLO), pad=0)),
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

    def test_pieces(self) -> None:
        """64 pieces of one byte each, over four datagrams, and no more than 32 in one, or behind a gap."""
        frames = [crypto(n, HELLO[n : n + 1]) for n in range(80)]
        random.Random(1).shuffle(frames)
        flow = [initial(*frames[n : n + 16], number=n) for n in range(0, 64, 16)]
        self.assertLess(self.steps(*flow), 9_000)
        self.assert_dropped(initial(*frames[:33]))
        late = [crypto(n, HELLO[n : n + 1]) for n in range(1, 34)]
        self.assert_dropped(initial(*late[:20]), initial(*late[20:]))

    def test_again(self) -> None:
        """A client that hears nothing sends its hello again in other pieces; the last one of four datagrams makes it whole."""
        chance = random.Random(2)
        for number in range(20):
            cuts = sorted(chance.sample(range(1, len(BIG)), 15))
            pieces = cut(BIG, *cuts)
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
        self.assertLess(self.steps(zero_rtt() * 800), 6_000)

    def test_a_usual_hello_takes_few_steps_in_one_piece_or_in_many(self) -> None:
        self.assertLess(self.steps(WHOLE), 1_200)
        cuts = range(9, len(HELLO), len(HELLO) // 10)
        self.assertLess(self.steps(initial(*cut(HELLO, *cuts)[::-1])), 1_800)

    def test_both_datagrams_of_the_hello_of_chromium_are_needed_in_any_order(self) -> None:
        for flow in (CHROMIUM, CHROMIUM[::-1]):
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
