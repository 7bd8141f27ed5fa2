"""The `rdp` matcher: without options the fixed part decides, and one byte behind it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import facts_of, verdicts_of
from txmux.errors import OptionError
from txmux.interfaces import Verdict
from txmux.matchers.rdp import rdp
from txmux.testing import check_predicate

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

NEGOTIATION = bytes.fromhex("01 00 0800 0b000000")


def request(variable: bytes) -> bytes:
    """Make a connection request with this behind the fixed part."""
    length = 11 + len(variable)
    return bytes([3, 0, length >> 8, length & 0xFF, length - 5, 0xE0]) + bytes(5) + variable


# The first is that of MS-RDPBCGR, section 4.1.1; the others are made by hand after section 2.2.1.1: a routing token of
# Windows, another one, a negotiation request alone, one with correlation info, and nothing.
SAMPLES = (
    bytes.fromhex(
        "0300002c 27e00000000000 436f6f6b69653a206d737473686173683d656c746f6e730d0a 0100080000000000"
    ),
    request(b"Cookie: msts=3640205228.15629.0000\r\n" + NEGOTIATION),
    request(b"tsv://MS Terminal Services Plugin.1.Farm\r\n" + NEGOTIATION),
    request(NEGOTIATION),
    request(
        bytes.fromhex("01 08 0800 0b000000") + b"\x06\x00\x24\x00" + bytes(range(1, 17)) + bytes(16)
    ),
    request(b""),
    # Recorded from xfreerdp 2.11.7 with /u:alice.
    bytes.fromhex("0300002b 26e00000000000")
    + b"Cookie: mstshash=alice\r\n\x01\x00\x08\x00\x03\x00\x00\x00",
)
COOKIE, TOKEN, RAW_TOKEN = SAMPLES[:3]

learnt = facts_of(rdp)
said = verdicts_of(rdp)
# A line or a negotiation request may follow, or nothing.
DECIDED_AT = (12, 12, 12, 12, 12, 11, 12)
REFUSED = (
    # The byte that breaks the request is a no.
    *(
        (bytes.fromhex(data), at)
        for data, at in (
            ("0301", 2),
            ("0300 000a", 4),
            ("0300 0104", 4),
            ("0300 002c 26", 5),
            ("0300 002c 27 f0", 6),
            ("0300 002c 27 e0 0000 0001", 10),
            ("0300 002c 27 e0 0000 0000 10", 11),
            ("0300 002c 27 e0 0000 0000 00 01", 12),
            ("0300 0013 0e e0 0000 0000 00 20", 12),
        )
    ),
    # Cassandra, RTMP and other users of TPKT, such as S7, are a no.
    *(
        (bytes.fromhex(data), at)
        for data, at in (
            ("03 00 0000 05 00000000", 4),
            ("03 00000000 00000000", 4),
            ("0300 0016 11e0 0000 0001 00 c1020100 c2020102 c0010a", 10),
            ("0300 0016 11e0 0000 0000 00 c1020100 c2020102 c0010a", 12),
        )
    ),
)


class CookieTests(SynchronousTestCase):
    """``cookie=`` looks at the name of the user."""

    def test_match(self) -> None:
        """The end of the line decides."""
        self.assertEqual(said(COOKIE, cookie="el*"), (MATCH, 36))
        self.assertEqual(said(COOKIE, cookie="alice,eltons"), (MATCH, 36))
        self.assertEqual(said(COOKIE[:35], cookie="eltons"), (NEED_MORE, 35))
        self.assertEqual(said(COOKIE[:20], cookie="eltons"), (NEED_MORE, 20))
        longest = request(b"Cookie: mstshash=" + b"a" * 229 + b"\r\n")
        self.assertEqual(said(longest, cookie="a*"), (MATCH, 259))

    def test_no(self) -> None:
        """The first byte that no pattern can have there is a no."""
        self.assertEqual(said(COOKIE, cookie="eltona"), (NO, 34))
        self.assertEqual(said(COOKIE, cookie="elton"), (NO, 34))
        self.assertEqual(said(COOKIE, cookie="*x"), (NO, 35))
        self.assertEqual(said(COOKIE, cookie="eltons?"), (NO, 35))

    def test_without(self) -> None:
        """A request without a cookie is a no."""
        for sample, at in zip(SAMPLES[1:6], (24, 12, 12, 12, 11), strict=True):
            self.assertEqual(said(sample, cookie="*"), (NO, at))

    def test_malformed(self) -> None:
        """So is a cookie with a control character, or without an end."""
        start = b"Cookie: mstshash="
        self.assertEqual(said(request(start + b"a\x00b\r\n"), cookie="*"), (NO, 30))
        self.assertEqual(said(request(start + b"a\rb\r\n"), cookie="*"), (NO, 31))
        self.assertEqual(said(request(start + b"abc"), cookie="*"), (NO, 31))
        self.assertEqual(said(request(start[:5]), cookie="*"), (NO, 16))
        self.assertEqual(said(b"\x03\x01", cookie="*"), (NO, 2))


class TokenTests(SynchronousTestCase):
    """``token=`` looks at the routing token."""

    def test_match(self) -> None:
        """It may be that of Windows, or any line but a cookie."""
        self.assertEqual(said(TOKEN, token="3640205228.*"), (MATCH, 47))
        self.assertEqual(said(RAW_TOKEN, token="tsv://*.Farm"), (MATCH, 53))
        self.assertEqual(said(request(b"Cookie\r\n"), token="Cookie"), (MATCH, 19))
        self.assertEqual(said(TOKEN[:30], token="3640205228.*"), (NEED_MORE, 30))

    def test_no(self) -> None:
        """A cookie is no token, and the first byte that no pattern can have there is a no."""
        self.assertEqual(said(COOKIE, token="*"), (NO, 28))
        self.assertEqual(said(TOKEN, token="4*"), (NO, 25))
        self.assertEqual(said(RAW_TOKEN, token="x*"), (NO, 12))
        for sample, at in zip(SAMPLES[3:6], (12, 12, 11), strict=True):
            self.assertEqual(said(sample, token="*"), (NO, at))


class OptionTests(SynchronousTestCase):
    """What cannot be configured."""

    def test_unusable(self) -> None:
        """Patterns that cannot be used are an error that names the option."""
        error = self.assertRaises(OptionError, rdp.predicate, {"cookie": "a,,b"})
        self.assertIn("cookie: ", str(error))

    def test_both(self) -> None:
        """No request has both a cookie and a token."""
        options = {"cookie": "a", "token": "b"}
        self.assertRaises(OptionError, rdp.predicate, options)


class LearntTests(SynchronousTestCase):
    """What goes to the access log."""

    def test_facts(self) -> None:
        """Cookie and token are learnt when their line is there in full."""
        self.assertEqual(learnt(COOKIE), {"cookie": "eltons"})
        self.assertEqual(learnt(TOKEN), {"token": "3640205228.15629.0000"})
        self.assertEqual(learnt(RAW_TOKEN), {"token": "tsv://MS Terminal Services Plugin.1.Farm"})

    def test_none(self) -> None:
        """What is not there in full, or no request, tells nothing."""
        for data in (COOKIE[:20], COOKIE[:35], SAMPLES[3], b"GET / HTTP/1.1\r\n"):
            self.assertEqual(learnt(data), {})


class OptionContractTests(SynchronousTestCase):
    """The contract of a predicate, with options."""

    def test_contract(self) -> None:
        """Any bytes at all get one answer, however they are cut."""
        for options in ({"cookie": "el*,a?"}, {"token": "*.0000"}):
            check_predicate(rdp.predicate(options), more=SAMPLES, examples=30)
