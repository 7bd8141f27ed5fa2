from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import verdicts_of
from tests.support.examples import scaled
from tests.wire.hello_builder import byte_by_byte, sslv2_hello
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.tls import tls
from txmux.testing import facts
from txmux.wire.client_hello import ClientHello, parse_client_hello

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

HELLO = sslv2_hello()

said = verdicts_of(tls)


class HelloTests(SynchronousTestCase):
    def test_version(self) -> None:
        """The version is read at its end; there is no name, and no protocol."""
        for version, name in ((0x0002, "ssl2"), (0x0300, "ssl3"), (0x0301, "1.0"), (0x0303, "1.2")):
            data = sslv2_hello(version=version)
            reader, at = byte_by_byte(data + b"\x16\x03")
            self.assertEqual((reader.hello, at), (ClientHello(None, (), name), len(data)))
            self.assertIsNone(reader.ja4())

    def test_session_id_and_challenge_have_the_sizes_of_their_own(self) -> None:
        for data in (
            sslv2_hello(session_id=bytes(16)),
            sslv2_hello(challenge=bytes(32)),
            sslv2_hello(cipher_suites=bytes(3 * 150)),
        ):
            self.assertIsNotNone(parse_client_hello(data, None).hello)

    def test_the_byte_that_rules_it_out_is_the_one_that_shows_it(self) -> None:
        for change, at in (
            ({0: 0x82}, 0), ({1: 27}, 1), ({2: 0}, 2), ({2: 2}, 2), ({3: 1}, 3), ({3: 4}, 3),
            ({3: 0}, 4), ({4: 5}, 4), ({5: 1}, 5), ({6: 0}, 6), ({6: 20}, 6), ({6: 24}, 6),
            ({6: 3}, 8), ({7: 1}, 7), ({8: 1}, 8), ({8: 16}, 8), ({9: 1}, 9), ({10: 15}, 10),
        ):  # fmt: skip
            bad = bytearray(HELLO)
            for index, value in change.items():
                bad[index] = value
            reader, length = byte_by_byte(bytes(bad))
            self.assertTrue(reader.malformed, change)
            self.assertEqual(length, at + 1, change)


class MatcherTests(SynchronousTestCase):
    def test_match(self) -> None:
        """Length, type and version are enough."""
        self.assertEqual(said(HELLO), (MATCH, 5))
        self.assertEqual(said(b"\x81\x00\x01\x00\x02"), (MATCH, 5))
        self.assertEqual(said(HELLO[:4]), (NEED_MORE, 4))

    def test_options(self) -> None:
        """It is a hello without a name, without protocols, without an encrypted one, and without a fingerprint."""
        for options, verdict in (
            ({"sni": "none"}, MATCH), ({"sni": "a,*"}, NO), ({"alpn": "*"}, NO),
            ({"version": "1.0"}, MATCH), ({"version": "1.2,1.3"}, NO), ({"ech": "no"}, MATCH),
            ({"ech": "yes"}, NO), ({"ja4": "*"}, NO),
        ):  # fmt: skip
            self.assertIs(said(HELLO, **options).verdict, verdict, options)

    def test_other_protocols_with_this_first_byte_are_a_no_where_they_differ(self) -> None:
        for data, at in (
            (b"\x80\x01\x00\x01\x00\x00\x00\x04ping", 2),  # Thrift, binary
            (b"\x80\x0b\x00\x00\x00\x00\x00\x00", 2),  # memcached, binary: version
            (b"\x80\x21\x00\x05\x00\x00\x00\x00", 3),  # memcached, binary: SASL
            (b"\x81\x00\x00\x44\x20CKFDENECFDEFFC", 3),  # NetBIOS session request
            (b"\x82\x2e\x01\x03\x01", 1),
        ):
            self.assertEqual(said(data), (NO, at), data)
            self.assertEqual(said(data, sni="none"), (NO, at), data)

    def test_the_version_is_learnt(self) -> None:
        self.assertEqual(facts(tls.predicate({}), Peeked(HELLO)), {"tls": "1.0"})

    @settings(max_examples=scaled(100), deadline=None)
    @given(
        st.sampled_from([{}, {"sni": "none"}, {"version": "1.0"}, {"ech": "no"}]),
        st.builds(
            lambda at, junk: HELLO[:at] + junk + HELLO[at + len(junk) :],
            st.integers(0, 50),
            st.binary(max_size=3),
        ),
    )
    def test_any_bytes(self, options: dict[str, str], data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data, **options)
