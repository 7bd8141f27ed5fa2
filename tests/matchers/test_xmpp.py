from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO, Facts
from tests.support.examples import scaled
from txmux.interfaces import Peeked
from txmux.matchers.xmpp import read_header, xmpp
from txmux.testing import calls_in, decided, in_pieces

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
    WORDS, RFC, b'<?xml version="1.0" encoding="UTF-8"?><stream:stream to="b.example" xmlns="jabber:server">',
)  # fmt: skip

FITS = b"<?xml " + b"a" * (256 - 6 - 2 - 15) + b"?><stream:stream "
# The blank after it is a match.
DECIDED_AT = tuple(sample.index(b"<stream:stream") + 15 for sample in SAMPLES)
MATCHED = (
    # It is there within 256 bytes.
    (FITS, 256),
)
REFUSED = (
    (b"<policy-file-request/>\x00", 2), (b"<13>Oct 11 22:14:15 host su: failed\n", 2),
    (b"<?xml version='1.0'?><methodCall>", 23), (b"<?xmlversion", 6), (b"<?xml version='1.0'><stream:stream ", 20),
    (b"<?xml <", 7), (b" <stream:stream ", 1), (b"<stream:streams ", 15), (b"<stream:stream>", 15),
    (b"<stream:stream/>", 15), (b"<STREAM", 2), FITS.replace(b"aa", b"aaa", 1),
)  # fmt: skip
FITS_TO = b"<stream:stream a='" + b"b" * (4096 - 18 - 9) + b"' to='a'>"
WITHOUT = WORDS.replace(b" to=", b" too=")
LOOKALIKES = (b"<stream:stream id=\" to='a' \" x:to='a' To='a'>", b"<stream:stream id=' to=\"a\"'>")
VERDICTS = (
    # The quote that ends the domain is a match, whatever stands before and follows.
    *(
        row
        for sample, to in zip(SAMPLES, ("example.com", "im.example.com", "b.example"), strict=True)
        for at in [sample.index(to.encode(), sample.index(b" to=")) + len(to) + 1]
        for row in (
            (f"to={to.upper()}", sample, MATCH, at),
            (f"to={to}", sample[:at] + b"<<", MATCH, at),
            (f"to={to}", sample[: at - 1], NEED_MORE, at - 1),
        )
    ),
    ("to=*.example.com", RFC, MATCH),
    ("to=a", b"<stream:stream to = 'a.' >", MATCH),
    # Another is a no there; a header without one at its end.
    ("to=*.example.com", WORDS, NO),
    ("to=*", WITHOUT, NO, len(WITHOUT)),
    *(("to=*", data, NO, len(data)) for data in LOOKALIKES),
    # The first counts.
    ("to=a", b"<stream:stream to='a' to='b'>", MATCH),
    *(
        ("to=*", data, NO, at)
        for data, at in (
            (b"<stream:stream >", 16), (b"<stream:stream a>", 17), (b"<stream:stream a=b", 18),
            (b"<stream:stream a='b'to='a'>", 21), (b"<stream:stream a='<", 19),
            (b"<stream:stream a='\x00", 19), (b"<stream:stream a='b'/>", 21),
            (b"<stream:stream 1='b'>", 16),
        )
    ),
    # The header ends within 4 KiB.
    ("to=a", FITS_TO, MATCH, 4095),
    ("to=a", FITS_TO.replace(b"bb", b"bbb", 1), NO),
)  # fmt: skip
TRIED = ("to=*", "to=example.com,*.example")
TRIED_ON = (RFC, *LOOKALIKES, b"<stream:stream to='a' to=\"b\">")
UNUSABLE = (("to=a,,b", "to: "),)
KEYS = (
    ("to=a", WORDS, "example.com"), ("to=a", b"<stream:stream to='A.' ", "a"),
    ("to=a", b"<stream:stream x='b'>", ""), ("to=a", b"GET", ""), ("to=a", WORDS[:40], None),
)  # fmt: skip
FACTS: Facts = (
    ("", WORDS, {"to": "example.com"}),
    ("to=a", WORDS, {"to": "example.com"}),
    *(("", data, {}) for data in (WORDS[:98], b"<stream:stream to='", b"<stream:stream to=''>")),
    ("", b"GET", {}),
    # It cannot break the log line.
    ("", b"<stream:stream to='a\n\xff\xc3\xa4'>", {"to": r"a\n\udcff\xe4"}),
)


class CostTests(SynchronousTestCase):
    def test_a_long_header_costs_the_same_for_each_byte_as_a_short_one(self) -> None:
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
            self.assertIs(predicate(peeked), NEED_MORE)
            if length > len("<stream:stream "):
                self.assertEqual(peeked.parsed(read_header).searched, length)
        self.assertIs(predicate(Peeked(data, peeked)), MATCH)

    @settings(max_examples=scaled(100), deadline=None)
    @given(
        st.sampled_from([{}, {"to": "*"}, {"to": "example.com,*.example"}]),
        st.sampled_from(SAMPLES),
        st.integers(0, 120),
        st.sampled_from([b"'", b'"', b" to='a'", b">", b"="]),
    )
    def test_quotes_anywhere_however_they_are_cut(
        self, options: dict[str, str], sample: bytes, at: int, sign: bytes
    ) -> None:
        data = sample[:at] + sign + sample[at + len(sign) :]
        decided(xmpp.predicate(options), data)
