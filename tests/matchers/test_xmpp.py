"""The `xmpp` matcher: without options the name of the first tag decides."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import verdicts_of
from tests.support.examples import scaled
from txmux.errors import OptionError
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.xmpp import _read_header, xmpp
from txmux.testing import calls_in, facts, in_pieces

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# The first is recorded from Twisted Words 26.10; the second is that of RFC 6120, section 4.2.
WORDS = (
    b"<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'"
    b" to='example.com' version='1.0'>"
)
RFC = (
    b"<?xml version='1.0'?>\n   <stream:stream\n       from='juliet@im.example.com'\n"
    b"       to='im.example.com'\n       version='1.0'\n       xml:lang='en'\n"
    b"       xmlns='jabber:client'\n       xmlns:stream='http://etherx.jabber.org/streams'>"
)
SAMPLES = (
    WORDS,
    RFC,
    b'<?xml version="1.0" encoding="UTF-8"?><stream:stream to="b.example" xmlns="jabber:server">',
)

said = verdicts_of(xmpp)
FITS = b"<?xml " + b"a" * (256 - 6 - 2 - 15) + b"?><stream:stream "
# The blank after it is a match.
DECIDED_AT = tuple(sample.index(b"<stream:stream") + 15 for sample in SAMPLES)
MATCHED = (
    # It is there within 256 bytes.
    (FITS, 256),
)
REFUSED = (
    # The first byte off the grammar is a no.
    (b"<policy-file-request/>\x00", 2),
    (b"<13>Oct 11 22:14:15 host su: failed\n", 2),
    (b"<?xml version='1.0'?><methodCall>", 23),
    (b"<?xmlversion", 6),
    (b"<?xml version='1.0'><stream:stream ", 20),
    (b"<?xml <", 7),
    (b" <stream:stream ", 1),
    (b"<stream:streams ", 15),
    (b"<stream:stream>", 15),
    (b"<stream:stream/>", 15),
    (b"<STREAM", 2),
    # It is there within 256 bytes.
    FITS.replace(b"aa", b"aaa", 1),
)


class DomainTests(SynchronousTestCase):
    """``to=`` looks at the domain that is asked for."""

    def test_match(self) -> None:
        """The quote that ends it is a match, whatever stands before and follows."""
        for sample, to in zip(SAMPLES, ("example.com", "im.example.com", "b.example"), strict=True):
            at = sample.index(to.encode(), sample.index(b" to=")) + len(to) + 1
            self.assertEqual(said(sample, to=to.upper()), (MATCH, at))
            self.assertEqual(said(sample[:at] + b"<<", to=to), (MATCH, at))
            self.assertEqual(said(sample[: at - 1], to=to), (NEED_MORE, at - 1))
        self.assertIs(said(SAMPLES[1], to="*.example.com").verdict, MATCH)
        self.assertIs(said(b"<stream:stream to = 'a.' >", to="a").verdict, MATCH)

    def test_no(self) -> None:
        """Another is a no there; a header without one at its end."""
        self.assertEqual(said(WORDS, to="*.example.com").verdict, NO)
        without = WORDS.replace(b" to=", b" too=")
        self.assertEqual(said(without, to="*"), (NO, len(without)))

    def test_lookalikes(self) -> None:
        """What only looks like the attribute is none."""
        for data in (
            b"<stream:stream id=\" to='a' \" x:to='a' To='a'>",
            b"<stream:stream id=' to=\"a\"'>",
        ):
            self.assertEqual(said(data, to="*"), (NO, len(data)), data)

    def test_first(self) -> None:
        """The first counts."""
        self.assertIs(said(b"<stream:stream to='a' to='b'>", to="a").verdict, MATCH)

    def test_malformed(self) -> None:
        """The first byte that no header has there is a no."""
        for data, at in (
            (b"<stream:stream >", 16),
            (b"<stream:stream a>", 17),
            (b"<stream:stream a=b", 18),
            (b"<stream:stream a='b'to='a'>", 21),
            (b"<stream:stream a='<", 19),
            (b"<stream:stream a='\x00", 19),
            (b"<stream:stream a='b'/>", 21),
            (b"<stream:stream 1='b'>", 16),
        ):
            self.assertEqual(said(data, to="*"), (NO, at), data)

    def test_longest(self) -> None:
        """The header ends within 4 KiB."""
        fits = b"<stream:stream a='" + b"b" * (4096 - 18 - 9) + b"' to='a'>"
        self.assertEqual(said(fits, to="a"), (MATCH, 4095))
        later = fits.replace(b"bb", b"bbb", 1)
        self.assertIs(said(later, to="a").verdict, NO)

    def test_key(self) -> None:
        """Many domains are told apart by it."""
        key = getattr(xmpp.predicate({"to": "a"}), "key", None)
        assert key is not None
        self.assertEqual(key.read(Peeked(WORDS)), "example.com")
        self.assertEqual(key.read(Peeked(b"<stream:stream to='A.' ")), "a")
        self.assertEqual(key.read(Peeked(b"<stream:stream x='b'>")), "")
        self.assertEqual(key.read(Peeked(b"GET")), "")
        self.assertIsNone(key.read(Peeked(WORDS[:40])))

    def test_unusable(self) -> None:
        """Patterns that cannot be used are an error that names the option."""
        error = self.assertRaises(OptionError, xmpp.predicate, {"to": "a,,b"})
        self.assertIn("to: ", str(error))


class LearntTests(SynchronousTestCase):
    """What goes to the access log."""

    def learnt(self, data: bytes, **options: str) -> dict[str, str]:
        """Give the facts of a sample."""
        return facts(xmpp.predicate(options), Peeked(data))

    def test_domain(self) -> None:
        """The domain is learnt once it is there in full, whatever the options."""
        self.assertEqual(self.learnt(WORDS), {"to": "example.com"})
        self.assertEqual(self.learnt(WORDS, to="a"), {"to": "example.com"})
        for data in (WORDS[:98], b"<stream:stream to='", b"<stream:stream to=''>", b"GET"):
            self.assertEqual(self.learnt(data), {})

    def test_hostile(self) -> None:
        """It cannot break the log line."""
        data = b"<stream:stream to='a\n\xff\xc3\xa4'>"
        self.assertEqual(self.learnt(data), {"to": r"a\n\udcff\xe4"})


class CostTests(SynchronousTestCase):
    """Sending byte by byte is not a way to make txmux work."""

    def test_many_attributes(self) -> None:
        """A long header costs the same for each byte as a short one."""
        predicate = xmpp.predicate({"to": "a"})

        def cost(count: int) -> float:
            data = b"<stream:stream" + b" a=''" * count
            return calls_in(lambda: in_pieces(predicate, data, range(1, len(data)))) / len(data)

        self.assertLess(cost(800), 1.2 * cost(80))

    def test_reads_on(self) -> None:
        """With each new byte of a long value, that byte alone is searched for its end."""
        predicate = xmpp.predicate({"to": "a"})
        data = b"<stream:stream x='" + b'"' * 2000 + b"' to='a'"
        peeked = None
        for length in range(1, len(data)):
            peeked = Peeked(data[:length], peeked)
            self.assertIs(predicate(peeked), Verdict.NEED_MORE)
            if length > len("<stream:stream "):
                self.assertEqual(peeked.parsed(_read_header).searched, length)
        self.assertIs(predicate(Peeked(data, peeked)), Verdict.MATCH)


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=scaled(100), deadline=None)
    @given(
        st.sampled_from(["", "*", "example.com,*.example"]),
        st.binary(max_size=12)
        | st.builds(
            lambda sample, n, b: sample[:n] + b + sample[n + len(b) :],
            st.sampled_from(SAMPLES),
            st.integers(0, 120),
            st.binary(max_size=3) | st.sampled_from([b"'", b'"', b" to='a'", b">", b"="]),
        ),
    )
    def test_any_bytes(self, to: str, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data, **({"to": to} if to else {}))
