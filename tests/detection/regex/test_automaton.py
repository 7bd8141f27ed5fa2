import re
import warnings

from twisted.trial.unittest import SynchronousTestCase

from txmux.detection.regex import PatternError, StreamPattern, compile_pattern
from txmux.detection.regex.automaton import MAX_KEPT, MAX_STATES
from txmux.interfaces import Verdict


class OneByteTests(SynchronousTestCase):
    def test_same_256_bytes_as_re(self) -> None:
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
    def test_no_limit(self) -> None:
        pattern = compile_pattern(b"a*b")
        self.assertIs(pattern.verdict(b"a" * 100_000), Verdict.NEED_MORE)
        self.assertIs(pattern.verdict(b"a" * 100_000 + b"b"), Verdict.MATCH)

    def test_final_boundary_that_cannot_depend_on_the_next_byte(self) -> None:
        for pattern in (rb"a(?:\b|\B)", rb"a(?:\b|)", rb"(?:b|a\b\B)b*", rb"a\b[- ]"):
            with self.subTest(pattern=pattern):
                compile_pattern(pattern)

    def test_scan_goes_on_without_reading_again(self) -> None:
        pattern = compile_pattern(b"abc")
        first = pattern.scan(b"ab")
        self.assertEqual((first.verdict, first.length), (Verdict.NEED_MORE, 2))
        second = pattern.scan(b"??c", first)
        self.assertEqual((second.verdict, second.length), (Verdict.MATCH, 3))
        self.assertIs(pattern.scan(b"abcd", second), second)


class RefusalTests(SynchronousTestCase):
    def refused(self, message: str, *patterns: bytes, within: int | None = 256) -> None:
        for pattern in patterns:
            with self.subTest(pattern=pattern):
                error = self.assertRaises(PatternError, compile_pattern, pattern, within=within)
                self.assertRegex(str(error), message)

    def test_refused(self) -> None:
        for message, *patterns in (
            (r"looks past .* with \$", b"a$", b"(?m)a$\nb", b"(a|b$)c", b"(?:$){0}a"),
            (r"looks past .* with \\Z", rb"a\Z"),
            (r"looks past .*write the bytes", b"a(?=b)", b"(?!a)b", b"(?!)", b"(?=)"),
            ("looks back", b"a(?<=a)b", b"(?<!a)b"),
            # A final boundary depends on the next byte.
            (r"ends with a \\b", rb"GET\b", rb"a\B", rb"\b", rb"\B", rb"a(?:\b|b)",
             rb"a(\b)*?b?\b", rb"(?:a\b-?)+"),
            ("back-reference", rb"(a)\1", b"(?P<x>a)(?P=x)"), ("took part", b"(a)?(?(1)b|c)"),
            ("atomic group|unknown extension", b"(?>a+)b"),
            ("possessive repeat|multiple repeat", b"a++b", b"a*+b", b"a{2}+b"),
            ("would not mean the same to every version of Python: .*set", b"[[a]"),
            ("locale", b"(?L)a", b"(?L:a)"), ("too deep", b"(" * 5_000 + b"a" + b")" * 5_000),
            # Syntax errors have the message and the position of `re`.
            (r"^'a\(b' is not a regular expression: .*unterminated.* at position 1", b"a(b"),
            ("unterminated character set at position 0", b"[a"),
            (r"bad escape \\q at position 1", rb"a\q"), ("nothing to repeat at position 0", b"*a"),
            ("too large", b"a{99999999999999999999}"), ("incompatible", b"(?aL)a"),
            ("lags not at the start", b"a(?i)b"),
        ):  # fmt: skip
            self.refused(message, *patterns)

    def test_warnings_of_re_are_errors(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.refused(r"nested set at position 1; put a backslash", b"[[:alpha:]]")
            self.refused("set difference", b"[a--b]")
            compile_pattern(rb"[\[:a-z]")

    def test_pattern_that_no_bytes_match(self) -> None:
        self.refused(
            "can never match", b"a^b", rb"a\Ab", rb"a\bb", rb"-\Ba", rb"[^\s\S]", rb"a\b\B"
        )
        self.refused("can never match", b"(?m)a^b", b"x^", within=None)

    def test_needs_more_bytes_than_within(self) -> None:
        self.refused("at least 4 bytes for a match, more than within=3", b"ab{3,}", within=3)
        compile_pattern(b"ab{3,}", within=4)

    def test_too_large_is_refused_before_it_is_built(self) -> None:
        self.refused(
            "more than 5000 states",
            *(b"(((a{1000}){1000}){1000})", b"(?:(?:ab?){1000}c){3}", b"(?:(?:){5000}){5000}"),
            *(b"(((a{0}){5000}){5000}){5000}", b"(?:a||||){1001}", rb"\b.{2501}"),
            within=None,
        )


class BoundTests(SynchronousTestCase):
    def reachable(self, pattern: StreamPattern) -> int:
        found = {pattern.start}
        newest = found
        while newest:
            newest = {after for state in newest for after in state.moves.values()} - found
            found |= newest
        return len(found)

    def test_nested_repeats_need_few_states(self) -> None:
        for pattern in (b"(a+)+b", b"(a*)*b", b"(a|a)*b", b"(a|aa)+b", b"(.*)*(.*)*b", b"(a?)*b"):
            with self.subTest(pattern=pattern):
                compiled = compile_pattern(pattern)
                self.assertIs(compiled.verdict(b"a" * 10_000), Verdict.NEED_MORE)
                self.assertLessEqual(compiled.automaton.size, 6)
                self.assertLessEqual(len(compiled.kept_states), 4)

    def test_one_state_for_each_named_byte_and_kind(self) -> None:
        self.assertEqual(compile_pattern(b"ab[c-z]{3}").automaton.size, 5)
        self.assertEqual(compile_pattern(rb"a\b.").automaton.size, 3)
        self.assertEqual(compile_pattern(b"(?ms).^a").automaton.size, 3)
        self.assertEqual(compile_pattern(b"a{%d}" % MAX_STATES).automaton.size, MAX_STATES)

    def test_count_beyond_within_costs_no_states(self) -> None:
        pattern = compile_pattern(b"a{1,60000}b", within=256)
        self.assertEqual(pattern.automaton.size, 2)
        self.assertIs(pattern.verdict(b"a" * 255 + b"b"), Verdict.MATCH)
        self.assertIs(pattern.verdict(b"a" * 256), Verdict.NO)

    def test_optional_rounds_have_few_moves(self) -> None:
        pattern = compile_pattern(b"(?:a?){4000}b")
        self.assertLess(len(pattern.automaton.jumps), 4)
        self.assertTrue(pattern.fullmatch(b"a" * 4000 + b"b"))
        self.assertFalse(pattern.fullmatch(b"a" * 4001 + b"b"))

    def test_dead_ends_are_not_followed(self) -> None:
        compiled = compile_pattern(b"[ab]*(?:-|a[ab]{20}^-)")
        self.assertIs(compiled.verdict(b"abaabbbabaaab" * 9), Verdict.NEED_MORE)
        self.assertEqual(len(compiled.kept_states), 1)

    def test_few_of_billions_of_states_are_kept(self) -> None:
        compiled = compile_pattern(b"[ab]*a[ab]{20}-")
        for number in range(400):
            letters = f"{number * 7919 % 2**20:020b}".translate({48: "a", 49: "b"}).encode()
            for data in (b"a" + letters + b"-", b"b" + letters + b"-"):
                self.assertEqual(compiled.fullmatch(data), data[:1] == b"a")
                self.assertLessEqual(len(compiled.kept_states), MAX_KEPT)
                self.assertLessEqual(self.reachable(compiled), MAX_KEPT)
        self.assertIs(compiled.verdict(b"ab" * 20 + b"-"), Verdict.NO)
        self.assertIs(compiled.verdict(b"ab" * 20 + b"b-"), Verdict.MATCH)
