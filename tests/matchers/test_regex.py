import warnings

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO
from txmux.errors import OptionError
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.regex import regex
from txmux.testing import check_datagrams, check_matcher
from txmux.wire.predicates import Pattern

VERDICTS = (
    ("pattern=GET|PUT", b"GET /", MATCH), ("pattern=GET|PUT", b"PU", NEED_MORE),
    ("pattern=GET|PUT", b"POST", NO),
    # Escapes stand for bytes, and characters beyond ASCII for their bytes in UTF-8.
    (r"pattern=\x00\xff", b"\x00\xff", MATCH), ("pattern=é", "é".encode(), MATCH),
    ("pattern=é", b"\xe9", NO),
)  # fmt: skip
UNUSABLE = (
    ("within=5", "pattern: is missing; write one"),
    ("pattern=", "pattern: is empty; write one"),
    # What is wrong with a pattern is said of the option, in one line.
    (
        "pattern=a$",
        "pattern: looks past the end of its own match with $, and a stream shows no end: leave $ out",
    ),
    (
        "pattern=ab(c",
        "pattern: 'ab(c' is not a regular expression: missing ), unterminated subpattern at position 2",
    ),
    ("pattern=abc within=2", "pattern: needs at least 3 bytes for a match, more than within=2"),
    ("pattern=\udcff", "pattern: is not valid UTF-8"),
    (
        {"pattern": "(?\n)"},
        r"pattern: '(?\n)' is not a regular expression: unknown extension ?\n at position 1",
    ),
    *(
        (
            f"pattern=a within={within}",
            f"within: {within!r} is not a size in range; write one from 1 to 64KiB, such as 256",
        )
        for within in ("0", "65537", "65KiB", "1kib", "1MiB", "-1", "1.5", "", "many", "1_0", "٣")
    ),
)


class MatcherTests(SynchronousTestCase):
    def test_contract_and_within(self) -> None:
        """A match has at most `within` bytes, 256 if nothing is said, and no byte beyond is waited for."""
        check_matcher(regex, [(b"GET /", 3)], [(b"POST", 2)], {"pattern": "GET|PUT"})
        predicate = regex.predicate({"pattern": ".*!"})
        self.assertEqual(predicate.longest, 256)
        self.assertIs(predicate(Peeked(b"." * 255 + b"!")), Verdict.MATCH)
        self.assertIs(predicate(Peeked(b"." * 255)), Verdict.NEED_MORE)
        self.assertIs(predicate(Peeked(b"." * 256)), Verdict.NO)
        self.assertEqual(regex.predicate({"pattern": "a", "within": "7"}).longest, 7)

    def test_with_each_new_byte_it_reads_that_byte_only(self) -> None:
        predicate = regex.predicate({"pattern": "a*b", "within": "65536"})
        assert isinstance(predicate, Pattern)
        scan = predicate.compile().scan
        peeked = None
        for length in range(1, 200):
            peeked = Peeked(b"a" * length, peeked)
            self.assertIs(predicate(peeked), Verdict.NEED_MORE)
            self.assertEqual(peeked.parsed(scan).length, length)
        self.assertIs(predicate(Peeked(b"?" * 199 + b"b", peeked)), Verdict.MATCH)

    def test_no_warning_and_sizes(self) -> None:
        """Warnings of `re` become errors in the file, never warnings of the program."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            error = self.assertRaises(OptionError, regex.predicate, {"pattern": "[[:alpha:]]"})
        self.assertEqual(caught, [])
        self.assertRegex(str(error), "^pattern: .*backslash")
        for within, longest in {"1": 1, "65536": 65536, "1KiB": 1024, "64KiB": 65536}.items():
            self.assertEqual(regex.predicate({"pattern": "a", "within": within}).longest, longest)

    def test_what_is_undecided_in_a_stream_is_a_no_in_a_datagram(self) -> None:
        check_datagrams(
            regex,
            samples=[b"STATUS 12;", b"STATUS 1;and more"],
            not_samples=[b"STATUS 12", b"STATUS ;", b"status 1;"],
            options={"pattern": r"STATUS \d+;"},
        )
