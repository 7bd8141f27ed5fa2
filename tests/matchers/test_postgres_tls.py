"""The `postgres` matcher with ``sni=``: what follows when the client's request for TLS is granted."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.test_postgres import GSSENC_REQUEST, PSQL, SSL_REQUEST, cancel
from tests.wire.hello_builder import alpn, client_hello, records, server_name, versions
from txmux.errors import OptionError
from txmux.interfaces import Exchange, Key, Peeked, Verdict
from txmux.matchers.postgres import postgres
from txmux.testing import Decided, check_matcher, decided, facts

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

SNI = server_name("db.Example.com")
HELLO = records(client_hello(SNI, alpn(b"postgresql"), versions(0x0304)))
NAMELESS = records(client_hello(versions(0x0304)))
SSL = Exchange(SSL_REQUEST, b"S", repeat=True)
GSSENC = Exchange(GSSENC_REQUEST, b"N", repeat=False)


def said(data: bytes, sni: str = "db.example.com") -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(postgres.predicate({"sni": sni}), data)


class ContractTests(SynchronousTestCase):
    """What matches, and what does not."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            postgres,
            samples=[SSL_REQUEST + HELLO, GSSENC_REQUEST + SSL_REQUEST + HELLO],
            options={"sni": "db.example.com"},
            not_samples=[
                # The first byte that no such client sends is a no.
                (HELLO, 1),
                (PSQL, 4),
                (cancel(bytes(4)), 4),
                (SSL_REQUEST + PSQL, 9),
                (SSL_REQUEST + SSL_REQUEST, 9),
                (SSL_REQUEST + GSSENC_REQUEST, 9),
                (GSSENC_REQUEST + HELLO, 9),
                (GSSENC_REQUEST + PSQL, 12),
                (GSSENC_REQUEST + GSSENC_REQUEST, 16),
            ],
        )


class VerdictTests(SynchronousTestCase):
    """What matches, and what does not."""

    def test_match(self) -> None:
        """The name in the hello behind the request decides, at the end of the hello."""
        for before in (SSL_REQUEST, GSSENC_REQUEST + SSL_REQUEST):
            data = before + HELLO
            self.assertEqual(said(data), (MATCH, len(data)))
            self.assertEqual(said(data + b"more"), (MATCH, len(data)))
            self.assertEqual(said(before), (NEED_MORE, len(before)))
            self.assertEqual(said(data, "*.example.com,x"), (MATCH, len(data)))

    def test_other_name(self) -> None:
        """Another name is a no as soon as it is there."""
        end = len(SSL_REQUEST) + HELLO.index(SNI) + len(SNI)
        self.assertEqual(said(SSL_REQUEST + HELLO, "other.example.com"), (NO, end))
        self.assertEqual(said(SSL_REQUEST + HELLO, "none"), (NO, end))

    def test_no_name(self) -> None:
        """A hello without a name is for ``none`` alone."""
        data = SSL_REQUEST + NAMELESS
        self.assertEqual(said(data, "none"), (MATCH, len(data)))
        self.assertEqual(said(data, "db.example.com,none"), (MATCH, len(data)))
        self.assertEqual(said(data), (NO, len(data)))

    def test_unusable(self) -> None:
        """With what TLS hides it cannot go, nor with bad patterns."""
        make = postgres.predicate
        error = self.assertRaises(OptionError, make, {"user": "a", "sni": "x"})
        self.assertEqual(
            str(error), "sni: cannot go with user=, which TLS hides; write one or the other"
        )
        self.assertRaises(OptionError, make, {"sni": ""})


class ExchangeTests(SynchronousTestCase):
    """Which requests it wants the client to be answered."""

    def exchanges(self, data: bytes) -> tuple[Exchange, ...]:
        """Give those with which a stream begins."""
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

    def test_others(self) -> None:
        """Without ``sni=`` nobody is answered."""
        for options in ({}, {"user": "a"}):
            self.assertFalse(hasattr(postgres.predicate(options), "exchanges"))


class NarrowingTests(SynchronousTestCase):
    """What is told to those who ask before."""

    def test_key(self) -> None:
        """Many such routes are told apart by the name."""
        predicate = postgres.predicate({"sni": "db.example.com,none"})
        key: Key = getattr(predicate, "key")  # noqa: B009 - optional
        self.assertEqual(key.exact, {"db.example.com", ""})
        self.assertEqual(key.read(Peeked(SSL_REQUEST + HELLO)), "db.example.com")
        self.assertEqual(key.read(Peeked(SSL_REQUEST + NAMELESS)), "")
        self.assertEqual(key.read(Peeked(PSQL)), "")
        self.assertIsNone(key.read(Peeked(SSL_REQUEST)))
        self.assertIsNone(key.read(Peeked(SSL_REQUEST[:3])))

    def test_facts(self) -> None:
        """The facts are those of TLS."""
        predicate = postgres.predicate({"sni": "x"})
        learnt = facts(predicate, Peeked(SSL_REQUEST + HELLO))
        self.assertEqual(learnt["sni"], "db.example.com")
        self.assertEqual(learnt["alpn"], "postgresql")
        self.assertEqual(facts(predicate, Peeked(SSL_REQUEST)), {})
        self.assertEqual(facts(predicate, Peeked(PSQL)), {})
