"""Tests of the lines of ``match =``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.rules.fakes import MATCHERS, FakeMatcher, FakePredicate
from txmux.detection.registry import PluginProblem, Registry, installed_matchers
from txmux.interfaces import IProtocolMatcher, Option
from txmux.rules.model import Alternative
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.matching import MEANT, SERVER_FIRST, read_alternative

if TYPE_CHECKING:
    from collections.abc import Mapping


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

    def predicate(self, options: Mapping[str, str]) -> Any:
        return self.made


@attrs.frozen
class Uncalled:
    longest: int = 1


class ReadingTests(SynchronousTestCase):
    def test_matcher_alone(self) -> None:
        self.assertEqual(
            read_alternative("ssh", MATCHERS), Alternative("ssh", FakePredicate("ssh"))
        )

    def test_options_reach_the_plugin_as_text(self) -> None:
        line = 'tls  sni="www.example.com,*.example.org" alpn='
        self.assertEqual(
            read_alternative(line, MATCHERS),
            Alternative(
                line, FakePredicate("tls", (("sni", "www.example.com,*.example.org"), ("alpn", "")))
            ),
        )

    def test_not(self) -> None:
        self.assertEqual(
            read_alternative("not tls", MATCHERS),
            Alternative("not tls", FakePredicate("tls"), negated=True),
        )

    def test_backslashes_reach_the_plugin(self) -> None:
        found = read_alternative(r"payload text=PING\r\n\x00=", MATCHERS)
        self.assertEqual(found.predicate, FakePredicate("payload", (("text", r"PING\r\n\x00="),)))


class ProblemTests(SynchronousTestCase):
    def complaints(self, line: str) -> tuple[str, ...]:
        error: InvalidValueError = self.assertRaises(
            InvalidValueError, read_alternative, line, MATCHERS
        )
        return error.messages

    def refuses(self, line: str, *told: str) -> None:
        self.assertEqual(self.complaints(line), told)

    def test_unknown_matcher(self) -> None:
        there_are = "(there are any, broken, payload, picky, redis, ssh, tls)"
        for line, message in {
            "sssh": f"unknown matcher 'sssh'; did you mean 'ssh'? {there_are}",
            "not TLS sni=x": f"unknown matcher 'TLS'; did you mean 'tls'? {there_are}",
            "quux": f"unknown matcher 'quux' {there_are}",
            "!ssh": "unknown matcher '!ssh'; write 'not ssh'",
            "!": "unknown matcher '!'; write 'not MATCHER'",
            "ssl sni=x": "unknown matcher 'ssl'; write 'tls sni=x'",
            "HTTPS": "unknown matcher 'HTTPS'; write 'tls'",
            "websocket": "unknown matcher 'websocket'; write 'http upgrade=websocket'",
            "tsl": f"unknown matcher 'tsl'; did you mean 'tls'? {there_are}",
            "jabber": "unknown matcher 'jabber'; write 'xmpp'",
            "h2": "unknown matcher 'h2'; write 'tls alpn=h2'",
            "http3": "unknown matcher 'http3'; write 'quic alpn=h3'",
            "not udp": "unknown matcher 'udp'; write 'any'",
            "ssh, tls": "unknown matcher 'ssh,'; write one matcher a line, without commas",
            "''": f"unknown matcher '' {there_are}",
        }.items():
            self.refuses(line, message)

    def test_nearest_names_commonest_first(self) -> None:
        known = installed_matchers()
        for name, meant in {
            "tsl": "'tls'",
            "htpt": "'http'",
            "rtp": "'rdp', 'rtmp' or 'rtsp'",
            "dtl": "'dtls'",
            "shs": "'ssh'",
            "rediss2": "'redis'",
            "sock5": "'socks5'",
        }.items():
            error = self.assertRaises(
                InvalidValueError,
                read_alternative,
                name,
                {one: known[one] for one in known if one != name},
            )
            self.assertIn(f"unknown matcher '{name}'; did you mean {meant}?", str(error))

    def test_what_others_write(self) -> None:
        """What is named instead of another word is a line that can be written, and the word is no matcher."""
        known = installed_matchers()
        for word, meant in MEANT.items():
            self.assertNotIn(word, known)
            read_alternative(meant, known)
        self.assertEqual([*SERVER_FIRST & known.keys()], [])

    def test_no_matchers(self) -> None:
        error = self.assertRaises(InvalidValueError, read_alternative, "ssh", {})
        self.assertEqual(str(error), "unknown matcher 'ssh' (there are none)")

    def test_server_speaks_first(self) -> None:
        for name in ("mysql", "smtp", "imap", "pop3", "FTP", "vnc", "nats", "mariadb", "lmtp"):
            (message,) = self.complaints(name)
            self.assertIn("'silent =' in [listen]", message)

    def test_not_alone(self) -> None:
        self.refuses("not", "names no matcher after 'not'; write for example 'not tls'")

    def test_all_wrong_options_at_once(self) -> None:
        self.refuses(
            "tls sin=a sni=a sni=b h2 x=1",
            "unknown option 'sin'; did you mean 'sni'? (tls takes sni=, alpn=)",
            "option 'sni' is given twice; keep one",
            "'h2' is not an option; several values have commas between them: 'sni=b,h2' (tls takes sni=, alpn=)",
            "unknown option 'x' (tls takes sni=, alpn=)",
        )
        self.refuses("any x=1", "unknown option 'x' (any takes no options)")

    def test_value_that_the_plugin_refuses(self) -> None:
        self.refuses("picky port=bad", "picky port: must be good")
        self.refuses("picky", "picky needs port=")

    def test_broken_plugin(self) -> None:
        self.refuses(
            "broken",
            "the matcher 'broken' failed: ZeroDivisionError: oh; report it to its author, and do without it until then",
        )

    def test_blank_after_a_comma(self) -> None:
        hint = "blanks beside a comma need quotes around the value (tls takes sni=, alpn=)"
        for line, word in (("tls sni=a, b", "b"), ("tls sni=a ,b", ",b"), ("tls sni=a , b", ",")):
            self.assertEqual(self.complaints(line)[0], f"{word!r} is not an option; {hint}")
        self.assertEqual(len(self.complaints("tls sni=a, b, c")), 2)

    def test_malformed_plugin(self) -> None:
        no_name: Any = ("text",)
        no_options: Any = None
        no_text: Any = 7
        no_number: Any = 1.5
        matchers: tuple[tuple[IProtocolMatcher, str], ...] = (
            (Malformed(), "ZeroDivisionError: no options"),
            (
                FakeMatcher("bad", options=no_name),
                "AttributeError: 'str' object has no attribute 'name'",
            ),
            (
                FakeMatcher("bad", options=no_options),
                "TypeError: 'NoneType' object is not iterable",
            ),
            (
                FakeMatcher("bad", options=(Option(no_text, "", ""),)),
                "the name of an option is 7, not text",
            ),
            (Making(Uncalled()), "its predicate Uncalled(longest=1) cannot be called"),
            (Making(None), "AttributeError: 'NoneType' object has no attribute 'longest'"),
            (
                Making(len),
                "AttributeError: 'builtin_function_or_method' object has no attribute 'longest'",
            ),
            (
                Making(FakePredicate("x", longest=no_number)),
                "its predicate's 'longest' is 1.5, not a whole number",
            ),
        )
        for matcher, words in matchers:
            error = self.assertRaises(InvalidValueError, read_alternative, "bad", {"bad": matcher})
            self.assertEqual(
                str(error),
                f"the matcher 'bad' failed: {words}; report it to its author, and do without it until then",
            )

    def test_open_quote(self) -> None:
        self.assertIn("a quote is not closed", self.complaints("payload text='a")[0])

    def test_claimed_twice(self) -> None:
        problem = PluginProblem("'ssh' is there 2 times; uninstall one", "ssh")
        registry = Registry({"tls": MATCHERS["tls"]}, (problem,))
        error = self.assertRaises(InvalidValueError, read_alternative, "ssh software=x", registry)
        self.assertEqual(error.messages, (problem.message,))
        self.assertEqual(read_alternative("tls", registry).predicate, FakePredicate("tls"))
