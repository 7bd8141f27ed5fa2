"""Those options of the `tls` matcher that are about more than names and versions."""

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO
from tests.wire import hello_builder
from tests.wire.hello_builder import alpn, client_hello, extension, records, server_name
from txmux.interfaces import NameKey, Peeked
from txmux.matchers.tls import tls
from txmux.testing import facts

SNI, ECH, PADDING = server_name("www.Example.com"), extension(0xFE0D, b"\0\0\1"), extension(21, b"")
NAMED = records(client_hello(SNI, PADDING))
NAMELESS = records(client_hello(alpn(b"h2"), PADDING))
ENCRYPTED = records(client_hello(ECH, SNI, PADDING))
OF_SSL2 = hello_builder.sslv2_hello()
NAMELESS_JA4 = "t12i0102h2_0f2cb44170f4_4298e3b3ed58"


def end_of(part: bytes, data: bytes) -> int:
    return data.index(part) + len(part)


VERDICTS = (
    # The end of a hello without a name is a match of ``sni=none``, a name is a no at its end.
    ("sni=none", NAMELESS, MATCH, len(NAMELESS)),
    ("sni=none,*.example.com", NAMELESS, MATCH, len(NAMELESS)),
    ({"sni": "a, none "}, NAMELESS, MATCH),  # a blank behind a comma or at the end does not count
    ("sni=none", NAMED, NO, end_of(SNI, NAMED)),
    ("sni=none,a", NAMED, NO, end_of(SNI, NAMED)),
    ("sni=none,*.example.com", NAMED, MATCH, len(NAMED)),
    # A name with nothing in it is no name; nor is one of another kind.
    ("sni=none", records(client_hello(server_name("."))), MATCH),
    ("sni=none", records(client_hello(server_name("a", kind=7))), MATCH),
    # So it is with protocols.
    ("alpn=none", NAMED, MATCH, len(NAMED)), ("alpn=none,h2", NAMED, MATCH, len(NAMED)),
    ("alpn=none,h2", NAMELESS, MATCH, len(NAMELESS)),
    ("alpn=none", NAMELESS, NO, end_of(alpn(b"h2"), NAMELESS)),
    ("alpn=none,http/1.1", NAMELESS, NO), ("alpn=*", NAMED, NO, len(NAMED)),
    ("alpn=none", records(client_hello(alpn(b"none"))), NO),
    ("alpn=~none", records(client_hello(alpn(b"none"))), MATCH),
    # A regular expression is taken as it is.
    ("sni=~none", NAMELESS, NO),
    ("sni=~.*", NAMELESS, NO),
    # The extension of an encrypted hello is wanted; without it, the end of the hello is a no.
    ("ech=yes", ENCRYPTED, MATCH, len(ENCRYPTED)), ("ech=yes sni=*.example.com", ENCRYPTED, MATCH),
    ("ech=yes", NAMED, NO, len(NAMED)), ("ech=no", NAMED, MATCH, len(NAMED)),
    ("ech=no", ENCRYPTED, NO, end_of(ECH, ENCRYPTED)),
    # The end of the hello decides on its fingerprint.
    *(
        (f"ja4={one}", NAMELESS, MATCH, len(NAMELESS))
        for one in (NAMELESS_JA4, "a,t12i*", "t1?i0102h2_*")
    ),
    *((f"ja4={one}", NAMELESS, NO, len(NAMELESS)) for one in ("t13*", NAMELESS_JA4.upper(), "a")),
    # A hello of SSL 2 has no name, no protocols, no encrypted one, and no fingerprint; length, type and version are enough.
    ("", OF_SSL2, MATCH, 5), ("", b"\x81\x00\x01\x00\x02", MATCH, 5), ("", OF_SSL2[:4], NEED_MORE, 4),
    *((option, OF_SSL2, MATCH) for option in ("sni=none", "version=1.0", "ech=no")),
    *(
        (option, OF_SSL2, NO)
        for option in ("sni=a,*", "alpn=*", "version=1.2,1.3", "ech=yes", "ja4=*")
    ),
    # Other protocols with this first byte are a no where they differ.
    *(
        (option, data, NO, at)
        for data, at in (
            (b"\x80\x01\x00\x01\x00\x00\x00\x04ping", 2),  # Thrift, binary
            (b"\x80\x0b\x00\x00\x00\x00\x00\x00", 2),  # memcached, binary: version
            (b"\x80\x21\x00\x05\x00\x00\x00\x00", 3),  # memcached, binary: SASL
            (b"\x81\x00\x00\x44\x20CKFDENECFDEFFC", 3),  # NetBIOS session request
            (b"\x82\x2e\x01\x03\x01", 1),
        )
        for option in ("", "sni=none")
    ),
)  # fmt: skip
FACTS = (("", OF_SSL2, {"tls": "1.0"}),)
TRIED = (
    *("", "version=1.0", "sni=none", "alpn=none", "alpn=none,h2", "sni=none,*.example.com"),
    *("ech=no", "ja4=t12*"),
)
TRIED_ON = (
    records(client_hello(SNI, alpn(b"h2"), hello_builder.versions(0x0304)), 40), NAMED, ENCRYPTED,
    records(client_hello(hello_builder.versions(0x0304), PADDING), 20), OF_SSL2,
)  # fmt: skip
UNUSABLE = (
    *((f"sni={one}", "sni: ") for one in ("none,", "none,a..b")), ("alpn=none,", "alpn: "),
    *((f"ech={one}", "write one of them") for one in ("", "Yes", "true", "yes,no")),
)  # fmt: skip
KEYS = (
    ("sni=none", NAMELESS, ""), ("sni=none", NAMED, "www.example.com"), ("sni=none", NAMELESS[:-1], None),
)  # fmt: skip


class NoNameTests(SynchronousTestCase):
    def key(self, sni: str) -> NameKey | None:
        key: NameKey | None = getattr(tls.predicate({"sni": sni}), "key", None)
        return key

    def test_key_and_fingerprint(self) -> None:
        """A hello without a name has an empty one; where the other names have no key, there is none. All are read alike."""
        keys = [self.key("none"), self.key("none,a,*.b"), self.key("a")]
        found = [(key.exact, key.under) for key in keys if key]
        self.assertEqual(found, [({""}, frozenset()), ({"", "a"}, {"b"}), ({"a"}, frozenset())])
        self.assertEqual(len({key.read for key in keys if key}), 1)
        self.assertIsNone(self.key("none,a*"))
        predicate = tls.predicate({})
        self.assertEqual(facts(predicate, Peeked(NAMELESS))["ja4"], NAMELESS_JA4)
        self.assertNotIn("ja4", facts(predicate, Peeked(NAMELESS[:-1])))
