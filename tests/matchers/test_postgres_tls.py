from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO
from tests.matchers.test_postgres import GSSENC_REQUEST, PSQL, SSL_REQUEST, cancel
from tests.wire.hello_builder import alpn, client_hello, records, server_name, versions
from txmux.interfaces import Exchange, NameKey, Peeked
from txmux.matchers.postgres import postgres
from txmux.testing import facts

SNI = server_name("db.Example.com")
HELLO = records(client_hello(SNI, alpn(b"postgresql"), versions(0x0304)))
NAMELESS = records(client_hello(versions(0x0304)))
SSL = Exchange(SSL_REQUEST, b"S", repeat=True)
GSSENC = Exchange(GSSENC_REQUEST, b"N", repeat=False)


ALONE = "sni=db.example.com"
TLS, KERBEROS_FIRST = SSL_REQUEST + HELLO, GSSENC_REQUEST + SSL_REQUEST + HELLO
WITHOUT_NAME = SSL_REQUEST + NAMELESS
NAME_END = len(SSL_REQUEST) + HELLO.index(SNI) + len(SNI)
VERDICTS = (
    # The name in the hello behind the request decides, at the end of the hello.
    *(
        row
        for data in (TLS, KERBEROS_FIRST)
        for row in (
            (ALONE, data, MATCH, len(data)),
            (ALONE, data + b"more", MATCH, len(data)),
            (ALONE, data[: -len(HELLO)], NEED_MORE),
            ("sni=*.example.com,x", data, MATCH, len(data)),
        )
    ),
    # Another name is a no as soon as it is there; a hello without a name is for ``none`` alone.
    ("sni=other.example.com", TLS, NO, NAME_END),
    ("sni=none", TLS, NO, NAME_END),
    ("sni=none", WITHOUT_NAME, MATCH, len(WITHOUT_NAME)),
    ("sni=db.example.com,none", WITHOUT_NAME, MATCH, len(WITHOUT_NAME)),
    (ALONE, WITHOUT_NAME, NO, len(WITHOUT_NAME)),
    (ALONE, HELLO, NO, 1), (ALONE, PSQL, NO, 5), (ALONE, cancel(bytes(4)), NO, 8),
    (ALONE, SSL_REQUEST + PSQL, NO, 9), (ALONE, SSL_REQUEST + SSL_REQUEST, NO, 9),
    (ALONE, SSL_REQUEST + GSSENC_REQUEST, NO, 9), (ALONE, GSSENC_REQUEST + HELLO, NO, 9),
    (ALONE, GSSENC_REQUEST + PSQL, NO, 13), (ALONE, GSSENC_REQUEST + GSSENC_REQUEST, NO, 16),
)  # fmt: skip
TRIED = (ALONE,)
TRIED_ON = (TLS, KERBEROS_FIRST, SSL_REQUEST + PSQL)
UNUSABLE = (
    ("user=a sni=x", "sni: cannot go with user=, which TLS hides; write one or the other"),
    ("sni=", "sni: "),
)
# Many such routes are told apart by the name.
KEYS = (
    ("sni=db.example.com,none", TLS, "db.example.com"), ("sni=db.example.com,none", WITHOUT_NAME, ""),
    ("sni=db.example.com,none", PSQL, ""), ("sni=db.example.com,none", SSL_REQUEST, None),
    ("sni=db.example.com,none", SSL_REQUEST[:3], None),
)  # fmt: skip


class ExchangeTests(SynchronousTestCase):
    def exchanges(self, data: bytes) -> tuple[Exchange, ...]:
        find: Any = getattr(postgres.predicate({"sni": "*"}), "exchanges")  # noqa: B009
        return tuple(find(Peeked(data)))

    def test_requests(self) -> None:
        """TLS is granted, encryption by Kerberos is not; neither before the request is there in full."""
        self.assertEqual(self.exchanges(SSL_REQUEST[:7]), ())
        self.assertEqual(self.exchanges(SSL_REQUEST + HELLO), (SSL,))
        self.assertEqual(self.exchanges(GSSENC_REQUEST), (GSSENC,))
        self.assertEqual(self.exchanges(GSSENC_REQUEST + SSL_REQUEST), (GSSENC, SSL))
        self.assertEqual(self.exchanges(GSSENC_REQUEST + PSQL), (GSSENC,))
        self.assertEqual(self.exchanges(PSQL), ())
        for options in ({}, {"user": "a"}):
            self.assertFalse(hasattr(postgres.predicate(options), "exchanges"))

    def test_key_and_facts(self) -> None:
        """No name is one of the names by which routes are told apart."""
        key: NameKey = getattr(postgres.predicate({"sni": "db.example.com,none"}), "key")  # noqa: B009
        self.assertEqual(key.exact, {"db.example.com", ""})
        predicate = postgres.predicate({"sni": "x"})
        learnt = facts(predicate, Peeked(TLS))
        self.assertEqual((learnt["sni"], learnt["alpn"]), ("db.example.com", "postgresql"))
        self.assertEqual(facts(predicate, Peeked(SSL_REQUEST)), {})
        self.assertEqual(facts(predicate, Peeked(PSQL)), {})
