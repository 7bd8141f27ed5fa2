import itertools
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.testing.matchers import HELLO, KEY, OPTION, Greeting, Matcher, greets
from txmux.errors import OptionError
from txmux.interfaces import Exchange, IProtocolMatcher, Peeked, Verdict
from txmux.testing import check_matcher, decided, with_example

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE


def complaint(matcher: IProtocolMatcher, *samples: bytes, **kwargs: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        check_matcher(matcher, **{"samples": samples, "examples": 0, **kwargs})
    return str(caught.value)


def fault(predicate: object, *samples: bytes, **kwargs: Any) -> str:
    return complaint(Matcher(lambda _: predicate), *samples, **kwargs)


class SampleTests(SynchronousTestCase):
    def test_fine(self) -> None:
        """A matcher that keeps the contract is fine, with random bytes too."""
        check_matcher(Matcher(), [HELLO], [b"GET /", (b"HELP\n", 4)])
        check_matcher(Matcher(options=(OPTION,)), [HELLO], options={"word": "x"})

    def test_no_match(self) -> None:
        """A sample has to be matched, and one of others must not be."""
        self.assertEqual(
            complaint(Matcher(), b"HELP\n"), "greeting: NO at byte 4, not MATCH: b'HELP\\n'"
        )
        said = complaint(Matcher(), not_samples=[HELLO])
        self.assertEqual(said, "greeting: MATCH at byte 6, not NO: b'HELLO\\n'")

    def test_late(self) -> None:
        """The ``NO`` has to come at its byte."""
        said = complaint(Matcher(), not_samples=[(b"HELP\n", 3)])
        self.assertEqual(said, "greeting: NO at byte 4, but it is due at byte 3: b'HELP\\n'")

    def test_not_at_its_byte(self) -> None:
        """So has the match, if its byte is given; and what is not enough must not be decided."""
        check_matcher(Matcher(), [(HELLO, 6)], undecided=[HELLO[:5]], examples=0)
        said = complaint(Matcher(), samples=[(HELLO, 5)])
        self.assertEqual(said, "greeting: MATCH at byte 6, but it is due at byte 5: b'HELLO\\n'")
        said = complaint(Matcher(), undecided=[b"HELP"])
        self.assertEqual(said, "greeting: NO at byte 4, not NEED_MORE: b'HELP'")

    def test_long_sample(self) -> None:
        """A long sample is shown by its beginning."""
        said = complaint(Matcher(), b"HELLO" + b"x" * 500)
        self.assertIn("NO at byte 64, not MATCH", said)
        self.assertIn("… (505 bytes)", said)
        self.assertLess(len(said), 250)


class PredicateTests(SynchronousTestCase):
    def test_raises(self) -> None:
        self.assertEqual(
            fault(Greeting(lambda peeked: MATCH if peeked.data[4] == 0x4F else NO), HELLO),
            "greeting: the predicate raised IndexError('index out of range') with 1 bytes: b'H'",
        )

    def test_raises_on_rare_bytes(self) -> None:
        """Raise, even for bytes that are in no sample."""

        def raises(peeked: Peeked) -> Verdict:
            if any(byte >> 4 == 8 for byte in peeked.data[1:]):
                raise ValueError("rare")
            return greets(peeked)

        matcher = Matcher(lambda _: Greeting(raises))
        check_matcher(matcher, [HELLO], examples=0)
        self.assertIn("ValueError('rare')", complaint(matcher, HELLO, examples=300))

    def test_no_verdict(self) -> None:
        boolean = Greeting(lambda peeked: peeked.startswith(HELLO))
        self.assertIn("gave False, not a Verdict", fault(boolean, HELLO))

    def test_changes_its_mind(self) -> None:
        self.assertEqual(
            fault(
                Greeting(lambda peeked: MATCH if peeked.data == HELLO[:3] else greets(peeked)),
                HELLO,
            ),
            "greeting: NEED_MORE for the first 4 bytes at once, but MATCH byte by byte: b'HELLO\\n'",
        )

    def test_remembers(self) -> None:
        """Depend on what was asked before."""
        asked = itertools.count(1)
        counts = Greeting(lambda _: MATCH if next(asked) > 5 else NEED_MORE)
        self.assertIn("but NEED_MORE byte by byte", fault(counts, HELLO))

    def test_depends_on_the_cut(self) -> None:
        """Let a parser end otherwise when it goes on than when it begins."""

        def length(data: bytes, last: int | None) -> int:
            return len(data) if last is None else 1000

        parses = Greeting(lambda peeked: MATCH if peeked.parsed(length) >= 3 else NEED_MORE)
        self.assertIn(
            "NEED_MORE for the first 2 bytes at once, but MATCH byte by byte", fault(parses, HELLO)
        )

    def test_longest(self) -> None:
        """Need more than they said, or not say how many."""
        for longest, sample, said in (
            (3, HELLO, "MATCH only at byte 6, longest is 3"),
            (3, b"HELL", "NEED_MORE with 4 bytes, but longest is 3"),
            (64, HELLO, "NEED_MORE for all of 64 bytes, which is longest"),
            (0, HELLO, "longest is 0, not a number"),
            (None, HELLO, "longest is None, not a number"),
        ):
            predicate = Greeting(
                lambda peeked: MATCH if b"\n" in peeked.data else NEED_MORE, longest=longest
            )
            self.assertIn(said, fault(predicate, sample))

    def test_first_bytes(self) -> None:
        """Leave a first byte out that they do not rule out."""
        first = Greeting(first_bytes=frozenset(b"h"))
        self.assertIn("MATCH, but first_bytes has no 0x48", fault(first, HELLO))
        self.assertIn("NEED_MORE, but first_bytes has no 0x48", fault(first))

    def test_key(self) -> None:
        """Match a stream with a name that their key has not."""
        keyed, lies, raises = (
            Greeting(key=attrs.evolve(KEY, read=read))
            for read in (
                KEY.read,
                lambda peeked: str(len(peeked) // 3 * 3 or "alice"),
                lambda peeked: str(peeked.data[5]),
            )
        )
        self.assertIn("MATCH, but the key has no 'bob'", fault(keyed, b"HELLO bob\n"))
        self.assertIn("has no 'example.com'", fault(keyed, b"HELLO example.com\n"))
        self.assertIn("gave '3' after 'alice' for fewer bytes", fault(lies, HELLO))
        self.assertIn("key.read raised IndexError", fault(raises, HELLO))
        for name in (b"alice", b"a.example.com", b"b.a.example.com"):
            self.assertIs(decided(keyed, b"HELLO " + name + b"\n").verdict, MATCH)

    def test_exchanges(self) -> None:
        """Tell requests that are not there, or others when more bytes have come."""
        asked = [Exchange(b"HE", b"y", repeat=True)]
        invented = [Exchange(b"XX", b"y", repeat=True)]
        converses, late, invents, raises = (
            Greeting(exchanges=exchanges)
            for exchanges in (
                lambda peeked: asked if peeked.startswith(b"HE") else [],
                lambda peeked: asked if len(peeked) > 2 else [],
                lambda _: invented,
                lambda _: [invented[1]],
            )
        )
        self.assertIs(decided(converses, HELLO).verdict, MATCH)
        self.assertIn("exchanges gave (), but (Exchange(", fault(late, HELLO))
        self.assertIn("exchanges gave the requests [b'XX']", fault(invents, HELLO))
        self.assertIn("exchanges raised IndexError", fault(raises, HELLO))


class FactTests(SynchronousTestCase):
    def test_facts(self) -> None:
        """Facts are a mapping of words to printable ASCII of at most 255 characters, and never raise."""
        facts: list[tuple[Any, str]] = [
            (["x"], "learnt gave ['x'], not a mapping"),
            ({"Who": "x"}, "the fact 'Who' must be called by a lower-case word"),
            ({"who": b"x"}, "the fact who is b'x', not printable ASCII"),
            ({"who": "a\n"}, "the fact who is 'a\\n', not printable ASCII"),
            ({"who": "é"}, "the fact who is 'é', not printable ASCII"),
            ({"who": "a" * 256}, "the fact who has 256 characters, more than 255"),
        ]
        for told, message in facts:
            self.assertIn(message, fault(Greeting(learnt=lambda _, told=told: told), HELLO))
        raises = Greeting(learnt=lambda peeked: {"who": chr(peeked.data[6])})
        self.assertIn("learnt raised IndexError", fault(raises, HELLO))

    def test_cut(self) -> None:
        """Facts do not depend on cuts."""

        def length(data: bytes, last: int | None) -> int:
            return last or len(data)

        said = fault(Greeting(learnt=lambda peeked: {"n": str(peeked.parsed(length))}), HELLO)
        self.assertIn("learnt {'n': '1'} when cut at byte 1, but {'n': '6'} when uncut", said)


class CostTests(SynchronousTestCase):
    def test_reads_again(self) -> None:
        """A predicate that reads all bytes anew for each one is found, by loops without calls too."""

        def rescans(peeked: Peeked) -> Verdict:
            for _ in peeked.data:
                pass
            return greets(peeked, 2000)

        self.assertIn("grows faster than the bytes", fault(Greeting(rescans, longest=2000), HELLO))

    def test_built_again(self) -> None:
        """An automaton that is built again while it is measured is not the client's cost."""

        def make(_: object) -> Greeting:
            unbuilt = [10_000]

            def builds(peeked: Peeked) -> Verdict:
                if sys.gettrace() and unbuilt:
                    for _ in range(unbuilt.pop()):
                        pass
                return greets(peeked, 2000)

            return Greeting(builds, longest=2000)

        check_matcher(Matcher(make), [HELLO], examples=0)

    def test_goes_on(self) -> None:
        """One that goes on where it was is fine, however long it takes."""

        def lines(data: bytes, last: tuple[int, int] | None) -> tuple[int, int]:
            at, count = last or (0, 0)
            for byte in data[at:]:
                count += byte == 0x0A
            return len(data), count

        def goes_on(peeked: Peeked) -> Verdict:
            peeked.parsed(lines)
            return greets(peeked, 2000)

        check_matcher(Matcher(lambda _: Greeting(goes_on, longest=2000)), [HELLO], examples=0)


class WordTests(SynchronousTestCase):
    def test_interface(self) -> None:
        """It provides the interface."""
        nothing: Any = object()
        self.assertIn("does not provide IProtocolMatcher", complaint(nothing))

    def test_name(self) -> None:
        """Its name is a lower-case word, and not the one that turns a match round."""
        for name in ("", "Greeting", "a b", 5):
            said = complaint(Matcher(name=name))  # type: ignore[arg-type]
            self.assertIn(f"the name {name!r} must be", said)
        self.assertIn("'not' cannot be", complaint(Matcher(name="not")))

    def test_lines(self) -> None:
        """Its summary, and what is said of its options, is one line each."""
        self.assertIn("the summary of greeting must", complaint(Matcher(summary="a\nb")))
        for field, option in (
            ("meaning", attrs.evolve(OPTION, meaning=" ")),
            ("example", attrs.evolve(OPTION, example=" ")),
        ):
            said = complaint(Matcher(options=(option,)))
            self.assertIn(f"the {field} of the option 'word' of greeting must be one line", said)

    def test_options(self) -> None:
        """Its options are options, with names of their own."""
        self.assertIn("is not a txmux.interfaces.Option", complaint(Matcher(options=("word",))))
        self.assertIn("is there twice", complaint(Matcher(options=(OPTION, OPTION))))
        odd = attrs.evolve(OPTION, name="a=b")
        self.assertIn("the option 'a=b' of greeting must be", complaint(Matcher(options=(odd,))))


class OptionTests(SynchronousTestCase):
    def matcher(self, *bad: str, error: Exception) -> Matcher:
        def make(options: Mapping[str, str]) -> Greeting:
            if options.get("word") in bad:
                raise error
            return Greeting()

        return Matcher(make, (OPTION,))

    def test_example(self) -> None:
        """Every example works."""
        said = complaint(self.matcher("HELLO", error=OptionError("word", "bad")))
        self.assertEqual(
            said, "the example of greeting word='HELLO' does not work, with no other examples"
        )

    def test_given_options(self) -> None:
        """So do the options that are checked."""
        matcher = self.matcher("BYE", error=OptionError("word", "bad"))
        said = complaint(matcher, options={"word": "BYE"})
        self.assertEqual(said, "greeting word='BYE' cannot be made: word: bad")

    def test_other_exceptions(self) -> None:
        """Whatever the value, only an `OptionError` is raised, which names an option that there is."""
        said = complaint(self.matcher("-1", error=ValueError("bad")))
        self.assertEqual(
            said, "greeting word='-1' raised ValueError('bad'); only OptionError may be raised"
        )
        said = complaint(self.matcher("-1", error=OptionError("wrod", "bad")))
        self.assertIn("the error names an unknown option: wrod: bad", said)
        check_matcher(self.matcher("-1", error=OptionError(None, "bad")), [HELLO], examples=5)

    def test_with_example(self) -> None:
        """An option that needs another one is given that one's example."""

        def make(options: Mapping[str, str]) -> Greeting:
            if "mask" in options and "word" not in options:
                raise OptionError("mask", "needs word=")
            return Greeting()

        mask = attrs.evolve(OPTION, name="mask", example="ff")
        matcher = Matcher(make, (mask, OPTION))
        self.assertEqual(with_example(matcher, "mask"), {"mask": "ff", "word": "HELLO"})
        self.assertEqual(with_example(matcher, "mask", "f0"), {"mask": "f0", "word": "HELLO"})
        self.assertEqual(with_example(matcher, ""), {})
        check_matcher(matcher, [HELLO], examples=5)


class WithoutHypothesisTests(SynchronousTestCase):
    def test_absent(self) -> None:
        """The suite says what to install, and goes without it when told so."""
        script = (
            "import sys; sys.modules['hypothesis'] = None\n"
            "from txmux.matchers.ssh import ssh\n"
            "from txmux.testing import check_matcher\n"
            "check_matcher(ssh, [b'SSH-2.0-x\\r\\n'], examples=0)\n"
            "try: check_matcher(ssh, [b'SSH-2.0-x\\r\\n'])\n"
            "except ImportError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        self.assertIn("install txmux[testing], or do without them by examples=0", done.stdout)
