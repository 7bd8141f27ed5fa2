import re
from functools import lru_cache
from itertools import product

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from txmux.detection.regex import PatternError, StreamPattern, compile_pattern
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


class PropertyTests(SynchronousTestCase):
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
