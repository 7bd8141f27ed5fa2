import re
import warnings
from functools import lru_cache
from itertools import product

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from txmux.detection.regex import PatternError, StreamPattern, compile_pattern
from txmux.detection.regex.automaton import MAX_KEPT, MAX_STATES, counted
from txmux.interfaces import Verdict

ALPHABET = b"ab- \n"
"""Two word bytes, two others and the newline: whatever a generated pattern tells apart is in it."""
LONGEST = 4


@lru_cache
def strings(longest: int) -> list[bytes]:
    return [bytes(letters) for n in range(longest + 1) for letters in product(ALPHABET, repeat=n)]


ONE_BYTE = st.sampled_from(
    [
        *("a", "b", "-", r"\n", r"\x61", ".", "(?s:.)", "(?s-i:.)", "(?x: a # a\n)"),
        *("[ab]", "[a-b]", "[^a]", "[^b-]", r"[\s\w]", "(?i:A)", "(?i:[^B])"),
        *(r"\w", r"\W", r"\s", r"\S"),
    ]
)
REPEATS = st.sampled_from(["*", "+", "?", "{2}", "{0}", "{,2}", "{1,3}", "{2,}", "*?", "+?", "??"])
ASSERTIONS = st.sampled_from([r"\b", r"\B", "^", "(?m:^)", r"\A"])


def patterns_of(leaves: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    def larger(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.lists(parts, min_size=2, max_size=4).map("".join),
            st.lists(parts | st.just(""), min_size=2, max_size=3).map("|".join).map("({})".format),
            st.builds("(?:{}){}".format, parts, REPEATS),
        )

    return st.recursive(leaves, larger, max_leaves=8).map(str.encode)


PLAIN = patterns_of(ONE_BYTE)
ASSERTING = patterns_of(ONE_BYTE | ASSERTIONS)


class AutomatonTests(SynchronousTestCase):
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
                is_match = re.fullmatch(pattern, data) is not None
                self.assertEqual(compiled.fullmatch(data), is_match, (pattern, data))

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

    def test_refused_within(self) -> None:
        """What no bytes match, what needs more bytes than it may have, and, before it is built, what is too large."""
        never, large = "can never match", "more than 5000 states"
        for within, message, *patterns in (
            (256, never, b"a^b", rb"a\Ab", rb"a\bb", rb"-\Ba", rb"[^\s\S]", rb"a\b\B"),
            (None, never, b"(?m)a^b", b"x^"), (3, "at least 4 bytes for a match, more than within=3", b"ab{3,}"),
            (None, large, b"(((a{1000}){1000}){1000})", b"(?:(?:ab?){1000}c){3}", b"(?:(?:){5000}){5000}"),
            (None, large, b"(((a{0}){5000}){5000}){5000}", b"(?:a||||){1001}", rb"\b.{2501}"),
        ):  # fmt: skip
            self.refused(message, *patterns, within=within)
        compile_pattern(b"ab{3,}", within=4)

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
        for pattern, size in (
            (b"ab[c-z]{3}", 5), (rb"a\b.", 3), (b"(?ms).^a", 3), (b"a{%d}" % MAX_STATES, MAX_STATES),
        ):  # fmt: skip
            self.assertEqual(compile_pattern(pattern).automaton.size, size)
        self.assertEqual(compile_pattern(b"a{9}").longest, 9)
        with counted(lambda states: states < MAX_STATES):
            for pattern, verdict in ((b"a", Verdict.NO), (b"a{%d}" % MAX_STATES, Verdict.MATCH)):
                self.assertIs(compile_pattern(pattern).verdict(b"b"), verdict)

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

    def compiled(self, pattern: bytes, within: int, matches: set[bytes]) -> StreamPattern | None:
        """Compile a pattern; see that one is refused only when nothing matches or its end is open."""
        try:
            return compile_pattern(pattern, within=within)
        except PatternError as error:
            if "ends with" not in str(error):
                self.assertRegex(str(error), "never match|more than within")
                self.assertFalse(matches)
            return None

    def assert_agrees(self, compiled: StreamPattern, within: int, matches: set[bytes]) -> None:
        beginnings = {match[:length] for match in matches for length in range(len(match) + 1)}
        for data in strings(within + 1):
            if any(data[:length] in matches for length in range(len(data) + 1)):
                expected = Verdict.MATCH
            else:
                expected = Verdict.NEED_MORE if data in beginnings else Verdict.NO
            self.assertEqual((data, compiled.verdict(data)), (data, expected))

    @settings(max_examples=scaled(300), deadline=None)
    @given(pattern=PLAIN, within=st.integers(1, LONGEST))
    @example(pattern=b"(?:(?:a|b*)*?){2}-", within=3)
    @example(pattern=b"(?:a?){3}(?:b|){2,}-", within=4)
    @example(pattern=b"a{,4}b{,5}-", within=4)
    @example(pattern=b"[ab]*bbb", within=4)
    def test_plain(self, pattern: bytes, within: int) -> None:
        """Verdicts are exact: a no only if no continuation matches, more only if some does."""
        matches = {data for data in strings(within) if re.fullmatch(pattern, data)}
        compiled = self.compiled(pattern, within, matches)
        if compiled:
            self.assert_agrees(compiled, within, matches)
            for data in strings(within):
                self.assertEqual((data, compiled.fullmatch(data)), (data, data in matches))

    @settings(max_examples=scaled(300), deadline=None)
    @given(pattern=ASSERTING, within=st.integers(1, LONGEST))
    @example(pattern=rb"(?:a|-)+\bb", within=3)
    @example(pattern=rb"(?:\b|a)*-", within=3)
    @example(pattern=rb"(?:a|\b){2}(?m:^)*-", within=4)
    @example(pattern=rb"(?s:.)(?m:^)(?:\B|a)-", within=4)
    @example(pattern=rb"(?:a\Ab|aab|(?:^|b)+-)", within=4)
    @example(pattern=rb"a(?:b|-\n(?m:^)b)\b.", within=4)
    def test_assertions(self, pattern: bytes, within: int) -> None:
        """So they are with assertions, and no match depends on the byte that comes next."""
        one_more = re.compile(rb"(?:%s)(?s:.)" % pattern)
        matches = {data for data in strings(within) if one_more.fullmatch(data + b"a")}
        compiled = self.compiled(pattern, within, matches)
        if compiled:
            for byte in (b"-", b"\n"):
                also = {data for data in strings(within) if one_more.fullmatch(data + byte)}
                self.assertEqual(also, matches)
            self.assert_agrees(compiled, within, matches)

    @settings(max_examples=scaled(100), deadline=None)
    @given(
        pattern=PLAIN,
        cuts=st.lists(st.binary(max_size=3) | st.text("ab- \n", max_size=3).map(str.encode)),
        within=st.none() | st.integers(1, 12),
    )
    def test_segments(self, pattern: bytes, cuts: list[bytes], within: int | None) -> None:
        """However a stream is cut, reading on says what reading at once says; a decision is never undone."""
        try:
            compiled = compile_pattern(pattern, within=within)
        except PatternError:
            return
        data, progress, decided = b"", None, None
        for cut in cuts:
            data += cut
            progress = compiled.scan(data, progress)
            self.assertIs(progress.verdict, compiled.verdict(data))
            self.assertIn(decided, (None, progress.verdict))
            if progress.verdict is not Verdict.NEED_MORE:
                decided = progress.verdict
