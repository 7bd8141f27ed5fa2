import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from txmux.detection.regex import PatternError, compile_pattern
from txmux.interfaces import Datagrams, Verdict
from txmux.testing import check_matcher, check_predicate
from txmux.wire.cursor import Cursor
from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import DatagramFields, Either, Fields, Pattern, Prefix


def read_numbers(cursor: Cursor) -> None:
    cursor.one_of((1, 7))
    cursor.number(2, 4, 0x1FF)
    cursor.literal(b"\xca\xfe")


class PredicateTests(SynchronousTestCase):
    def test_decided_at_the_first_byte_that_can(self) -> None:
        """Each is decided at the first byte that can decide."""
        fields = [(b"\x02", 1), (b"\x01\x02", 2), (b"\x01\x00\x03", 3), (b"\x07\x01\x00\xcb", 4)]
        rows: tuple[tuple[Any, ...], ...] = (
            # A prefix is a match at its last byte, and a no at the first that differs.
            (Prefix(b"JDWP"), [(b"JDWP-", 4)], [(b"JDBC", 3)], [b"JDW"], 4, b"J"),
            # A pattern is a match at the end of the shortest one.
            (Pattern(rb"(?:GET|PUT) /+\n", within=9), [(b"GET /\n", 6), (b"PUT ////\n", 9)],
             [(b"POST", 2), (b"GET /////", 9)], [b"PUT /"], 9, b"GP"),
            # Fields are a match when all are there, and a no at the first byte that none allows.
            (Fields(read_numbers, longest=5), [(b"\x07\x01\xff\xca\xfe", 5)], fields, [], 5, b"\1\7"),
            # One of two is enough for a match, and a no needs both.
            (Either(Prefix(b"ab"), Pattern(rb"a[cd]{3}|\x80")),
             [(b"ab", 2), (b"acdc", 4), (b"\x80", 1)], [(b"b", 1), (b"ae", 2)], [], 4, b"a\x80"),
        )  # fmt: skip
        for predicate, matches, others, undecided, longest, first_bytes in rows:
            check_predicate(predicate, matches, others, undecided=undecided)
            self.assertEqual((predicate.longest, predicate.first_bytes), (longest, {*first_bytes}))
        self.assertIsNone(Pattern(rb"(?s).").first_bytes)  # where all may come first
        predicate = DatagramFields(read_numbers)
        for data, verdict in (
            (b"\1\1\xff\xca\xfe", Verdict.MATCH), (b"\1\1\xff\xca", Verdict.NO), (b"\2\1\xff\xca\xfe", Verdict.NO),
        ):  # fmt: skip
            self.assertIs(predicate(Datagrams((data,))), verdict)

    def test_longest_match_is_known(self) -> None:
        for expression, longest in ((rb"a", 1), (rb"ab?c{2,3}", 5), (rb"a|b(?:cd){0,4}e|f", 10)):
            self.assertEqual(Pattern(expression).longest, longest, expression)
        self.assertIsNone(compile_pattern(rb"a+b").longest)
        error = self.assertRaises(ValueError, lambda: Pattern(rb"a+b").longest)
        self.assertIn("set one by within=", str(error))
        self.assertEqual(Pattern(rb"a+b", within=7).longest, 7)
        self.assertRaises(PatternError, Pattern(b"a$").compile)
        # It is a matcher without options, of the module in which it is written down, which gives its predicate.
        predicate = Prefix(b"HELLO")
        matcher = PlainMatcher("greeting", "clients that say HELLO", predicate, source="none")
        check_matcher(matcher, [(b"HELLO", 5)], [(b"HELP", 4)])
        self.assertIs(matcher.predicate({}), predicate)
        self.assertEqual((matcher.options, matcher.source), ((), "none"))
        self.assertEqual(matcher.__module__, __name__)

    @settings(max_examples=scaled(100), deadline=None)
    @given(
        st.recursive(
            st.sampled_from(["a", "b", "[ab]"]),
            lambda inner: st.one_of(
                st.builds("{}{}".format, inner, inner),
                st.builds("(?:{}|{})".format, inner, inner),
                st.builds("(?:{}){{1,{}}}".format, inner, st.integers(1, 3)),
            ),
            max_leaves=5,
        ),
        st.text("ab", min_size=1, max_size=40),
    )
    def test_never_longer(self, expression: str, text: str) -> None:
        """Whatever `re` matches as a whole is not longer."""
        longest = compile_pattern(expression.encode()).longest
        assert longest is not None
        if re.fullmatch(expression, text):
            self.assertLessEqual(len(text), longest)
        self.assertIsNone(re.fullmatch(expression, "a" * (longest + 1)))
