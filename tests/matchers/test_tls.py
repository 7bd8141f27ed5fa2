"""The `tls` matcher: without options six bytes decide."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import verdicts_of
from tests.wire.hello_builder import (
    alpn,
    client_hello,
    extension,
    records,
    server_name,
    sslv2_hello,
    versions,
)
from txmux.errors import OptionError
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.tls import tls
from txmux.testing import check_predicate, facts

MATCH, NO = Verdict.MATCH, Verdict.NO

SNI, ALPN, VERSIONS = server_name("www.Example.com"), alpn(b"h2", b"http/1.1"), versions(0x0304)
PADDING = extension(21, b"\x00" * 50)
HELLO = records(client_hello(SNI, ALPN, VERSIONS, PADDING))
BARE = records(client_hello(PADDING))
# The second is the beginning of what Python's ssl with OpenSSL 3.0.22 sends.
SAMPLES = (
    HELLO,
    bytes.fromhex(
        "1603010200010001fc03039bfff37cd0f83567154e5f3be5fcf07e49608f2a8723cb4d1648afb37a37caaf20"
        "40ea471bf5fdec84fed9e18abe9384e2005beb1cea11a3cc63d270b931befdb90024130213031301c02cc030"
    ),
    BARE,
    sslv2_hello(),
    # The beginning of what pyOpenSSL with OpenSSL 4.0.3 sends, whose key share for X25519MLKEM768 makes it this long.
    bytes.fromhex(
        "1603 01060d 01000609 0303 67d9499c173d88cd0cf872effda8f8136ef35ef78258a2b8c682f5cc1950af01 20"
    ),
)

said = verdicts_of(tls)


def end_of(part: bytes) -> int:
    """Tell where a part of the sample ends."""
    return HELLO.index(part) + len(part)


MATCHED = (
    # A record of a handshake that begins with a ClientHello is a match.
    (HELLO, 6),
    *((b"\x16\x03" + bytes([minor]) + b"\x40\x00\x01", 6) for minor in range(5)),
    (b"\x16\x03\x01\x00\x01\x01\xff", 6),
)
REFUSED = (
    # The first byte that is off is a no.
    (b"GET / HTTP/1.1\r\n", 1),
    (b"\x16\xfe\xfd\x00\x00", 2),
    (b"\x16\x03\x05\x00\x01\x01", 3),
    (b"\x16\x03\x01\x41\x00\x01", 4),
    (b"\x16\x03\x01\x40\x01\x01", 5),
    (b"\x16\x03\x01\x00\x00\x01", 5),
    (b"\x16\x03\x01\x00\x05\x02", 6),
    (b"\x7f\x2e\x01\x03\x01", 1),
)


class ServerNameTests(SynchronousTestCase):
    """``sni=`` looks at the server name."""

    def test_match(self) -> None:
        """The end of the hello is a match, in records of any size, whatever follows."""
        self.assertEqual(said(HELLO + b"\x14\x03", sni="*.example.com"), (MATCH, len(HELLO)))
        for size in (1, 2, 3, 50):
            data = records(HELLO[5:], size)
            self.assertEqual(said(data, sni="www.example.com"), (MATCH, len(data)))

    def test_no(self) -> None:
        """Another name is a no at its end, no name at the end of the hello."""
        self.assertEqual(said(HELLO, sni="example.com"), (NO, end_of(SNI)))
        self.assertEqual(said(BARE, sni="*"), (NO, len(BARE)))

    def test_malformed(self) -> None:
        """What is no hello is a no, however it goes on."""
        self.assertEqual(said(b"\x16\x03\x01\x00\x05\x02", sni="*"), (NO, 6))
        self.assertEqual(said(b"GET / HTTP/1.1\r\n", sni="*"), (NO, 1))


class ProtocolTests(SynchronousTestCase):
    """``alpn=`` looks at the application protocols."""

    def test_match(self) -> None:
        """One that is offered is enough, at any place."""
        for text in ("h2", "http/1.1", "imap,http/*"):
            self.assertEqual(said(HELLO, alpn=text), (MATCH, len(HELLO)))

    def test_no(self) -> None:
        """None of them is a no at the end of the list, or of a hello without one."""
        for text in ("imap", "H2", "http/1"):
            self.assertEqual(said(HELLO, alpn=text), (NO, end_of(ALPN)))
        self.assertEqual(said(BARE, alpn="*"), (NO, len(BARE)))


class VersionTests(SynchronousTestCase):
    """``version=`` looks at the highest version."""

    def test_match(self) -> None:
        """The highest version has to be one of those asked for."""
        for text in ("1.3", "1.?", "ssl3,1.3"):
            self.assertEqual(said(HELLO, version=text), (MATCH, len(HELLO)))
        self.assertEqual(said(BARE, version="1.2"), (MATCH, len(BARE)))

    def test_no(self) -> None:
        """A lower one does not count; the list of versions decides, or else the end of the hello."""
        self.assertEqual(said(HELLO, version="1.2"), (NO, end_of(VERSIONS)))
        self.assertEqual(said(BARE, version="1.3"), (NO, len(BARE)))

    def test_unknown(self) -> None:
        """A version that there is not is an error that lists those there are."""
        error = self.assertRaises(OptionError, tls.predicate, {"version": "1.3,1.4"})
        self.assertEqual(str(error), "version: '1.4' matches nothing; did you mean '1.3'?")


class SeveralOptionsTests(SynchronousTestCase):
    """All options have to hold."""

    def test_all(self) -> None:
        """One that does not hold is a no."""
        wanted = {"sni": "*.example.com", "alpn": "h2", "version": "1.3"}
        self.assertEqual(said(HELLO, **wanted), (MATCH, len(HELLO)))
        for name, other in (("sni", "a"), ("alpn", "a"), ("version", "1.2")):
            self.assertIs(said(HELLO, **{**wanted, name: other}).verdict, NO)

    def test_post_quantum(self) -> None:
        """A hello that takes two segments, with a key share of 1.2 kB, is read like any other."""
        data = records(client_hello(extension(51, b"\x00" * 1260), PADDING * 5, SNI))
        self.assertEqual(said(data, sni="www.example.com"), (MATCH, len(data)))

    def test_unusable(self) -> None:
        """Patterns that cannot be used are an error that names the option."""
        for name in ("sni", "alpn", "version"):
            error = self.assertRaises(OptionError, tls.predicate, {name: ""})
            self.assertEqual(error.option, name)


class LearntTests(SynchronousTestCase):
    """What goes to the access log."""

    def learnt(self, data: bytes, **options: str) -> dict[str, str]:
        """Give the facts of a sample."""
        return facts(tls.predicate(options), Peeked(data))

    def test_hello(self) -> None:
        """Server name, protocols and version are learnt, whatever the options."""
        expected = {"sni": "www.example.com", "alpn": "h2,http/1.1", "tls": "1.3"}
        for learnt in (self.learnt(HELLO), self.learnt(HELLO, sni="*")):
            self.assertEqual(learnt, {**expected, "ja4": "t13d0104h2_0f2cb44170f4_7418e7913c75"})
        self.assertEqual(
            self.learnt(BARE), {"tls": "1.2", "ja4": "t12i010100_0f2cb44170f4_4298e3b3ed58"}
        )

    def test_beginning(self) -> None:
        """Of a beginning what is in it is learnt."""
        self.assertEqual(self.learnt(HELLO[: end_of(SNI)]), {"sni": "www.example.com"})
        self.assertEqual(self.learnt(HELLO[:6]), {})

    def test_hostile_name(self) -> None:
        """A name cannot break the log line, or fill it."""
        data = records(client_hello(server_name("a\n\x00\xe9" + "b" * 300)))
        self.assertTrue(self.learnt(data)["sni"].startswith(r"a\n\x00\xe9bbb"))


class OptionContractTests(SynchronousTestCase):
    """The contract of a predicate, with options."""

    def test_contract(self) -> None:
        """Any bytes at all get one answer, however they are cut."""
        for options in (
            {"sni": "*.example.com"},
            {"alpn": "h2"},
            {"version": "1.3", "sni": "a,www*"},
        ):
            check_predicate(
                tls.predicate(options), more=[HELLO, records(HELLO[5:], 40)], examples=30
            )
