from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NO, Facts
from tests.wire import hello_builder
from tests.wire.hello_builder import alpn, client_hello, extension, records, server_name
from txmux.interfaces import Peeked
from txmux.matchers.tls import tls
from txmux.testing import facts

SNI, ALPN, VERSIONS = (
    server_name("www.Example.com"), alpn(b"h2", b"http/1.1"), hello_builder.versions(0x0304),
)  # fmt: skip
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
    hello_builder.sslv2_hello(),
    # The beginning of what pyOpenSSL with OpenSSL 4.0.3 sends, whose key share for X25519MLKEM768 makes it this long.
    bytes.fromhex(
        "1603 01060d 01000609 0303 67d9499c173d88cd0cf872effda8f8136ef35ef78258a2b8c682f5cc1950af01 20"
    ),
)


def end_of(part: bytes) -> int:
    return HELLO.index(part) + len(part)


MATCHED = (
    # A record of a handshake that begins with a ClientHello is a match.
    (HELLO, 6),
    *((b"\x16\x03" + bytes([minor]) + b"\x40\x00\x01", 6) for minor in range(5)),
    (b"\x16\x03\x01\x00\x01\x01\xff", 6),
)
REFUSED = (
    (b"GET / HTTP/1.1\r\n", 1), (b"\x16\xfe\xfd\x00\x00", 2), (b"\x16\x03\x05\x00\x01\x01", 3),
    (b"\x16\x03\x01\x41\x00\x01", 4), (b"\x16\x03\x01\x40\x01\x01", 5), (b"\x16\x03\x01\x00\x00\x01", 5),
    (b"\x16\x03\x01\x00\x05\x02", 6), (b"\x7f\x2e\x01\x03\x01", 1),
)  # fmt: skip
BY_RECORDS = [records(HELLO[5:], size) for size in (1, 2, 3, 50)]
# A hello that takes two segments, with a key share of 1.2 kB.
POST_QUANTUM = records(client_hello(extension(51, b"\x00" * 1260), PADDING * 5, SNI))
VERDICTS = (
    # The end of the hello is a match, in records of any size, whatever follows.
    ("sni=*.example.com", HELLO + b"\x14\x03", MATCH, len(HELLO)),
    *(("sni=www.example.com", data, MATCH, len(data)) for data in BY_RECORDS),
    ("sni=www.example.com", POST_QUANTUM, MATCH, len(POST_QUANTUM)),
    # Another name is a no at its end, no name at the end of the hello.
    ("sni=example.com", HELLO, NO, end_of(SNI)),
    ("sni=*", BARE, NO, len(BARE)),
    # What is no hello is a no, however it goes on.
    ("sni=*", b"\x16\x03\x01\x00\x05\x02", NO, 6),
    ("sni=*", b"GET / HTTP/1.1\r\n", NO, 1),
    # One protocol that is offered is enough, at any place; none of them is a no at the end of the list, or of a hello without one.
    *((f"alpn={one}", HELLO, MATCH, len(HELLO)) for one in ("h2", "http/1.1", "imap,http/*")),
    *((f"alpn={one}", HELLO, NO, end_of(ALPN)) for one in ("imap", "H2", "http/1")),
    ("alpn=*", BARE, NO, len(BARE)),
    # The highest version has to be one of those asked for; the list of versions decides, or else the end of the hello.
    *((f"version={one}", HELLO, MATCH, len(HELLO)) for one in ("1.3", "1.?", "ssl3,1.3")),
    ("version=1.2", BARE, MATCH, len(BARE)),
    ("version=1.2", HELLO, NO, end_of(VERSIONS)),
    ("version=1.3", BARE, NO, len(BARE)),
    # All options have to hold.
    ("sni=*.example.com alpn=h2 version=1.3", HELLO, MATCH, len(HELLO)),
    ("sni=a alpn=h2 version=1.3", HELLO, NO),
    ("sni=*.example.com alpn=a version=1.3", HELLO, NO),
    ("sni=*.example.com alpn=h2 version=1.2", HELLO, NO),
)
TRIED = ("sni=*.example.com", "alpn=h2", "version=1.3 sni=a,www*")
UNUSABLE = (
    ("version=1.3,1.4", "version: '1.4' matches nothing; did you mean '1.3'?"), ("sni=", "sni: "),
    ("alpn=", "alpn: "), ("version=", "version: "),
)  # fmt: skip
ALL_FACTS = {
    "sni": "www.example.com", "alpn": "h2,http/1.1", "tls": "1.3",
    "ja4": "t13d0104h2_0f2cb44170f4_7418e7913c75",
}  # fmt: skip
UNREAD = records(client_hello(*(extension(1000 + number, b"") for number in range(200))))
FACTS: Facts = (
    ("", HELLO, ALL_FACTS),
    ("sni=*", HELLO, ALL_FACTS),
    ("", BARE, {"tls": "1.2", "ja4": "t12i010100_0f2cb44170f4_4298e3b3ed58"}),
    # Of a beginning what is in it is learnt.
    ("", HELLO[: end_of(SNI)], {"sni": "www.example.com"}),
    ("", HELLO[:6], {}),
    # One that a server may read, and no route matches.
    ("sni=*", UNREAD, {"hello_unread": "over 128 extensions and names"}),
)


class LearntTests(SynchronousTestCase):
    def test_a_name_cannot_break_the_log_line_or_fill_it(self) -> None:
        data = records(client_hello(server_name("a\n\x00\xe9" + "b" * 300)))
        self.assertTrue(facts(tls.predicate({}), Peeked(data))["sni"].startswith(r"a\n\x00\xe9bbb"))
