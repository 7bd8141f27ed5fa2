"""Patterns for streams, feature by feature."""

from __future__ import annotations

import re
import warnings

from twisted.trial.unittest import SynchronousTestCase

from txmux.detection.regex import PatternError, StreamPattern, compile_pattern
from txmux.detection.regex.automaton import MAX_STATES
from txmux.detection.regex.stream import MAX_KEPT
from txmux.interfaces import Verdict


def verdicts(pattern: bytes, data: bytes, within: int | None = None) -> list[Verdict]:
    """What a pattern says of each prefix of `data`, from the first byte on."""
    compiled = compile_pattern(pattern, within=within)
    return [compiled.verdict(data[:length]) for length in range(1, len(data) + 1)]


class OneByteTests(SynchronousTestCase):
    """Which bytes a part of a pattern takes."""

    def test_sets(self) -> None:
        """Literals, classes, categories and flags take the same of the 256 bytes as with `re`."""
        for pattern in (
            *(b"a", rb"\xff", rb"\101", rb"\n", rb"\.", b"\xc3"),
            *(b".", b"(?s).", b"(?s:(?-s:.))", b"(?m)."),
            *(rb"\d", rb"\D", rb"\s", rb"\S", rb"\w", rb"\W", rb"(?a)\w"),
            *(b"[a-f]", b"[^a-f]", b"[^a]", rb"[\d_.-]", rb"[^\W_]", rb"[\x00-\xff]", b"[]a]"),
            *(b"(?i)k", b"(?i:K)", b"(?i)[^k]", b"(?i)[^a-f]", b"(?i)[X-c]", rb"(?i)\W", b"(?i)@"),
            *(b"(?i:(?-i:k))", b"(?x) a # one\n", b"(?x:[ #])", b"a|b", b"a|[^a]"),
        ):
            compiled = compile_pattern(pattern)
            for byte in range(256):
                data = bytes([byte])
                with self.subTest(pattern=pattern, byte=data):
                    self.assertEqual(
                        compiled.fullmatch(data), re.fullmatch(pattern, data) is not None
                    )


class VerdictTests(SynchronousTestCase):
    """What a pattern says, byte by byte."""

    def test_match(self) -> None:
        """It is a match as soon as the shortest possible one is there, and stays one."""
        self.assertEqual(verdicts(b"ab+", b"abbx"), [Verdict.NEED_MORE] + [Verdict.MATCH] * 3)

    def test_no(self) -> None:
        """It is a no at the first byte after which nothing can match, and stays one."""
        self.assertEqual(verdicts(b"abc", b"axbc"), [Verdict.NEED_MORE] + [Verdict.NO] * 3)

    def test_dead_end(self) -> None:
        """A byte that leads only where no match can be reached is already a no."""
        self.assertEqual(verdicts(b"a(?:b|cx^)", b"ac"), [Verdict.NEED_MORE, Verdict.NO])

    def test_empty(self) -> None:
        """A pattern that matches the empty string matches anything."""
        for pattern in (b"", b"a*", b"^", b"(?:a|)", b"a{0}", b"(?:a{0}){9}"):
            with self.subTest(pattern=pattern):
                self.assertEqual(verdicts(pattern, b"x"), [Verdict.MATCH])

    def test_within(self) -> None:
        """Once the bytes that are left are too few for a match, it is a no."""
        self.assertEqual(
            verdicts(b"[ab]*bbb", b"aaabbb", within=5), [Verdict.NEED_MORE] * 2 + [Verdict.NO] * 4
        )

    def test_within_exact(self) -> None:
        """A match may have as many bytes as `within` says."""
        self.assertEqual(
            verdicts(b"[ab]*bb", b"aabb", within=4), [Verdict.NEED_MORE] * 3 + [Verdict.MATCH]
        )

    def test_no_limit(self) -> None:
        """Without `within`, a match may begin to end after any number of bytes."""
        pattern = compile_pattern(b"a*b")
        self.assertIs(pattern.verdict(b"a" * 100_000), Verdict.NEED_MORE)
        self.assertIs(pattern.verdict(b"a" * 100_000 + b"b"), Verdict.MATCH)

    def test_start(self) -> None:
        r"""``^`` and ``\A`` hold at the first byte and nowhere else."""
        self.assertEqual(verdicts(b"^a", b"a"), [Verdict.MATCH])
        self.assertEqual(verdicts(rb"(?:\A|b)+a", b"ba"), [Verdict.NEED_MORE, Verdict.MATCH])
        self.assertEqual(verdicts(rb"(?:a\Ab|aac)", b"ab"), [Verdict.NEED_MORE, Verdict.NO])

    def test_line_start(self) -> None:
        """With the flag m, ``^`` holds after each newline, also as the last thing in a pattern."""
        self.assertEqual(verdicts(b"(?m)^a\n^b", b"a\nb")[-1], Verdict.MATCH)
        self.assertEqual(verdicts(b"(?m)a(?s:.)^b", b"a-"), [Verdict.NEED_MORE, Verdict.NO])
        self.assertEqual(verdicts(b"(?m)a\n^", b"a\n")[-1], Verdict.MATCH)

    def test_boundary(self) -> None:
        r"""``\b`` needs a word byte on one side of it, ``\B`` the same kind on both."""
        self.assertEqual(verdicts(rb"\bGET\b.", b"GET ")[-1], Verdict.MATCH)
        self.assertEqual(verdicts(rb"GET\b.", b"GETS")[-2:], [Verdict.NEED_MORE, Verdict.NO])
        self.assertEqual(verdicts(rb"GET\B.", b"GETS")[-1], Verdict.MATCH)
        self.assertEqual(verdicts(rb"\B-", b"-"), [Verdict.MATCH])
        self.assertEqual(verdicts(rb"\b(?s:.)", b"-"), [Verdict.NO])

    def test_settled_boundary(self) -> None:
        r"""A last ``\b`` is no error where the answer is the same whatever comes next."""
        for pattern in (rb"a(?:\b|\B)", rb"a(?:\b|)", rb"(?:b|a\b\B)b*", rb"a\b[- ]"):
            with self.subTest(pattern=pattern):
                compile_pattern(pattern)

    def test_fullmatch(self) -> None:
        """The whole string has to match, not just its beginning, and fit into `within`."""
        pattern = compile_pattern(b"ab?", within=2)
        self.assertTrue(pattern.fullmatch(b"a"))
        self.assertTrue(pattern.fullmatch(b"ab"))
        for data in (b"", b"abb", b"b"):
            with self.subTest(data=data):
                self.assertFalse(pattern.fullmatch(data))
        self.assertFalse(compile_pattern(b"a+", within=2).fullmatch(b"aaa"))

    def test_scan(self) -> None:
        """A scan goes on from an earlier one without reading its bytes again."""
        pattern = compile_pattern(b"abc")
        first = pattern.scan(b"ab")
        self.assertEqual((first.verdict, first.length), (Verdict.NEED_MORE, 2))
        second = pattern.scan(b"??c", first)
        self.assertEqual((second.verdict, second.length), (Verdict.MATCH, 3))
        self.assertIs(pattern.scan(b"abcd", second), second)


class RefusalTests(SynchronousTestCase):
    """Patterns that cannot be used, and what is said of them."""

    def refused(self, message: str, *patterns: bytes, within: int | None = 256) -> None:
        """Assert that each pattern is refused with a message that matches."""
        for pattern in patterns:
            with self.subTest(pattern=pattern):
                error = self.assertRaises(PatternError, compile_pattern, pattern, within=within)
                self.assertRegex(str(error), message)

    def test_end(self) -> None:
        """A stream has no end that ``$`` could see, wherever it stands."""
        self.refused(r"looks past .* with \$", b"a$", b"(?m)a$\nb", b"(a|b$)c", b"(?:$){0}a")
        self.refused(r"looks past .* with \\Z", rb"a\Z")

    def test_look_ahead(self) -> None:
        """Look-ahead is refused, and told to become a part of the pattern."""
        self.refused(r"looks past .*write the bytes", b"a(?=b)", b"(?!a)b", b"(?!)", b"(?=)")

    def test_look_behind(self) -> None:
        """Look-behind is refused."""
        self.refused("looks back", b"a(?<=a)b", b"(?<!a)b")

    def test_final_boundary(self) -> None:
        r"""A final ``\b`` or ``\B`` would hang on the byte after the match."""
        self.refused(
            r"ends with a \\b",
            *(rb"GET\b", rb"a\B", rb"\b", rb"\B", rb"a(?:\b|b)", rb"a(\b)*?b?\b", rb"(?:a\b-?)+"),
        )

    def test_groups(self) -> None:
        """What a group took cannot be asked for."""
        self.refused("back-reference", rb"(a)\1", b"(?P<x>a)(?P=x)")
        self.refused("took part", b"(a)?(?(1)b|c)")

    def test_atomic(self) -> None:
        """Atomic groups and possessive repeats are errors, whether this Python knows them or not."""
        self.refused("atomic group|unknown extension", b"(?>a+)b")
        self.refused("possessive repeat|multiple repeat", b"a++b", b"a*+b", b"a{2}+b")

    def test_locale(self) -> None:
        """What is a letter does not hang on where txmux runs."""
        self.refused("locale", b"(?L)a", b"(?L:a)")

    def test_syntax(self) -> None:
        """Errors of `re` come with its message and position."""
        self.refused(r"is not a regular expression: .*unterminated.* at position 1", b"a(b")
        self.refused("unterminated character set at position 0", b"[a")
        self.refused(r"bad escape \\q at position 1", rb"a\q")
        self.refused("nothing to repeat at position 0", b"*a")
        self.refused("too large", b"a{99999999999999999999}")
        self.refused("incompatible", b"(?aL)a")
        self.refused("lags not at the start", b"a(?i)b")

    def test_ambiguous(self) -> None:
        """What `re` only warns of is an error that tells to add a backslash, and no warning escapes."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.refused(r"nested set at position 1; put a backslash", b"[[:alpha:]]")
            self.refused("set difference", b"[a--b]")
            compile_pattern(rb"[\[:a-z]")

    def test_impossible(self) -> None:
        """A pattern that no bytes match is an error."""
        self.refused(
            "can never match", b"a^b", rb"a\Ab", rb"a\bb", rb"-\Ba", rb"[^\s\S]", rb"a\b\B"
        )
        self.refused("can never match", b"(?m)a^b", b"x^", within=None)

    def test_too_long(self) -> None:
        """A pattern that needs more bytes than it may look at is an error with both numbers."""
        self.refused("at least 4 bytes for a match, more than within=3", b"ab{3,}", within=3)
        compile_pattern(b"ab{3,}", within=4)

    def test_too_large(self) -> None:
        """A pattern that counts to huge numbers is refused before it is built."""
        self.refused(
            "more than 5000 states",
            *(b"(((a{1000}){1000}){1000})", b"(?:(?:ab?){1000}c){3}", b"(?:(?:){5000}){5000}"),
            *(b"(((a{0}){5000}){5000}){5000}", b"(?:a||||){1001}", rb"\b.{2501}"),
            within=None,
        )

    def test_too_deep(self) -> None:
        """Groups in groups have an end too."""
        self.refused("too deep", b"(" * 5_000 + b"a" + b")" * 5_000)


class BoundTests(SynchronousTestCase):
    """Work and memory stay in proportion to the pattern, whatever the bytes."""

    def reachable(self, pattern: StreamPattern) -> int:
        """Count the deterministic states that are held in memory."""
        found = {pattern._start}
        newest = found
        while newest:
            newest = {after for state in newest for after in state.moves.values()} - found
            found |= newest
        return len(found)

    def test_nested_repeats(self) -> None:
        """Patterns that make a backtracking engine slow need a handful of states."""
        for pattern in (b"(a+)+b", b"(a*)*b", b"(a|a)*b", b"(a|aa)+b", b"(.*)*(.*)*b", b"(a?)*b"):
            with self.subTest(pattern=pattern):
                compiled = compile_pattern(pattern)
                self.assertIs(compiled.verdict(b"a" * 10_000), Verdict.NEED_MORE)
                self.assertLessEqual(compiled.size, 6)
                self.assertLessEqual(compiled.cached_states, 4)

    def test_size(self) -> None:
        """A pattern has one state for each byte that it names, and for each kind of it that it tells apart."""
        self.assertEqual(compile_pattern(b"ab[c-z]{3}").size, 5)
        self.assertEqual(compile_pattern(rb"a\b.").size, 3)
        self.assertEqual(compile_pattern(b"(?ms).^a").size, 3)
        self.assertEqual(compile_pattern(b"a{%d}" % MAX_STATES).size, MAX_STATES)

    def test_count_beyond_within(self) -> None:
        """A count that `within` keeps out of reach costs no states."""
        pattern = compile_pattern(b"a{1,60000}b", within=256)
        self.assertEqual(pattern.size, 2)
        self.assertIs(pattern.verdict(b"a" * 255 + b"b"), Verdict.MATCH)
        self.assertIs(pattern.verdict(b"a" * 256), Verdict.NO)

    def test_optional_rounds(self) -> None:
        """A counted repeat of something that may be empty has no more moves than states."""
        pattern = compile_pattern(b"(?:a?){4000}b")
        self.assertLess(len(pattern._automaton.jumps), 4)
        self.assertTrue(pattern.fullmatch(b"a" * 4000 + b"b"))
        self.assertFalse(pattern.fullmatch(b"a" * 4001 + b"b"))

    def test_dead_ends(self) -> None:
        """Where no match can be reached, nothing is followed."""
        compiled = compile_pattern(b"[ab]*(?:-|a[ab]{20}^-)")
        self.assertIs(compiled.verdict(b"abaabbbabaaab" * 9), Verdict.NEED_MORE)
        self.assertEqual(compiled.cached_states, 1)

    def test_kept(self) -> None:
        """A pattern with billions of deterministic states keeps few of them, and answers all the same."""
        compiled = compile_pattern(b"[ab]*a[ab]{20}-")
        for number in range(400):
            letters = f"{number * 7919 % 2**20:020b}".translate({48: "a", 49: "b"}).encode()
            for data in (b"a" + letters + b"-", b"b" + letters + b"-"):
                self.assertEqual(compiled.fullmatch(data), data[:1] == b"a")
                self.assertLessEqual(compiled.cached_states, MAX_KEPT)
                self.assertLessEqual(self.reachable(compiled), MAX_KEPT)
        self.assertIs(compiled.verdict(b"ab" * 20 + b"-"), Verdict.NO)
        self.assertIs(compiled.verdict(b"ab" * 20 + b"b-"), Verdict.MATCH)
