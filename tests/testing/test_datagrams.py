import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.testing.matchers import Greeting, Matcher
from txmux.interfaces import Datagrams, NameKey, Option, Transport, Verdict
from txmux.matchers.any import any as any_client
from txmux.matchers.tls import tls
from txmux.testing import check_datagrams, check_matcher, flow_decided
from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import DatagramFields

MATCH, NO = Verdict.MATCH, Verdict.NO
HELLO = b"HELLO world"
FLOW = (b"HELLO1", b"more")


def greets(flow: Datagrams) -> Verdict:
    """Say without fault whether a client sends a datagram that begins with ``HELLO``, or two if a 1 follows."""
    if not flow.startswith(b"HELLO"):
        return Verdict.NO
    if not flow.startswith(b"HELLO1"):
        return Verdict.MATCH
    if len(flow.datagrams) == 1:
        return Verdict.NEED_MORE
    return Verdict.MATCH if flow.datagrams[1] else Verdict.NO


GREETING = partial(Greeting, greets, longest=2)


def udp_matcher(
    make: Callable[[Mapping[str, str]], Any] = lambda _: GREETING(),
    options: Any = (),
    transports: Any = (Transport.UDP,),
) -> Matcher:
    return Matcher(make, options, transports=transports)


class CheckTests(SynchronousTestCase):
    def assert_told(self, make: Callable[[], Any], message: str, **kwargs: Any) -> None:
        kwargs, matcher = (
            {"samples": [HELLO, FLOW], "examples": 0} | kwargs,
            udp_matcher(lambda _: make()),
        )
        error = self.assertRaises(AssertionError, check_datagrams, matcher, **kwargs)
        self.assertIn(message, str(error))

    def test_sound(self) -> None:
        """A sound matcher passes, for UDP only or for both."""
        others: list[Any] = [b"GET", (b"HELLO1", b"")]
        check_datagrams(udp_matcher(), [HELLO, FLOW], others, undecided=[b"HELLO1"])
        check_datagrams(any_client, [b"x", (b"x", b"")])
        option = Option("word", "what is said", "HELLO")
        check_datagrams(udp_matcher(options=(option,)), [HELLO], options={"word": "x"}, examples=10)

    def test_expected(self) -> None:
        """Another answer is told, and a sample that is no flow, as one with a byte at which the answer is due."""
        no_flow = "(b'GET', 1) is not what a client says; write the bytes"
        expected: dict[str, dict[str, Any]] = {
            "greeting: MATCH, not NO: [b'HELLO world']": {"not_samples": [HELLO]},
            "NO, not MATCH: [b'x']": {"samples": [b"x"]},
            no_flow: {"not_samples": [(b"GET", 1)]},
        }
        for message, samples in expected.items():
            self.assert_told(GREETING, message, **samples)

    def test_other_transport(self) -> None:
        """Each check refuses matchers of the other transport."""
        for check, matcher, message in (
            (check_datagrams, tls, "tls is not for UDP"),
            (check_matcher, udp_matcher(), "greeting is not for TCP"),
            (check_datagrams, udp_matcher(transports=()), "not a collection of Transport"),
        ):
            self.assertIn(message, str(self.assertRaises(AssertionError, check, matcher, [])))

    def test_answers(self) -> None:
        for message, answer in {
            # A datagram that is cut off makes many raise.
            "the predicate raised IndexError": lambda flow: MATCH if flow.data[8] else NO,
            "gave None, not a Verdict": lambda _: None,
            # Later datagrams change no answer.
            "NO after MATCH for fewer datagrams": (
                lambda flow: MATCH if flow.datagrams[-1] == HELLO else NO
            ),
        }.items():
            self.assert_told(partial(Greeting, answer, longest=2), message, samples=[HELLO])

    def test_waits_and_state(self) -> None:
        """It is decided with `longest` datagrams, of which there are at most four, and remembers nothing but by a parser."""

        def counts() -> Any:
            turns = itertools.cycle((MATCH, NO))
            return Greeting(lambda _: next(turns), longest=2)

        for make, message in (
            (partial(GREETING, longest=1), "NEED_MORE with 1 datagrams, but longest is 1"),
            (partial(GREETING, longest=5), "longest is 5"),
            (counts, "one by one, but not at once"),
        ):
            self.assert_told(make, message)

    def test_told(self) -> None:
        """First bytes, key and facts are true."""
        counts = itertools.count()
        faults: dict[str, dict[str, Any]] = {
            "first_bytes has no 0x48": {"first_bytes": frozenset(b"x")},
            "but the key has no 'bob'": {"key": NameKey(lambda _: "bob", frozenset({"alice"}))},
            "key.read gave '2' after '1' for fewer datagrams: [b": {
                "key": NameKey(lambda flow: str(len(flow.datagrams)), frozenset({"1", "2"}))
            },
            "key.read raised IndexError": {"key": NameKey(lambda flow: flow.datagrams[4])},
            "the fact 'Bad' must be": {"learnt": lambda *_: {"Bad": "x"}},
            "learnt other facts": {"learnt": lambda *_: {"asked": str(next(counts))}},
        }
        for message, attributes in faults.items():
            self.assert_told(partial(GREETING, **attributes), message)

    def test_cost_and_random_changes(self) -> None:
        """What a datagram costs grows with its bytes; random changes find what samples do not."""

        def square(flow: Datagrams) -> Verdict:
            for length in range(0, len(flow.data), 100):
                for _ in range(0, length, 100):
                    pass
            return Verdict.MATCH

        def rare(flow: Datagrams) -> Verdict:
            if flow.startswith(b"HELLO") and not flow.data.isascii():
                raise ZeroDivisionError
            return Verdict.MATCH

        for make, message, examples in (
            (partial(Greeting, square, longest=1), "grows faster than the bytes", 0),
            (partial(Greeting, rare, longest=2), "raised ZeroDivisionError", 100),
        ):
            self.assert_told(make, message, samples=[HELLO], examples=examples)

    def test_options(self) -> None:
        """The options that are checked, the examples and any values can be used."""

        def picky(options: Mapping[str, str]) -> Greeting:
            return {"": GREETING()}[options.get("word", "")]

        matcher = udp_matcher(picky, (Option("word", "what is said", ""),))
        error = self.assertRaises(AssertionError, check_datagrams, matcher, [], examples=0)
        self.assertIn("must be one line of text", str(error))
        matcher = udp_matcher(picky, (Option("word", "what is said", "x"),))
        self.assertRaises(KeyError, check_datagrams, matcher, [], examples=0)

    def test_fields(self) -> None:
        """A short field is a no, and the length of the datagram is known."""

        def read(cursor: Cursor) -> None:
            if cursor.number(2, 0, 9) != len(cursor.data) - 2:
                raise MalformedError

        fields = DatagramFields(read, frozenset({0}))
        matcher = PlainMatcher("x", "x", fields, transports=(Transport.UDP,))
        check_datagrams(matcher, [b"\0\2ab"], [b"\0", b"\0\2a", b"\0\2abc", b"\1\0"])

    def test_decided(self) -> None:
        """`flow_decided` counts datagrams."""
        self.assertEqual(flow_decided(GREETING(), FLOW), (Verdict.MATCH, 2))
        self.assertEqual(flow_decided(GREETING(), [b"HELLO1"]), (Verdict.NEED_MORE, 1))
        self.assertEqual(flow_decided(GREETING(), [b"x"] * 9), (Verdict.NO, 1))
