import itertools
import subprocess
import sys
from collections.abc import Callable, Mapping
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

    def test_verdicts_of_samples(self) -> None:
        """A sample has to be matched, one of others must not be, each at its byte if that is given; what is not enough must not be decided."""
        check_matcher(Matcher(), [(HELLO, 6)], undecided=[HELLO[:5]], examples=0)
        for samples, said in (
            ({"samples": [b"HELP\n"]}, "NO at byte 4, not MATCH: b'HELP\\n'"),
            ({"not_samples": [HELLO]}, "MATCH at byte 6, not NO: b'HELLO\\n'"),
            ({"not_samples": [(b"HELP\n", 3)]}, "NO at byte 4, but it is due at byte 3: b'HELP\\n'"),
            ({"samples": [(HELLO, 5)]}, "MATCH at byte 6, but it is due at byte 5: b'HELLO\\n'"),
            ({"undecided": [b"HELP"]}, "NO at byte 4, not NEED_MORE: b'HELP'"),
        ):  # fmt: skip
            told = complaint(Matcher(), **{"samples": (), **samples})
            self.assertEqual(told, f"greeting: {said}")
        said = complaint(Matcher(), b"HELLO" + b"x" * 500)
        self.assertIn("NO at byte 64, not MATCH", said)
        self.assertIn("… (505 bytes)", said)
        self.assertLess(len(said), 250)


class PredicateTests(SynchronousTestCase):
    def test_answers(self) -> None:
        """Raise, give no verdict, change their mind, depend on what was asked before, or on how the bytes are cut."""
        asked = itertools.count(1)

        def length(data: bytes, last: int | None) -> int:
            return len(data) if last is None else 1000

        answers: tuple[tuple[str, Callable[[Peeked], object]], ...] = (
            ("greeting: the predicate raised IndexError('index out of range') with 1 bytes: b'H'",
             lambda peeked: MATCH if peeked.data[4] == 0x4F else NO),
            ("gave False, not a Verdict", lambda peeked: peeked.startswith(HELLO)),
            ("greeting: NEED_MORE for the first 4 bytes at once, but MATCH byte by byte: b'HELLO\\n'",
             lambda peeked: MATCH if peeked.data == HELLO[:3] else greets(peeked)),
            ("but NEED_MORE byte by byte", lambda _: MATCH if next(asked) > 5 else NEED_MORE),
            ("NEED_MORE for the first 2 bytes at once, but MATCH byte by byte",
             lambda peeked: MATCH if peeked.parsed(length) >= 3 else NEED_MORE),
        )  # fmt: skip
        for said, answer in answers:
            self.assertIn(said, fault(Greeting(answer), HELLO))

    def test_raises_on_rare_bytes(self) -> None:
        """Raise, even for bytes that are in no sample."""

        def raises(peeked: Peeked) -> Verdict:
            if any(byte >> 4 == 8 for byte in peeked.data[1:]):
                raise ValueError("rare")
            return greets(peeked)

        matcher = Matcher(lambda _: Greeting(raises))
        check_matcher(matcher, [HELLO], examples=0)
        self.assertIn("ValueError('rare')", complaint(matcher, HELLO, examples=300))

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
        exact = Greeting(lambda peeked: (NEED_MORE, MATCH)[len(peeked.data) >= 64], longest=64)
        check_matcher(Matcher(lambda _: exact), [HELLO + bytes(58)], examples=0)
        # Leave a first byte out that they do not rule out.
        first = Greeting(first_bytes=frozenset(b"h"))
        self.assertIn("MATCH, but first_bytes has no 0x48", fault(first, HELLO))
        self.assertIn("NEED_MORE, but first_bytes has no 0x48", fault(first))

    def test_key_and_exchanges(self) -> None:
        """Match a stream with a name that their key has not, tell requests that are not there, or others when more bytes have come."""
        keyed = Greeting(key=KEY)
        asked = [Exchange(b"HE", b"y", repeat=True)]
        invented = [Exchange(b"XX", b"y", repeat=True)]

        def read(how: Callable[[Peeked], str | None]) -> Greeting:
            return Greeting(key=attrs.evolve(KEY, read=how))

        for predicate, sample, said in (
            (keyed, b"HELLO bob\n", "MATCH, but the key has no 'bob'"),
            (keyed, b"HELLO example.com\n", "has no 'example.com'"),
            (read(lambda peeked: str(len(peeked) // 3 * 3 or "alice")), HELLO, "gave '3' after 'alice' for fewer bytes"),
            (read(lambda peeked: str(peeked.data[5])), HELLO, "key.read raised IndexError"),
            (Greeting(exchanges=lambda peeked: asked if len(peeked) > 2 else []), HELLO, "exchanges gave (), but (Exchange("),
            (Greeting(exchanges=lambda _: invented), HELLO, "exchanges gave the requests [b'XX']"),
            (Greeting(exchanges=lambda _: [invented[1]]), HELLO, "exchanges raised IndexError"),
        ):  # fmt: skip
            self.assertIn(said, fault(predicate, sample))
        for name in (b"alice", b"a.example.com", b"b.a.example.com"):
            self.assertIs(decided(keyed, b"HELLO " + name + b"\n").verdict, MATCH)
        converses = Greeting(exchanges=lambda peeked: asked if peeked.startswith(b"HE") else [])
        self.assertIs(decided(converses, HELLO).verdict, MATCH)

    def test_facts(self) -> None:
        """Facts are a mapping of words to printable ASCII of at most 255 characters, never raise, and do not depend on cuts."""

        def length(data: bytes, last: int | None) -> int:
            return last or len(data)

        facts: list[tuple[Any, str]] = [
            (["x"], "learnt gave ['x'], not a mapping"),
            ({"Who": "x"}, "the fact 'Who' must be called by a lower-case word"),
            ({"who": b"x"}, "the fact who is b'x', not printable ASCII"),
            ({"who": "a\n"}, "the fact who is 'a\\n', not printable ASCII"),
            ({"who": "é"}, "the fact who is 'é', not printable ASCII"),
            ({"who": "a" * 256}, "the fact who has 256 characters, more than 255"),
            (lambda peeked: {"who": chr(peeked.data[6])}, "learnt raised IndexError"),
            (
                lambda peeked: {"n": str(peeked.parsed(length))},
                "learnt {'n': '1'} when cut at byte 1, but {'n': '6'} when uncut",
            ),
        ]
        for told, message in facts:
            learnt = told if callable(told) else lambda _, told=told: told
            self.assertIn(message, fault(Greeting(learnt=learnt), HELLO))

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

    def test_words(self) -> None:
        """It provides the interface; name, summary, options and their lines are of the form that they have to be."""
        nothing: Any = object()
        odd = attrs.evolve(OPTION, name="a=b")
        rows: tuple[tuple[Any, str], ...] = (
            (nothing, "does not provide IProtocolMatcher"),
            *((Matcher(name=name), f"the name {name!r} must be") for name in ("", "Greeting", "a b", 5)),  # type: ignore[arg-type]
            (Matcher(name="not"), "'not' cannot be"),
            (Matcher(summary="a\nb"), "the summary of greeting must"),
            (Matcher(options=(attrs.evolve(OPTION, meaning=" "),)), "the meaning of the option 'word' of greeting must be one line"),
            (Matcher(options=(attrs.evolve(OPTION, example=" "),)), "the example of the option 'word' of greeting must be one line"),
            (Matcher(options=("word",)), "is not a txmux.interfaces.Option"),
            (Matcher(options=(OPTION, OPTION)), "is there twice"),
            (Matcher(options=(odd,)), "the option 'a=b' of greeting must be"),
        )  # fmt: skip
        for matcher, said in rows:
            self.assertIn(said, complaint(matcher))

    def matcher(self, *bad: str, error: Exception) -> Matcher:
        def make(options: Mapping[str, str]) -> Greeting:
            if options.get("word") in bad:
                raise error
            return Greeting()

        return Matcher(make, (OPTION,))

    def test_values(self) -> None:
        """Every example works, and so do the options that are checked; whatever the value, only an `OptionError` is raised, which names an option that there is."""
        bad = OptionError("word", "bad")
        for value, error, options, said in (
            ("HELLO", bad, {}, "the example of greeting word='HELLO' does not work, with no other examples"),
            ("BYE", bad, {"word": "BYE"}, "greeting word='BYE' cannot be made: word: bad"),
            ("-1", ValueError("bad"), {}, "greeting word='-1' raised ValueError('bad'); only OptionError may be raised"),
        ):  # fmt: skip
            self.assertEqual(complaint(self.matcher(value, error=error), options=options), said)
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
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        self.assertIn("install txmux[testing], or do without them by examples=0", done.stdout)
