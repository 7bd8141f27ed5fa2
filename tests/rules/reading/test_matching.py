from collections.abc import Mapping
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.rules.fakes import MATCHERS, FakeMatcher, FakePredicate
from txmux.detection.registry import PluginProblem, Registry, installed_matchers
from txmux.interfaces import IProtocolMatcher, Option
from txmux.rules.advice.matching import MEANT, SERVER_FIRST
from txmux.rules.model import Alternative
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.matching import read_alternative


@implementer(IProtocolMatcher)
class Malformed:
    name = "bad"
    summary = "for tests"

    @property
    def options(self) -> tuple[Option, ...]:
        raise ZeroDivisionError("no options")

    def predicate(self, options: Mapping[str, str]) -> Any:
        """Make none."""


@implementer(IProtocolMatcher)
@attrs.frozen
class Making:
    made: Any
    name: str = "bad"
    summary: str = "for tests"
    options: tuple[Option, ...] = ()
    error: BaseException | None = None

    def predicate(self, options: Mapping[str, str]) -> Any:
        if self.error is not None:
            raise self.error
        return self.made


@attrs.frozen
class Begins(FakePredicate):
    first_bytes: Any = None


@attrs.frozen
class Uncalled:
    longest: int = 1


class ReadingTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """Options reach the plugin as text, with their backslashes."""
        names = "www.example.com,*.example.org"
        for line, name, options in (
            ("ssh", "ssh", ()),
            ("not tls", "tls", ()),
            (f'tls  sni="{names}" alpn=', "tls", (("sni", names), ("alpn", ""))),
            (r"payload text=PING\r\n\x00=", "payload", (("text", r"PING\r\n\x00="),)),
        ):
            made = Alternative(line, FakePredicate(name, options), negated=line[:3] == "not")
            self.assertEqual(read_alternative(line, MATCHERS), made)

    def test_mistakes_are_told_with_the_nearest_names(self) -> None:
        known = installed_matchers()
        for name, meant in {
            "tsl": "'tls'", "htpt": "'http'", "rtp": "'rdp', 'rtmp' or 'rtsp'", "dtl": "'dtls'",
            "shs": "'ssh'", "rediss2": "'redis'", "sock5": "'socks5'",
        }.items():  # fmt: skip
            others = {one: known[one] for one in known if one != name}
            error = self.assertRaises(InvalidValueError, read_alternative, name, others)
            self.assertIn(f"unknown matcher '{name}'; did you mean {meant}?", str(error))
        error = self.assertRaises(InvalidValueError, read_alternative, "ssh", {})
        self.assertEqual(str(error), "unknown matcher 'ssh' (there are none)")
        for line, message in {
            "picky port=bad": "picky port: must be good",
            "picky": "picky needs port=",
            "broken": "the matcher 'broken' failed: ZeroDivisionError: oh; report it to its author, and do without it until then",
        }.items():
            error = self.assertRaises(InvalidValueError, read_alternative, line, MATCHERS)
            self.assertEqual(error.messages, (message,))

    def test_lines_that_stand_for_what_others_write(self) -> None:
        """What is named instead of another word is a line that can be written, and the word is no matcher; silence takes a time, and nobody who speaks."""
        known = installed_matchers()
        for word, meant in MEANT.items():
            self.assertNotIn(word, known)
            read_alternative(meant, known)
        self.assertEqual([*SERVER_FIRST & known.keys()], [])
        lines = "silent", "silent after=2m", "any"
        times = [read_alternative(text, known).silent_after for text in lines]
        self.assertEqual(times, [0.0, 120.0, None])

    def test_malformed_plugin(self) -> None:
        fake: Any = FakeMatcher
        number: Any = 1.5
        option, predicate = Option(number, "", ""), FakePredicate("x", longest=number)
        begins = Begins("x", first_bytes="ab")
        for words, matcher in {
            "ZeroDivisionError: no options": Malformed(),
            "AttributeError: 'str' object has no attribute 'name'": fake("bad", options=("text",)),
            "TypeError: 'NoneType' object is not iterable": fake("bad", options=None),
            "the name of an option is 1.5, not text": fake("bad", options=(option,)),
            "its predicate Uncalled(longest=1) cannot be called": Making(Uncalled()),
            "AttributeError: 'NoneType' object has no attribute 'longest'": Making(None),
            "AttributeError: 'builtin_function_or_method' object has no attribute 'longest'": Making(
                len
            ),
            "its predicate's 'longest' is 1.5, not a whole number": Making(predicate),
            "its predicate's 'first_bytes' is 'ab', not a frozenset": Making(begins),
            "SystemExit: no library": Making(None, error=SystemExit("no library")),
        }.items():
            error = self.assertRaises(InvalidValueError, read_alternative, "bad", {"bad": matcher})
            expected = f"the matcher 'bad' failed: {words}; report it to its author, and do without it until then"
            self.assertEqual(str(error), expected)

    def test_claimed_twice(self) -> None:
        problem = PluginProblem("'ssh' is there 2 times; uninstall one", "ssh")
        registry = Registry({"tls": MATCHERS["tls"]}, (problem,))
        error = self.assertRaises(InvalidValueError, read_alternative, "ssh software=x", registry)
        self.assertEqual(error.messages, (problem.message,))
        self.assertEqual(read_alternative("tls", registry).predicate, FakePredicate("tls"))
