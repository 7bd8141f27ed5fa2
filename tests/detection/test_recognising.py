from twisted.trial.unittest import SynchronousTestCase

from tests.interop.originals import client_hello
from txmux.detection.ambiguities import AMBIGUITIES, ambiguities_over
from txmux.detection.overlaps import OVERLAPS
from txmux.detection.recognising import matcher_of
from txmux.interfaces import Transport

_HOSTILE = (
    b"*", b".a", b"~a", b"a,b", b"a path=/", b'"a"', b"a;b", b"$HOME", b"${A}", b"a\\", b"\xe9",
)  # fmt: skip


class AmbiguitiesTests(SynchronousTestCase):
    def test_what_both_match_is_shown(self) -> None:
        """It is cut after 32 digits."""
        found = {(one.first, one.second): one.why for one in ambiguities_over(Transport.TCP)}
        for pair in OVERLAPS.keys() - {(one.first, one.second) for one in AMBIGUITIES}:
            data = OVERLAPS[pair]
            self.assertIn(f" {data if len(data) <= 32 else data[:32] + '…'}, in", found[pair])


class MatcherTests(SynchronousTestCase):
    def test_matcher_is_suggested_only_for_bytes_that_it_knows(self) -> None:
        for data, line in (
            (b"SSH-2.0-x\r\n", "match = ssh"),
            (b"GET / HTTP/1.1\r\n\r\n", "match = http"),
            (b"GET / HTTP/1.1\r\nHost: a-b.Example.com:80\r\n\r\n",
             "match = http host=a-b.Example.com"),
            *((b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host, "match = http") for host in _HOSTILE),
            (bytes.fromhex("1603010200010001fc0303"), "match = tls"),
            (client_hello("www.example.com"), "match = tls sni=www.example.com"),
            (client_hello("*.example.com"), "match = tls"),
            (b"\x05\x01\x00", "match = socks5"),
            (b"HELO-there", ""),
            (b"", ""),
        ):  # fmt: skip
            self.assertEqual((data, matcher_of(data)), (data, line))

    def test_matcher_of_a_datagram_is_one_for_datagrams(self) -> None:
        query = bytes.fromhex("000101000001000000000000 0161 07 6578616d706c65 00 0001 0001")
        for data, over, line in (
            (query, Transport.UDP, "match = dns"), (query, Transport.TCP, ""), (b"SSH-2.0-x\r\n", Transport.UDP, ""),
        ):  # fmt: skip
            self.assertEqual((data, matcher_of(data, over)), (data, line))
