"""Those options of the `tls` matcher that are about more than names and versions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import verdicts_of
from tests.wire.hello_builder import alpn, client_hello, extension, records, server_name, versions
from txmux.errors import OptionError
from txmux.interfaces import Key, Peeked, Verdict
from txmux.matchers.tls import tls
from txmux.testing import check_predicate, facts

MATCH, NO = Verdict.MATCH, Verdict.NO

SNI, ECH, PADDING = server_name("www.Example.com"), extension(0xFE0D, b"\0\0\1"), extension(21, b"")
NAMED = records(client_hello(SNI, PADDING))
NAMELESS = records(client_hello(alpn(b"h2"), PADDING))
ENCRYPTED = records(client_hello(ECH, SNI, PADDING))
NAMELESS_JA4 = "t12i0102h2_0f2cb44170f4_4298e3b3ed58"

said = verdicts_of(tls)


def end_of(part: bytes, data: bytes) -> int:
    """Tell where a part of a sample ends."""
    return data.index(part) + len(part)


class NoNameTests(SynchronousTestCase):
    """``sni=none`` is a hello without a name."""

    def test_match(self) -> None:
        """The end of a hello without one is a match."""
        for text in ("none", "none,*.example.com", "a, none "):
            self.assertEqual(said(NAMELESS, sni=text), (MATCH, len(NAMELESS)))

    def test_no(self) -> None:
        """A name is a no at its end."""
        self.assertEqual(said(NAMED, sni="none"), (NO, end_of(SNI, NAMED)))
        self.assertEqual(said(NAMED, sni="none,a"), (NO, end_of(SNI, NAMED)))

    def test_several(self) -> None:
        """Patterns of names may stand beside it."""
        self.assertEqual(said(NAMED, sni="none,*.example.com"), (MATCH, len(NAMED)))

    def test_empty(self) -> None:
        """A name with nothing in it is no name; nor is one of another kind."""
        for part in (server_name("."), server_name("a", kind=7)):
            self.assertIs(said(records(client_hello(part)), sni="none").verdict, MATCH)

    def test_expression(self) -> None:
        """A regular expression is taken as it is."""
        self.assertIs(said(NAMELESS, sni="~none").verdict, NO)
        self.assertIs(said(NAMELESS, sni="~.*").verdict, NO)

    def test_unusable(self) -> None:
        """The other patterns have to be right."""
        for text in ("none,", "none,a..b", ""):
            self.assertRaises(OptionError, tls.predicate, {"sni": text})


class KeyTests(SynchronousTestCase):
    """The name by which many routes are told apart."""

    def key(self, sni: str) -> Key | None:
        """Give the key of a predicate."""
        key: Key | None = getattr(tls.predicate({"sni": sni}), "key", None)
        return key

    def test_none(self) -> None:
        """A hello without a name has an empty one."""
        key = self.key("none")
        assert key is not None
        self.assertEqual((key.exact, key.under), ({""}, frozenset()))
        self.assertEqual(key.read(Peeked(NAMELESS)), "")
        self.assertEqual(key.read(Peeked(NAMED)), "www.example.com")
        self.assertIsNone(key.read(Peeked(NAMELESS[:-1])))

    def test_several(self) -> None:
        """It is one of several names; where those have no key, there is none."""
        key = self.key("none,a,*.b")
        assert key is not None
        self.assertEqual((key.exact, key.under), ({"", "a"}, {"b"}))
        self.assertIsNone(self.key("none,a*"))

    def test_same(self) -> None:
        """It is read like all others."""
        keys = [self.key("none"), self.key("a"), self.key("none,a")]
        self.assertEqual(len({key.read for key in keys if key}), 1)


class EncryptedTests(SynchronousTestCase):
    """``ech=`` looks for an encrypted hello."""

    def test_yes(self) -> None:
        """Its extension is wanted; without it, the end of the hello is a no."""
        self.assertEqual(said(ENCRYPTED, ech="yes"), (MATCH, len(ENCRYPTED)))
        self.assertEqual(said(ENCRYPTED, ech="yes", sni="*.example.com").verdict, MATCH)
        self.assertEqual(said(NAMED, ech="yes"), (NO, len(NAMED)))

    def test_no(self) -> None:
        """Its extension is a no at its end."""
        self.assertEqual(said(NAMED, ech="no"), (MATCH, len(NAMED)))
        self.assertEqual(said(ENCRYPTED, ech="no"), (NO, end_of(ECH, ENCRYPTED)))

    def test_unusable(self) -> None:
        """Anything else is an error that says what is right."""
        for text in ("", "Yes", "true", "yes,no"):
            error = self.assertRaises(OptionError, tls.predicate, {"ech": text})
            self.assertIn("write one of them", str(error))


class FingerprintTests(SynchronousTestCase):
    """``ja4=`` looks at the fingerprint of the client."""

    def test_match(self) -> None:
        """The end of the hello decides."""
        for text in (NAMELESS_JA4, "a,t12i*", "t1?i0102h2_*"):
            self.assertEqual(said(NAMELESS, ja4=text), (MATCH, len(NAMELESS)), text)

    def test_no(self) -> None:
        """Another one is a no there."""
        for text in ("t13*", NAMELESS_JA4.upper(), "a"):
            self.assertEqual(said(NAMELESS, ja4=text), (NO, len(NAMELESS)), text)

    def test_fact(self) -> None:
        """It is learnt once the whole hello is there."""
        predicate = tls.predicate({})
        self.assertEqual(facts(predicate, Peeked(NAMELESS))["ja4"], NAMELESS_JA4)
        self.assertNotIn("ja4", facts(predicate, Peeked(NAMELESS[:-1])))


class OptionContractTests(SynchronousTestCase):
    """The contract of a predicate, with options."""

    def test_contract(self) -> None:
        """Any bytes at all get one answer, however they are cut."""
        for options in (
            {"sni": "none"},
            {"sni": "none,*.example.com"},
            {"ech": "no"},
            {"ja4": "t12*"},
        ):
            check_predicate(
                tls.predicate(options),
                more=[NAMED, ENCRYPTED, records(client_hello(versions(0x0304), PADDING), 20)],
                examples=30,
            )
