"""The `regex` matcher as a rules file uses it."""

import warnings

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Peeked, Verdict
from txmux.matchers.regex import regex
from txmux.testing import check_datagrams, check_matcher
from txmux.wire.predicates import Pattern


def verdict(data: bytes, **options: str) -> Verdict:
    return regex.predicate(options)(Peeked(data))


class ContractTests(SynchronousTestCase):
    def test_contract(self) -> None:
        """It is kept, with all that the options show as examples."""
        check_matcher(regex, [(b"GET /", 3)], [(b"POST", 2)], {"pattern": "GET|PUT"})


class MatcherTests(SynchronousTestCase):
    def test_interface(self) -> None:
        """It is a matcher, and the examples that it shows for its options work."""
        matcher = regex
        self.assertTrue(verifyObject(IProtocolMatcher, matcher))
        self.assertEqual([option.name for option in matcher.options], ["pattern", "within"])
        matcher.predicate({option.name: option.example for option in matcher.options})

    def test_verdicts(self) -> None:
        """It matches, waits or says no as the pattern does."""
        self.assertIs(verdict(b"GET /", pattern="GET|PUT"), Verdict.MATCH)
        self.assertIs(verdict(b"PU", pattern="GET|PUT"), Verdict.NEED_MORE)
        self.assertIs(verdict(b"POST", pattern="GET|PUT"), Verdict.NO)

    def test_bytes(self) -> None:
        """Escapes stand for bytes, and characters beyond ASCII for their bytes in UTF-8."""
        self.assertIs(verdict(b"\x00\xff", pattern=r"\x00\xff"), Verdict.MATCH)
        self.assertIs(verdict("é".encode(), pattern="é"), Verdict.MATCH)
        self.assertIs(verdict(b"\xe9", pattern="é"), Verdict.NO)

    def test_within(self) -> None:
        """A match has at most `within` bytes, 256 if nothing is said, and no byte beyond is waited for."""
        predicate = regex.predicate({"pattern": ".*!"})
        self.assertEqual(predicate.longest, 256)
        self.assertIs(predicate(Peeked(b"." * 255 + b"!")), Verdict.MATCH)
        self.assertIs(predicate(Peeked(b"." * 255)), Verdict.NEED_MORE)
        self.assertIs(predicate(Peeked(b"." * 256)), Verdict.NO)
        self.assertEqual(regex.predicate({"pattern": "a", "within": "7"}).longest, 7)

    def test_reads_on(self) -> None:
        """With each new byte it reads that byte only."""
        predicate = regex.predicate({"pattern": "a*b", "within": "65536"})
        assert isinstance(predicate, Pattern)
        scan = predicate.compile().scan
        peeked = None
        for length in range(1, 200):
            peeked = Peeked(b"a" * length, peeked)
            self.assertIs(predicate(peeked), Verdict.NEED_MORE)
            self.assertEqual(peeked.parsed(scan).length, length)
        self.assertIs(predicate(Peeked(b"?" * 199 + b"b", peeked)), Verdict.MATCH)


class OptionTests(SynchronousTestCase):
    def refused(self, option: str, message: str, **options: str) -> None:
        error = self.assertRaises(OptionError, regex.predicate, options)
        self.assertEqual(error.option, option)
        self.assertRegex(str(error), f"^{option}: .*{message}")

    def test_no_pattern(self) -> None:
        """A pattern is required."""
        self.refused("pattern", "is missing; write one", within="5")
        self.refused("pattern", "is empty; write one", pattern="")

    def test_pattern(self) -> None:
        """What is wrong with a pattern is said of the option, in one line."""
        self.refused("pattern", "leave \\$ out", pattern="a$")
        self.refused("pattern", "position 2", pattern="ab(c")
        self.refused("pattern", "more than within=2", pattern="abc", within="2")
        self.refused("pattern", "not valid UTF-8", pattern="\udcff")
        self.refused("pattern", r"unknown extension \?\\n at position 1", pattern="(?\n)")

    def test_no_warning(self) -> None:
        """Warnings of `re` become errors in the file, never warnings of the program."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.refused("pattern", "backslash", pattern="[[:alpha:]]")
        self.assertEqual(caught, [])

    def test_within(self) -> None:
        """It is a size from 1 byte to 64KiB."""
        for within in ("0", "65537", "65KiB", "1kib", "1MiB", "-1", "1.5", "", "many", "1_0", "٣"):
            with self.subTest(within=within):
                self.refused(
                    "within", "write one from 1 to 64KiB, such as 256", pattern="a", within=within
                )
        for within, longest in {"1": 1, "65536": 65536, "1KiB": 1024, "64KiB": 65536}.items():
            self.assertEqual(regex.predicate({"pattern": "a", "within": within}).longest, longest)


class DatagramTests(SynchronousTestCase):
    def test_contract(self) -> None:
        """What is undecided in a stream is a no in a datagram."""
        check_datagrams(
            regex,
            samples=[b"STATUS 12;", b"STATUS 1;and more"],
            not_samples=[b"STATUS 12", b"STATUS ;", b"status 1;"],
            options={"pattern": r"STATUS \d+;"},
        )
